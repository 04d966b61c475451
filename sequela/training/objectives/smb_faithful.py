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
from sequela.tokens.packing import Windows
from sequela.training.data import Inputs
from sequela.training.objectives.anchors import Records, anchors_of
from sequela.training.objectives.grounded import Grounded
from sequela.training.objectives.objective import Group, Loss, Setup, options
from sequela.training.objectives.target import Schedule, Target


@dataclass(frozen=True)
class SmbFaithfulOptions:
    """What can be chosen."""

    stages: str = "curriculum"
    """curriculum (next tokens first), at_once, or futures_only."""
    masked: float = 0.5
    """Share of the events of a future that are masked."""
    decay: float = 0.996
    """Of the moving average."""
    rate: float = 1.0
    """Learning rate of the predictor, times that of the run."""
    shuffled: bool = False
    """A control: targets of other places, so that nothing can be learned from them but the schedule."""

    def __post_init__(self) -> None:
        Schedule.named(self.stages)
        if not 0 < self.masked <= 1:
            raise ValueError(f"`masked` must be above 0 and at most 1, not {self.masked}")
        if not 0 <= self.decay < 1 or self.rate <= 0:
            raise ValueError("`decay` must be 0 or more and below 1, `rate` above 0")


@dataclass(frozen=True)
class RowWithMask:
    """A packed row, and the masked places of it flattened, int64 [M]."""

    inputs: Inputs
    masked: Tensor

    @property
    def weight(self) -> float:
        """The number of predicted tokens."""
        return self.inputs.weight


class SmbFaithful(Grounded):
    """See the module."""

    name = "smb_faithful"

    def __init__(self, decoder: Decoder, setup: Setup | None = None):
        super().__init__(decoder, setup)
        self.options = options(SmbFaithfulOptions(), self.setup)
        width = decoder.config.hidden_size
        self.mask = nn.Parameter(torch.randn(width) * 0.02)
        self.predictor = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.target = Target(decoder)
        self.schedule = Schedule(self.options.stages, self.options.decay, rises=False)

    def collate(self, windows: Windows, row: np.ndarray) -> RowWithMask:
        """A packed row, with one cut in each window that has a future."""
        random = self.random(row)
        records = Records.of(windows, self.setup.tokenizer, self.setup.rest)
        anchors = anchors_of(records, row, 1, random)
        begin = np.cumsum(windows.lengths[row]) - windows.lengths[row]
        places = [np.zeros(0, np.int64)]
        for number, window in enumerate(row):
            if len(anchors.behind[number]):
                later = np.arange(int(anchors.behind[number][0]), int(windows.lengths[window]))
                later = later[records.minutes_V[windows[window][later]] == 0]
                count = int(np.ceil(self.options.masked * len(later)))
                places.append(begin[number] + np.sort(random.permutation(later)[:count]))
        masked = torch.from_numpy(np.concatenate(places)).to(self.device)
        return RowWithMask(self.next_token.collate(windows, row), masked)

    def forward(self, batch: RowWithMask) -> Loss:
        """The weighted sum of both losses; that of futures is a mean over places, times the weight of the row."""
        stage, row = self.schedule.stage, batch.inputs
        tokens = self.next_token(row)
        missed = tokens.total.new_zeros(())
        if stage.futures and len(batch.masked):
            missed = self._missed(row, batch.masked, detached=stage.detached) * row.weight
        total = stage.tokens * tokens.total + stage.futures * missed
        return Loss(total, {self.unit: tokens.total.detach()} | tokens.parts | {"futures": missed.detach()})

    def _missed(self, row: Inputs, masked: Tensor, *, detached: bool) -> Tensor:
        with computed_in(self.setup.precision, row.ids.device):
            soft = Soft(masked, self.mask.expand(len(masked), -1))
            hidden = self.decoder.hidden(row.ids, row.positions, row.attention, soft)
        seen = hidden.flatten(0, 1)[masked].float()
        there = self.target.hidden(row, self.setup.precision).flatten(0, 1)[masked].float()
        if self.options.shuffled:
            there = there.roll(len(there) // 2, 0)
        return F.mse_loss(self.predictor(seen.detach() if detached else seen), there)

    def groups(self) -> list[Group]:
        """The decoder's, and the predictor with the mask."""
        *decoder, predictor = self.groups_with("predictor", [self.predictor], self.options.rate)
        return [*decoder, Group(predictor.name, [*predictor.weights, self.mask], rate=predictor.rate)]

    def after_step(self, done: float) -> None:
        """Go to the stage that begins, and let the target follow."""
        self.schedule.after_step(done, self.target, self.decoder)

    def flops(self, lengths: np.ndarray) -> int:
        """Of next tokens; and where futures count, of a second pass and the target's forward pass."""
        tokens = super().flops(lengths)
        return tokens * 7 // 3 if self.schedule.stage.futures else tokens
