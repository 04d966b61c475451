"""One pass over a packed row for everything that is learned from it: next tokens, and states at anchors.

Shape letters: S anchors, C hidden width.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sequela.model.decoder import Decoder
from sequela.model.precision import computed_in
from sequela.model.states import StateTokens, idle_class
from sequela.tokens.packing import collate
from sequela.training.data import Inputs, inputs
from sequela.training.objectives.anchors import Anchors, Records, anchors_of
from sequela.training.objectives.grounded import Grounded
from sequela.training.objectives.last_moment import ends_of
from sequela.training.objectives.objective import Loss, Setup


@dataclass(frozen=True)
class RowWithStates:
    """A packed row, and the class of idle time of each of its states, int64 [S]."""

    inputs: Inputs
    idle: Tensor


class OverStates(Grounded):
    """An objective that reads states; its checkpoint has the state tokens too."""

    def __init__(self, decoder: Decoder, setup: Setup | None = None):
        super().__init__(decoder, setup)
        generator = torch.Generator().manual_seed(self.setup.settings.seed)
        self.states = StateTokens(decoder.config.hidden_size).initialize(generator)

    def with_anchors(
        self, records: Records, row: np.ndarray, most: int, random: np.random.Generator
    ) -> tuple[RowWithStates, Anchors]:
        """The windows `row`, with at most `most` anchors in each."""
        anchors = anchors_of(records, row, most, random)
        batch = collate(records.windows, row, self.setup.row_multiple, anchors.behind)
        ends = ends_of(records.windows, row, records.rest, self.setup.tokenizer)
        idle = torch.from_numpy(idle_class(anchors.idle)).to(self.device)
        return RowWithStates(inputs(batch, self.device, ends), idle), anchors

    def read(self, row: RowWithStates) -> tuple[Loss, Tensor]:
        """The loss of next tokens, and the states, float32 [S, C]."""
        given = row.inputs
        with computed_in(self.setup.precision, given.ids.device):
            soft = self.states.soft(given.aside, row.idle)
            hidden = self.decoder.hidden(given.ids, given.positions, given.attention, soft)
            tokens = self.next_token.read(hidden, given)
        return tokens, self.states.read(hidden, given.aside)

    def take_over(self, folder: Path) -> None:
        """The state tokens of `folder`, if it has any."""
        if StateTokens.kept_in(folder):
            self.states.load_state_dict(StateTokens.load(folder).state_dict())

    def save(self, folder: Path) -> None:
        """Write the decoder's checkpoint and the state tokens."""
        super().save(folder)
        self.states.save(folder)
