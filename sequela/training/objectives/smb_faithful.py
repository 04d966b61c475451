"""The objective of SMB-Structure (arXiv 2601.22128) as far as it is known: masked futures, seen in latent space.

Each window is cut at the end of a moment into context and future. In one pass, half of the future's events are masked,
and a predictor tells from the hidden state at each masked place what a moving average of the decoder sees there when
nothing is masked:

    loss = mean |g(H_i) - sg(target H_i)|^2 over the masked places i

beside next tokens on the unmasked row, which takes a second pass. The paper's text was not available: masking, decay,
width and loss follow a summary of it, and what is not told is an option. `pooled` is closer to its abstract, which
foresees from "the initial patient representation alone", and takes no second pass:

    loss = |g(mean of H over the context) - sg(mean of target H over the future)|^2

Shape letters: M masked places, F windows with a future, C hidden width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sequela.errors import InputError
from sequela.model.decoder import Decoder, Soft
from sequela.model.precision import computed_in
from sequela.tokens.packing import collate
from sequela.training.data import Inputs, inputs
from sequela.training.objectives.anchors import Records, anchors_of
from sequela.training.objectives.objective import Loss, Setup
from sequela.training.objectives.stages import TrainingStage
from sequela.training.objectives.target import Target, means_by
from sequela.training.objectives.term import GivenRow, Moment, Read, Term
from sequela.training.objectives.world_model import WorldModel


@dataclass(frozen=True)
class SmbFaithfulOptions:
    """What can be chosen."""

    masked: float = 0.5
    """Share of the events of a future that are masked."""
    pooled: bool = False
    """The other reading of the paper: all of a future is hidden, and its mean foreseen from the mean of the context."""
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
    """Where F windows of a row were cut.

    Attributes:
        inputs: the packed row without places aside.
        masked: int64 [M], the masked places of it flattened; future: int64 [M], in which of the F windows each is.
        context: int64 [N], the places before cuts in the row that was read; past: int64 [N], of which of the F windows.
        futures: F.
    """

    inputs: Inputs
    masked: Tensor
    future: Tensor
    context: Tensor
    past: Tensor
    futures: int


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

    def check(self, records: Records) -> None:
        """Raises InputError if no record can be cut."""
        for patient in np.unique(records.windows.patient):
            record = records.timed(int(patient))
            first, last = record.minutes[record.events[[0, -1]]]
            if first < last:
                return
        raise InputError(
            "no training patient has events at two times, so there is no future to mask: tokenize records of several "
            "times, or train next tokens alone."
        )

    def collate(self, given: GivenRow) -> MaskedBatch:
        """One cut in each window that has a future."""
        windows, row, minutes_V = given.records.windows, given.row, given.records.minutes_V
        share = 1.0 if self.options.pooled else self.options.masked
        cuts = anchors_of(given.records, row, 1, given.random, later_share=0.0)
        begin = np.cumsum(windows.lengths[row]) - windows.lengths[row]
        masked, context = [], []
        for number, window in enumerate(row):
            if not len(cuts.behind[number]):
                continue
            cut = int(cuts.behind[number][0])
            later = np.arange(cut, int(windows.lengths[window]))
            later = later[minutes_V[windows[window][later]] == 0]
            if len(later):
                count = int(np.ceil(share * len(later)))
                masked.append(begin[number] + np.sort(given.random.permutation(later)[:count]))
                context.append(begin[number] + np.arange(cut))
        plain = given.inputs
        if given.anchors is not None:
            plain = inputs(collate(windows, row, self.setup.row_multiple), given.device)
        places = np.delete(np.arange(given.inputs.ids.numel()), given.inputs.aside.cpu().numpy())
        (masked_M, future_M), (context_N, past_N) = _joined(masked), _joined(context)
        arrays = masked_M, future_M, places[context_N], past_N
        return MaskedBatch(plain, *(torch.from_numpy(x).to(given.device) for x in arrays), len(masked))

    def forward(self, batch: MaskedBatch, read: Read, stage: TrainingStage) -> Loss:
        """How far off the predictor is."""
        weight, missed = stage.weight(self.name), read.state.new_zeros(())
        if weight and batch.futures:
            there = self.target.hidden(batch.inputs, self.setup.precision).flatten(0, 1)[batch.masked].float()
            if self.options.pooled:
                seen = means_by(read.hidden.flatten(0, 1)[batch.context].float(), batch.past, batch.futures)
                there = means_by(there, batch.future, batch.futures)
            else:
                seen = self._seen(batch, read.decoder, only_heads=stage.only_heads)
            if self.options.shuffled:
                there = there.roll(len(there) // 2, 0)
            missed = F.mse_loss(self.predictor(seen), there)
        elif weight and not self.options.pooled:  # the same passes on every process, whatever is in its rows
            missed = self._seen(batch, read.decoder, only_heads=stage.only_heads).sum()
        return Loss(weight * missed, {self.name: missed})

    def _seen(self, batch: MaskedBatch, decoder: Decoder, *, only_heads: bool) -> Tensor:
        """Hidden states at masked places, in a pass with masks, float32 [M, C]."""
        row, learning = batch.inputs, torch.is_grad_enabled() and not only_heads
        with torch.set_grad_enabled(learning), computed_in(self.setup.precision, row.ids.device):
            soft = Soft(batch.masked, self.mask.expand(len(batch.masked), -1))
            hidden = decoder.hidden(row.ids, row.positions, row.attention, soft)
        return hidden.flatten(0, 1)[batch.masked].float()

    def learning(self, stage: TrainingStage) -> list[nn.Parameter]:
        """Without the mask where only heads learn: it enters the decoder."""
        return [weight for weight in super().learning(stage) if not (stage.only_heads and weight is self.mask)]

    def after_step(self, decoder: Decoder, moment: Moment) -> None:
        """Let the target follow, at one decay throughout."""
        if moment.synced:
            self.target.follow(decoder, 0.0)
        elif self.counts(moment.stage):
            self.target.follow(decoder, self.options.decay)

    def flops(self, tokens: int, stage: TrainingStage) -> int:
        """The target's forward pass, and unless contexts are pooled a second pass of the decoder."""
        second = 0 if self.options.pooled else tokens // 3 if stage.only_heads else tokens
        return tokens // 3 + second


def _joined(places: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """All of them, and in which array each is."""
    nothing = np.zeros(0, np.int64)
    return np.concatenate([nothing, *places]), np.repeat(np.arange(len(places)), [len(each) for each in places])


class SmbFaithful(WorldModel):
    """Masked futures beside next tokens."""

    name = "smb_faithful"
    choice = (MaskedTerm,)
