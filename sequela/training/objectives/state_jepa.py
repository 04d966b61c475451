"""A world model of patients: from the state at a time, foresee what the time after it will be like, beside next tokens.

A joint-embedding predictive objective (JEPA; I-JEPA, arXiv 2301.08243), grounded by next-token prediction as in
SMB-Structure (arXiv 2601.22128). From the state z at an anchor (`sequela.model.states`) and a horizon k, a predictor
foresees the normalized mean hidden state of what comes within the horizon,

    loss = smooth L1 (g(z + E_k), sg LN mean target(future)) / C

where the future is encoded by itself, by a moving average of the decoder's weights: it knows nothing of the history, so
nothing of the history can be copied into it. Whether anything comes at all is a head of its own, since a horizon that
is known to be empty has no future to encode. `Schedule` says when each part of the loss counts how much.

Shape letters: S states, Q pairs of state and horizon, F futures, C hidden width, K horizons.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sequela.model.decoder import Decoder
from sequela.tokens.corpus import Corpus
from sequela.tokens.packing import Windows, best_fit
from sequela.training.data import Inputs, inputs, windows_of
from sequela.training.objectives.anchors import Records
from sequela.training.objectives.collapse import Panel, Watch, panel
from sequela.training.objectives.futures import PairSampling, packed, pairs_of
from sequela.training.objectives.objective import Group, Loss, Setup, Validation, options
from sequela.training.objectives.reading import OverStates, RowWithStates
from sequela.training.objectives.target import Schedule, Target, normalized

DAY = 24 * 60


@dataclass(frozen=True)
class StateJepaOptions:
    """What can be chosen."""

    stages: str = "curriculum"
    """curriculum (next tokens first), at_once, or futures_only."""
    horizons: tuple[float, ...] = (0.0, 30.0, 180.0, 365.0, 730.0)
    """Days after an anchor between which horizons lie."""
    decay: float = 0.996
    """Of the moving average, at first; it rises to 1."""
    anchors: int = 8
    """Most anchors in a window."""
    share: float = 0.5
    """Most tokens of futures, as a share of those of the row."""
    rate: float = 1.0
    """Learning rate of the predictor, times that of the run."""
    shuffled: bool = False
    """A control: futures of other patients, so that nothing can be learned from them but the schedule."""
    watched: bool = True
    """Stop a run that collapses; false for a control that is meant to."""

    def __post_init__(self) -> None:
        Schedule.named(self.stages)
        if len(self.horizons) < 2 or not all(np.diff(self.horizons) > 0) or self.horizons[0] < 0:
            raise ValueError("`horizons` must be two or more days, rising from 0 or more")
        if not 0 <= self.decay < 1:
            raise ValueError(f"`decay` must be 0 or more and below 1, not {self.decay}")
        if self.anchors < 1 or not 0 < self.share <= 10 or self.rate <= 0:
            raise ValueError("`anchors`, `share` and `rate` must be above 0")

    @property
    def sampling(self) -> PairSampling:
        """How pairs are drawn."""
        edges = (np.array(self.horizons) * DAY).astype(np.int64)
        return PairSampling(np.stack([edges[:-1], edges[1:]], 1), share=self.share)


@dataclass(frozen=True)
class WorldInputs:
    """One packed row with its states and futures.

    Attributes:
        row: tokens and state tokens.
        state, horizon: int64 [Q]; came: float32 [Q], see `Pairs`.
        futures: packed rows; None if there are none.
        which: int64, the future of each of their tokens; F for padding.
        pair: int64 [F].
        patient: int64 [S], whose each state is.
    """

    row: RowWithStates
    state: Tensor
    horizon: Tensor
    came: Tensor
    futures: Inputs | None
    which: Tensor
    pair: Tensor
    patient: Tensor

    @property
    def weight(self) -> float:
        """The number of predicted tokens."""
        return self.row.inputs.weight


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


class StateJepa(OverStates):
    """See the module. The predictor and the target are for training; a checkpoint holds decoder and state tokens."""

    name = "state_jepa"

    def __init__(self, decoder: Decoder, setup: Setup | None = None):
        super().__init__(decoder, setup)
        self.options = options(StateJepaOptions(), self.setup)
        self.predictor = Predictor(decoder.config.hidden_size, len(self.options.horizons) - 1)
        self.target = Target(decoder)
        self.schedule = Schedule(self.options.stages, self.options.decay)
        self.watch = Watch()

    def collate(self, windows: Windows, row: np.ndarray) -> WorldInputs:
        """A packed row, and what its patients are going to live through; the same for the same row and seed."""
        records = Records.of(windows, self.setup.tokenizer, self.setup.rest)
        return self._inputs(records, row)

    def _inputs(self, records: Records, row: np.ndarray) -> WorldInputs:
        random, device = self.random(row), self.device
        read, anchors = self.with_anchors(records, row, self.options.anchors, random)
        pairs = pairs_of(records, row, anchors, self.options.sampling, random)
        futures, which = None, np.zeros(0, np.int64)
        if len(pairs.futures):
            side_by_side = packed(pairs.futures, self.setup.row_multiple)
            which = np.where(side_by_side.segments < 0, len(pairs.futures), side_by_side.segments).ravel()
            futures = inputs(side_by_side, device)
        pair = np.roll(pairs.pair, 1) if self.options.shuffled else pairs.pair
        patient = records.windows.patient[row][anchors.window].astype(np.int64)
        arrays = pairs.anchor, pairs.horizon, pairs.came.astype(np.float32), which, pair, patient
        state, horizon, came, which, pair, patient = (torch.from_numpy(x).to(device) for x in arrays)
        return WorldInputs(read, state, horizon, came, futures, which, pair, patient)

    def forward(self, batch: WorldInputs) -> Loss:
        """The weighted sum of both losses; that of futures is a mean over pairs, times the weight of the row."""
        stage, weight = self.schedule.stage, batch.weight
        tokens, state = self.read(batch.row)
        total, parts = stage.tokens * tokens.total, dict(tokens.parts)
        parts.setdefault(self.unit, tokens.total.detach())
        missed = empty = total.new_zeros(())
        figures = Watch.seen(*[state[:0]] * 3, weight) if stage.futures and self.options.watched else {}
        if stage.futures and len(batch.state):
            foreseen, logit, future = self.foresee(batch, state.detach() if stage.detached else state)
            empty = F.binary_cross_entropy_with_logits(logit, batch.came) * weight
            if len(future):
                missed = F.smooth_l1_loss(foreseen[batch.pair], normalized(future)) * weight
            total = total + stage.futures * (missed + empty)
            if figures:
                figures = Watch.seen(state[batch.state[batch.pair]], foreseen[batch.pair], future, weight)
        return Loss(total, parts | {"futures": missed.detach(), "empty": empty.detach()}, figures)

    def foresee(self, batch: WorldInputs, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is foreseen [Q, C], the logit that anything comes [Q], and the mean of what came [F, C]."""
        foreseen, logit = self.predictor(state[batch.state], batch.horizon)
        if batch.futures is None:
            return foreseen, logit, state.new_zeros(0, state.shape[1])
        future = self.target.means(batch.futures, batch.which, len(batch.pair), self.setup.precision)
        return foreseen, logit, future

    def groups(self) -> list[Group]:
        """The decoder's, and the predictor with the state tokens."""
        return self.groups_with("predictor", [self.predictor, self.states], self.options.rate)

    def heed(self, figures: dict[str, float]) -> None:
        """Raises InputError where the run collapses."""
        self.watch.heed(figures, grounded=self.schedule.stage.tokens > 0)

    def after_step(self, done: float) -> None:
        """Go to the stage that begins, and let the target follow."""
        self.schedule.after_step(done, self.target, self.decoder)

    def flops(self, lengths: np.ndarray) -> int:
        """Of next tokens; and a forward pass over as many tokens of futures as there may be."""
        tokens = super().flops(lengths)
        return int(tokens * (1 + self.options.share / 3)) if self.schedule.stage.futures else tokens

    def validate(self, corpus: Corpus, patients: np.ndarray | None = None) -> Validation | None:
        """Those of next tokens, and how well futures are foreseen (`sequela.training.objectives.collapse`).

        Raises:
            InputError: if the states or the futures have collapsed.
        """
        tokens = super().validate(corpus, patients)
        if tokens is None or not self.schedule.stage.futures:
            return tokens
        seen = self.panel(corpus, patients)
        if seen is None:
            return tokens
        if self.options.watched:
            seen.check()
        figures = {f"futures/{name}": value for name, value in seen.as_dict().items() if value is not None}
        return Validation(tokens.figures | figures, tokens.details | {"futures": seen.as_dict()})

    @torch.no_grad()
    def panel(self, corpus: Corpus, patients: np.ndarray | None = None) -> Panel | None:
        """What is foreseen of tuning patients, beside what came; None if nothing comes to any."""
        windows = windows_of(corpus, self.decoder.config.context)
        chosen = np.arange(len(windows)) if patients is None else np.flatnonzero(np.isin(windows.patient, patients))
        records = Records.of(windows, corpus.tokenizer, corpus.rest)
        held = best_fit(windows.lengths[chosen], self.setup.settings.row_tokens or self.decoder.config.context)
        parts = []
        for places in held:
            batch = self._inputs(records, chosen[places])
            if not len(batch.pair):
                continue
            _, state = self.read(batch.row)
            foreseen, _, future = self.foresee(batch, state)
            place = batch.state[batch.pair]
            parts.append((state[place], foreseen[batch.pair], future, batch.patient[place]))
        return panel(*(torch.cat(each) for each in zip(*parts, strict=True))) if parts else None
