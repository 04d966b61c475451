"""The objective of SMB-Structure (arXiv 2601.22128) as far as it is known: masked futures, seen in latent space.

Each window is cut at the end of a moment into context and future. In one pass, half of the future's events are masked,
and a predictor tells from the hidden state at each masked place what a moving average of the decoder sees there when
nothing is masked:

    loss = mean |g(H_i) - sg(target H_i)|^2 over the masked places i

beside next tokens on the unmasked row, which takes a second pass. The paper's text was not available: masking, decay,
width and loss follow a summary of it, and what is not told is an option.

Shape letters: M masked places, C hidden width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sequela.model.decoder import Decoder, Soft
from sequela.model.precision import computed_in
from sequela.tokens.packing import collate
from sequela.training.data import Inputs, inputs
from sequela.training.objectives.anchors import anchors_of
from sequela.training.objectives.objective import Loss, Setup
from sequela.training.objectives.stages import TrainingStage
from sequela.training.objectives.target import Target
from sequela.training.objectives.term import GivenRow, Moment, Read, Term
from sequela.training.objectives.world_model import WorldModel


@dataclass(frozen=True)
class SmbFaithfulOptions:
    """What can be chosen."""

    masked: float = 0.5
    """Share of the events of a future that are masked."""
    decay: float = 0.996
    """Of the moving average."""
    rate: float = 1.0
    """Learning rate of the predictor, times that of the run."""
    shuffled: bool = False
    """A control: targets of other places, so that nothing can be learned from them but the schedule."""

    def __post_init__(self) -> None:
        if not 0 < self.masked <= 1:
            raise ValueError(f"`masked` must be above 0 and at most 1, not {self.masked}")
        if not 0 <= self.decay < 1 or self.rate <= 0:
            raise ValueError("`decay` must be 0 or more and below 1, `rate` above 0")


@dataclass(frozen=True)
class MaskedBatch:
    """A packed row without places aside, and the masked places of it flattened, int64 [M]."""

    inputs: Inputs
    masked: Tensor


class MaskedTerm(Term):
    """See the module; the loss is a mean over masked places."""

    name = "masked"
    defaults = SmbFaithfulOptions()
    states = False

    def __init__(self, decoder: Decoder, setup: Setup, options: SmbFaithfulOptions):
        super().__init__(decoder, setup, options)
        width = decoder.config.hidden_size
        self.mask = nn.Parameter(torch.randn(width) * 0.02)
        self.predictor = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.target = Target(decoder)

    def collate(self, given: GivenRow) -> MaskedBatch:
        """One cut in each window that has a future."""
        windows, row, minutes_V = given.records.windows, given.row, given.records.minutes_V
        cuts = anchors_of(given.records, row, 1, given.random)
        begin = np.cumsum(windows.lengths[row]) - windows.lengths[row]
        places = [np.zeros(0, np.int64)]
        for number, window in enumerate(row):
            if len(cuts.behind[number]):
                later = np.arange(int(cuts.behind[number][0]), int(windows.lengths[window]))
                later = later[minutes_V[windows[window][later]] == 0]
                count = int(np.ceil(self.options.masked * len(later)))
                places.append(begin[number] + np.sort(given.random.permutation(later)[:count]))
        masked = torch.from_numpy(np.concatenate(places)).to(given.device)
        plain = given.inputs
        if given.anchors is not None:
            plain = inputs(collate(windows, row, self.setup.row_multiple), given.device)
        return MaskedBatch(plain, masked)

    def forward(self, batch: MaskedBatch, read: Read, stage: TrainingStage) -> Loss:
        """How far off the predictor is."""
        weight, missed = stage.weight(self.name), read.state.new_zeros(())
        if weight and len(batch.masked):
            missed = self._missed(batch, read.decoder, only_heads=stage.only_heads)
        return Loss(weight * missed, {self.name: missed})

    def _missed(self, batch: MaskedBatch, decoder: Decoder, *, only_heads: bool) -> Tensor:
        row, masked = batch.inputs, batch.masked
        learning = torch.is_grad_enabled() and not only_heads
        with torch.set_grad_enabled(learning), computed_in(self.setup.precision, row.ids.device):
            soft = Soft(masked, self.mask.expand(len(masked), -1))
            hidden = decoder.hidden(row.ids, row.positions, row.attention, soft)
        seen = hidden.flatten(0, 1)[masked].float()
        there = self.target.hidden(row, self.setup.precision).flatten(0, 1)[masked].float()
        if self.options.shuffled:
            there = there.roll(len(there) // 2, 0)
        return F.mse_loss(self.predictor(seen), there)

    def after_step(self, decoder: Decoder, moment: Moment) -> None:
        """Let the target follow, at one decay throughout."""
        if moment.synced:
            self.target.follow(decoder, 0.0)
        elif self.counts(moment.stage):
            self.target.follow(decoder, self.options.decay)

    def flops(self, tokens: int, stage: TrainingStage) -> int:
        """A second pass, and the target's forward pass."""
        return tokens * 2 // 3 if stage.only_heads else tokens * 4 // 3


class SmbFaithful(WorldModel):
    """Masked futures beside next tokens."""

    name = "smb_faithful"
    choice = (MaskedTerm,)
