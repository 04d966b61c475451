"""What a model learns beside next tokens: one term of its loss.

A new term is a module beside this one: a class of it, and an objective that is called by name,

    class Other(WorldModel):
        name, choice = "other", (OtherTerm,)

and a line in `OBJECTIVES`. Then `world_model` combines it with the others, and its weight in stages is its name.

Shape letters: S states at anchors, C hidden width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from sequela.model.decoder import Decoder
from sequela.training.data import Inputs
from sequela.training.objectives.anchors import Anchors, Records
from sequela.training.objectives.objective import Group, Loss, Setup, Validation
from sequela.training.objectives.stages import TrainingStage


@dataclass(frozen=True, eq=False)
class GivenRow:
    """A packed row from which terms make their batches.

    Attributes:
        records, row: the row holds the windows `row` of these.
        inputs: its tokens and state tokens.
        anchors: where its states are; None if nobody reads any.
        random: for this term and these windows: it does not matter when, where and how often they are collated.
        learned: names of the losses that count in any stage.
    """

    records: Records
    row: np.ndarray
    inputs: Inputs
    anchors: Anchors | None
    random: np.random.Generator
    learned: frozenset[str] = frozenset()

    @property
    def device(self) -> torch.device:
        """Where batches go."""
        return self.inputs.ids.device


@dataclass(frozen=True, eq=False)
class Read:
    """What one pass of the decoder over a row gave.

    Attributes:
        inputs: the row.
        decoder: for terms that take a pass of their own.
        hidden: [B, T, C], places aside among them.
        state: float32 [S, C].
    """

    inputs: Inputs
    decoder: Decoder
    hidden: Tensor
    state: Tensor

    def detached(self) -> Read:
        """The same, through which nothing trains the decoder."""
        return replace(self, hidden=self.hidden.detach(), state=self.state.detach())


Rows = Callable[[], Iterator[tuple[GivenRow, Read]]]
"""Rows of patients and what the decoder read of them, for validation; each call begins anew."""


@dataclass(frozen=True)
class Moment:
    """Where a run is after a step.

    Attributes:
        stage: of the next step.
        synced: whether targets become copies of the decoder now.
        late: how much is over of what follows once the term counts, in [0, 1].
    """

    stage: TrainingStage
    synced: bool
    late: float


class Term(nn.Module):
    """Its weights, and what it keeps, are for training, except for what `save` writes.

    Attributes:
        name: of its weight in stages, and of its options.
        parts: names of further losses that stages can weigh.
        defaults: its options, a dataclass; `rate` is the learning rate of its weights, times that of the run.
        states: whether it reads states at anchors.
    """

    name: ClassVar[str]
    parts: ClassVar[tuple[str, ...]] = ()
    defaults: ClassVar[Any]
    states: ClassVar[bool] = True

    def __init__(self, decoder: Decoder, setup: Setup, options: Any):
        """`options`: like `defaults`. The decoder may be copied, but not kept."""
        super().__init__()
        self.setup, self.options = setup, options

    @property
    def losses(self) -> tuple[str, ...]:
        """Names of what stages weigh."""
        return self.name, *self.parts

    def counts(self, stage: TrainingStage) -> bool:
        """Whether it is learned in a stage."""
        return any(stage.weight(name) for name in self.losses)

    def check(self, records: Records) -> None:
        """Raises InputError if nothing can be learned from these records."""

    def collate(self, given: GivenRow) -> Any:
        """What `forward` needs of a row, the same in every stage. Called on a thread."""
        raise NotImplementedError

    def forward(self, batch: Any, read: Read, stage: TrainingStage) -> Loss:
        """The loss of a row as the stage weighs it, a mean over what is foreseen, and parts by name.

        Where nothing is to be foreseen, it and its parts are 0. In a stage with `only_heads`, `read` is detached.
        """
        raise NotImplementedError

    def heed(self, figures: dict[str, float], stage: TrainingStage) -> None:
        """Called after a step of a stage in which losses had `figures`, with their means.

        Raises:
            InputError: if the run is not worth going on with.
        """

    def groups(self) -> list[Group]:
        """Its weights, at the rate of its options."""
        weights = [weight for weight in self.parameters() if weight.requires_grad]
        return [Group(self.name, weights, rate=self.options.rate)]

    def learning(self, stage: TrainingStage) -> list[nn.Parameter]:
        """Those of its weights that a stage trains in which it counts."""
        return [weight for group in self.groups() for weight in group.weights]

    def after_step(self, decoder: Decoder, moment: Moment) -> None:
        """Called once after every step, without gradients."""

    def flops(self, tokens: int, stage: TrainingStage) -> int:
        """FLOPs beside those of next tokens, given the latter; a forward pass is a third of them."""
        return 0

    def validate(self, tuning: Rows, training: Rows | None) -> Validation | None:
        """Figures on tuning patients; `training` rows are there at the end of a run alone, to fit comparisons on.

        Raises:
            InputError: if the model has collapsed.
        """
        return None

    def save(self, folder: Path) -> None:
        """Write what its use needs beside the decoder's checkpoint; nothing, unless a term says otherwise."""
