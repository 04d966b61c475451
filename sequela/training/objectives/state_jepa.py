"""A world model of patients: from the state at a time, foresee what the time after it will be like, beside next tokens.

A joint-embedding predictive objective (JEPA; I-JEPA, arXiv 2301.08243), grounded by next-token prediction as in
SMB-Structure (arXiv 2601.22128). From the state z at an anchor (`sequela.model.states`) and a horizon k, a predictor
foresees the normalized mean hidden state of what comes within the horizon,

    loss = smooth L1 (g(z + E_k), sg LN mean target(future)) / C

where the future is encoded by itself, by a moving average of the decoder's weights: it knows nothing of the history, so
nothing of the history can be copied into it. Whether anything comes at all is a head of its own, since a horizon that
is known to be empty has no future to encode. The weight of the term counts for both.

Shape letters: S states, Q pairs of state and horizon, F futures, C hidden width, K horizons.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sequela.model.decoder import Decoder
from sequela.training.data import Inputs, inputs
from sequela.training.objectives.collapse import Panel, Watch, panel
from sequela.training.objectives.futures import PairSampling, packed, pairs_of
from sequela.training.objectives.objective import Loss, Setup, Validation
from sequela.training.objectives.stages import TrainingStage
from sequela.training.objectives.target import Target, normalized, rising
from sequela.training.objectives.term import GivenRow, Moment, Read, Rows, Term
from sequela.training.objectives.world_model import WorldModel

DAY = 24 * 60


@dataclass(frozen=True)
class StateJepaOptions:
    """What can be chosen."""

    horizons: tuple[float, ...] = (0.0, 30.0, 180.0, 365.0, 730.0)
    """Days after an anchor between which horizons lie."""
    decay: float = 0.996
    """Of the moving average, at first; it rises to 1."""
    share: float = 0.5
    """Most tokens of futures, as a share of those of the row."""
    rate: float = 1.0
    """Learning rate of the predictor, times that of the run."""
    shuffled: bool = False
    """A control: futures of other patients, so that nothing can be learned from them but the schedule."""
    watched: bool = True
    """Stop a run that collapses; false for a control that is meant to."""

    def __post_init__(self) -> None:
        if len(self.horizons) < 2 or not all(np.diff(self.horizons) > 0) or self.horizons[0] < 0:
            raise ValueError("`horizons` must be two or more days, rising from 0 or more")
        if not 0 <= self.decay < 1:
            raise ValueError(f"`decay` must be 0 or more and below 1, not {self.decay}")
        if not 0 < self.share <= 10 or self.rate <= 0:
            raise ValueError("`share` and `rate` must be above 0, and `share` at most 10")

    @property
    def sampling(self) -> PairSampling:
        """How pairs are drawn."""
        edges = (np.array(self.horizons) * DAY).astype(np.int64)
        return PairSampling(np.stack([edges[:-1], edges[1:]], 1), share=self.share)


@dataclass(frozen=True)
class FuturesBatch:
    """The futures of the states of a row.

    Attributes:
        state, horizon: int64 [Q]; came: float32 [Q], see `Pairs`.
        futures: packed rows; None if there are none.
        which: int64, the future of each of their tokens; F for padding.
        pair: int64 [F].
    """

    state: Tensor
    horizon: Tensor
    came: Tensor
    futures: Inputs | None
    which: Tensor
    pair: Tensor


class Predictor(nn.Module):
    """From a state and a horizon to the normalized mean of the future, [Q, C], and the logit that there is one."""

    def __init__(self, width: int, horizons: int):
        super().__init__()
        self.horizon = nn.Parameter(torch.randn(horizons, width) * 0.02)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.came = nn.Linear(width, 1)

    def forward(self, state: Tensor, horizon: Tensor) -> tuple[Tensor, Tensor]:
        inside = F.gelu(self.up(self.norm(state + self.horizon[horizon])))
        foreseen = self.down(inside)
        return foreseen, self.came(foreseen).squeeze(-1)


class FuturesTerm(Term):
    """See the module; both losses are means over pairs."""

    name = "futures"
    defaults = StateJepaOptions()

    def __init__(self, decoder: Decoder, setup: Setup, options: StateJepaOptions):
        super().__init__(decoder, setup, options)
        self.predictor = Predictor(decoder.config.hidden_size, len(options.horizons) - 1)
        self.target = Target(decoder)
        self.watch = Watch()

    def collate(self, given: GivenRow) -> FuturesBatch:
        """What the patients of a row are going to live through."""
        pairs = pairs_of(given.records, given.row, given.anchors, self.options.sampling, given.random)
        futures, which = None, np.zeros(0, np.int64)
        if len(pairs.futures):
            side_by_side = packed(pairs.futures, self.setup.row_multiple)
            which = np.where(side_by_side.segments < 0, len(pairs.futures), side_by_side.segments).ravel()
            futures = inputs(side_by_side, given.device)
        pair = np.roll(pairs.pair, 1) if self.options.shuffled else pairs.pair
        arrays = pairs.anchor, pairs.horizon, pairs.came.astype(np.float32), which, pair
        state, horizon, came, which, pair = (torch.from_numpy(x).to(given.device) for x in arrays)
        return FuturesBatch(state, horizon, came, futures, which, pair)

    def forward(self, batch: FuturesBatch, read: Read, stage: TrainingStage) -> Loss:
        """How far off what is foreseen is, and how badly it is told whether anything comes."""
        weight = stage.weight(self.name)
        missed = empty = read.state.new_zeros(())
        figures = Watch.seen(*[read.state[:0]] * 3) if weight and self.options.watched else {}
        if weight and len(batch.state):
            foreseen, logit, future = self.foresee(batch, read.state)
            empty = F.binary_cross_entropy_with_logits(logit, batch.came)
            if len(future):
                missed = F.smooth_l1_loss(foreseen[batch.pair], normalized(future))
            if figures:
                figures = Watch.seen(read.state[batch.state[batch.pair]], foreseen[batch.pair], future)
        return Loss(weight * (missed + empty), {self.name: missed, "empty": empty}, figures)

    def foresee(self, batch: FuturesBatch, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is foreseen [Q, C], the logit that anything comes [Q], and the mean of what came [F, C]."""
        foreseen, logit = self.predictor(state[batch.state], batch.horizon)
        if batch.futures is None:
            return foreseen, logit, state.new_zeros(0, state.shape[1])
        future = self.target.means(batch.futures, batch.which, len(batch.pair), self.setup.precision)
        return foreseen, logit, future

    def heed(self, figures: dict[str, float], stage: TrainingStage) -> None:
        """Stop a run that collapses."""
        self.watch.heed(figures, grounded=stage.tokens > 0)

    def after_step(self, decoder: Decoder, moment: Moment) -> None:
        """Let the target follow, ever more slowly."""
        if moment.synced:
            self.target.follow(decoder, 0.0)
        elif self.counts(moment.stage):
            self.target.follow(decoder, rising(self.options.decay, moment.late))

    def flops(self, tokens: int, stage: TrainingStage) -> int:
        """A forward pass over as many tokens of futures as there may be."""
        return int(tokens * self.options.share / 3)

    def validate(self, tuning: Rows, training: Rows | None) -> Validation | None:
        """How well futures are foreseen (`sequela.training.objectives.collapse`).

        Raises:
            InputError: if the states or the futures have collapsed.
        """
        seen = self.panel(tuning)
        if seen is None:
            return None
        if self.options.watched:
            seen.check()
        known = {name: value for name, value in seen.as_dict().items() if value is not None}
        return Validation(known, seen.as_dict())

    def panel(self, tuning: Rows) -> Panel | None:
        """What is foreseen of tuning patients, beside what came; None if nothing comes to any."""
        parts = []
        for given, read in tuning():
            batch = self.collate(given)
            if not len(batch.pair):
                continue
            foreseen, _, future = self.foresee(batch, read.state)
            place = batch.state[batch.pair]
            patient = given.records.windows.patient[given.row][given.anchors.window[place.cpu()]]
            parts.append((read.state[place], foreseen[batch.pair], future, torch.from_numpy(patient).to(place)))
        return panel(*(torch.cat(each) for each in zip(*parts, strict=True))) if parts else None


class StateJepa(WorldModel):
    """Futures beside next tokens. Predictor and target are for training; a checkpoint has decoder and state tokens."""

    name = "state_jepa"
    choice = (FuturesTerm,)
