"""What a training objective is. Everything that depends on it lives behind this protocol, so that `run`, `loop` and
`monitor` serve every objective and name none.

A new objective is a new module in this folder and one line in `OBJECTIVES`; one that learns more than next tokens is
a term (`sequela.training.objectives.term`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor, nn

from sequela.errors import InputError, nearest
from sequela.model.decoder import Decoder
from sequela.tokens.corpus import Corpus
from sequela.tokens.packing import Windows
from sequela.tokens.tokenizer import Tokenizer
from sequela.training.settings import TrainSettings

# "module:class" by name; the first is the default
OBJECTIVES = {
    "next_token": "sequela.training.objectives.next_token:NextToken",
    "time_to_event": "sequela.training.objectives.time_to_event:TimeToEvent",
    "smb_faithful": "sequela.training.objectives.smb_faithful:SmbFaithful",
    "state_jepa": "sequela.training.objectives.state_jepa:StateJepa",
    "world_model": "sequela.training.objectives.world_model:WorldModel",
}


class Weighted(Protocol):
    """One packed row, ready for the forward pass; what else it holds is up to its objective."""

    @property
    def weight(self) -> float:
        """What the loss of this row is divided by, such as the number of predicted tokens.

        A step divides by the sum over its rows, on all processes: the loss is a mean over the step however the rows are
        shared out.
        """


class Loss(NamedTuple):
    """The loss of one row. A named tuple, because DDP and FSDP2 look for tensors inside it.

    Attributes:
        total: scalar, summed over the row and not yet divided by its weight.
        parts: detached scalars for the log, summed in the same way; every row has the same names. One that is named as
            the objective's `unit` is shown, logged and kept in place of the total: what runs are compared by, where
            they minimize different things.
        figures: further detached scalars, summed in the same way, that are no losses and are not logged; `heed` gets
            their means.
    """

    total: Tensor
    parts: dict[str, Tensor]
    figures: Mapping[str, Tensor] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Group:
    """Weights that one optimizer trains at one rate.

    Attributes:
        name: for error messages.
        weights: each weight of an objective is in at most one group; those in none must not require gradients.
        matrices: whether these are 2-D matrices that `optimizer` (Muon) and `weight_decay` apply to.
        rate: times the peak learning rate of the run.
    """

    name: str
    weights: list[nn.Parameter]
    matrices: bool = False
    rate: float = 1.0


@dataclass(frozen=True)
class Setup:
    """What a run knows when it builds its objective.

    Attributes:
        precision: of the matrix products, "fp32" or "bf16"; weights and gradients stay fp32.
        row_multiple: rows are padded to a multiple of this many tokens.
        settings: of the run, every one filled in.
        tokenizer: of the corpus.
        events_per_token: events of the training patients per predicted token.
        rest: int32 [P], how long the record of each training patient goes on beyond its tokens, see
            `sequela.tokens.tokenizer.Encoded`; None where tokens tell no time.
        class_weights: float32 [V], what each token counts in the loss; None: all alike.
        counts: int64 [V], how often each token occurs among the training patients; None where nobody counted.
        windows: of the training patients; None where nobody trains.
    """

    precision: str = "fp32"
    row_multiple: int = 8
    settings: TrainSettings = field(default_factory=TrainSettings)
    tokenizer: Tokenizer | None = None
    events_per_token: float = 1.0
    rest: np.ndarray | None = None
    class_weights: np.ndarray | None = None
    counts: np.ndarray | None = None
    windows: Windows | None = None


@dataclass(frozen=True)
class Validation:
    """How well a model does on patients it was not trained on.

    Attributes:
        figures: flat, for the log; the first is the loss to watch.
        details: what `train.json` keeps; may be nested.
    """

    figures: dict[str, float]
    details: dict[str, Any]

    @property
    def watched(self) -> float:
        """The loss by which weights are chosen, and a run ends."""
        return next(iter(self.figures.values()))


class Objective(Protocol):
    """A module that holds a decoder and turns packed rows into a loss.

    Its whole state is in parameters and persistent buffers, such as the target of a moving average: checkpoints save
    and restore these bit for bit. All that happens in training happens in `forward`.

    Attributes:
        name: its key in `OBJECTIVES`; part of what makes two runs the same run.
        unit: name of the mean loss in `train.json` and in the log, such as "bits_per_token".
        pure: whether `forward` draws no random numbers and changes no state, so that rows may run on several threads.
        decoder: the model that the run is for.
    """

    name: str
    unit: str
    pure: bool
    decoder: Decoder

    def collate(self, windows: Windows, row: np.ndarray) -> Weighted:
        """The batch of one row, which holds the windows `row`; on the decoder's device. Called on a thread."""

    def forward(self, batch: Any) -> Loss:
        """The loss of one row that `collate` made."""

    def groups(self) -> list[Group]:
        """Everything that is trained, and at which rate. Called after the weights were spread over processes."""

    def after_step(self, done: float) -> None:
        """Called once after every step, without gradients; `done` is the share of the run's tokens seen, in [0, 1].

        The place for moving averages and schedules. Every process makes the same change.
        """

    def heed(self, figures: dict[str, float]) -> None:
        """Called before `after_step` where losses have `figures`, with their means over the step, the same on every
        process. No other objective needs it.

        Raises:
            InputError: if the run is not worth going on with.
        """

    def flops(self, lengths: np.ndarray) -> int:
        """FLOPs of training on windows of these lengths, forward and backward."""

    def shown(self, loss: float) -> float:
        """A loss in the unit that people read, such as bits for nats."""

    def figures(self, mean: float) -> dict[str, float]:
        """The mean shown loss of training steps under the names it is logged by; the progress line shows the first."""

    def validate(self, corpus: Corpus, patients: np.ndarray | None = None) -> Validation | None:
        """Figures on the patients in these rows of a split, all unless given; None where there are none."""

    def compared(self, corpus: Corpus, patients: np.ndarray) -> dict | None:
        """The outcomes of the patients in these rows of a split, observed over expected, for `train.json` (see
        `sequela.training.outcomes.residual`); None where the objective expects none."""

    def take_over(self, folder: Path) -> None:
        """Begin with what `save` wrote into `folder` beside the decoder, as far as this objective has it too. The
        decoder has the weights of `folder` already."""

    def save(self, folder: Path) -> None:
        """Write what was learned: the decoder as a checkpoint, and whatever else its use needs."""


class ObjectiveFactory(Protocol):
    """Builds an objective around a fresh decoder: the class itself, or a callable that holds options of its own."""

    name: str

    def __call__(self, decoder: Decoder, setup: Setup) -> Objective:
        """The objective of a run. May draw from torch's global generator, which is seeded for it."""


def options(setup: Setup) -> dict[str, Any]:
    """What the `options` of a run give an objective, as TOML reads it.

    Raises:
        InputError: for an option that is not TOML.
    """
    values: dict[str, Any] = {}
    for line in setup.settings.options:
        try:
            read = tomllib.loads(line)
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"the option {line!r} is not NAME=VALUE as TOML has it ({error}).") from error
        for name, value in read.items():  # `waits.events=9` is a table of one value
            known = values.get(name)
            values[name] = known | value if isinstance(known, dict) and isinstance(value, dict) else value
    return values


def named(name: str | None = None) -> ObjectiveFactory:
    """The objective of that name, one of `OBJECTIVES`; the default unless given.

    Raises:
        InputError: if there is none.
    """
    name = name or next(iter(OBJECTIVES))
    if name not in OBJECTIVES:
        raise InputError(
            f"there is no `objective` '{name}'{nearest(name, OBJECTIVES)}: choose one of {', '.join(OBJECTIVES)}."
        )
    module, _, factory = OBJECTIVES[name].partition(":")
    return getattr(import_module(module), factory)
