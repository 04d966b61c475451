"""A world model of patients: from the state at a time, foresee what the time after it will be like, beside next tokens.

A joint-embedding predictive objective (JEPA; I-JEPA, arXiv 2301.08243), grounded by next-token prediction as in
SMB-Structure (arXiv 2601.22128). From the state z at an anchor (`sequela.model.states`) and a horizon k, a predictor
foresees the normalized mean hidden state of what comes within the horizon,

    loss = smooth L1 (g(z + E_k), sg LN mean target(future)) / C

where the future is encoded by itself, by a moving average of the decoder's weights: it knows nothing of the history, so
nothing of the history can be copied into it. Whether anything comes at all is a head of its own, since a horizon that
is known to be empty has no future to encode. `STAGES` says when each part of the loss counts how much.

Shape letters: S states, Q pairs of state and horizon, F futures, C hidden width, K horizons.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sequela.model.decoder import Decoder
from sequela.model.precision import computed_in
from sequela.model.states import StateTokens, idle_class
from sequela.tokens.corpus import Corpus
from sequela.tokens.packing import Windows, best_fit, collate
from sequela.training.data import Inputs, inputs, windows_of
from sequela.training.objectives.anchors import Records, anchors_of
from sequela.training.objectives.collapse import Panel, panel
from sequela.training.objectives.futures import Sampling, packed, pairs_of
from sequela.training.objectives.last_moment import ends_of
from sequela.training.objectives.next_token import NextToken
from sequela.training.objectives.objective import Group, Loss, Setup, Validation, options
from sequela.training.objectives.target import Target, normalized, rising

DAY = 24 * 60


@dataclass(frozen=True)
class Stage:
    """A part of a run.

    Attributes:
        share: of the tokens.
        tokens, futures: weights of the two losses.
        detached: whether the loss of futures trains the predictor alone.
        synced: whether the target becomes a copy of the decoder at the beginning.
    """

    share: float
    tokens: float
    futures: float
    detached: bool = False
    synced: bool = False


STAGES = {
    "curriculum": (
        Stage(0.6, 1, 0),
        Stage(0.05, 1, 1, detached=True, synced=True),
        Stage(0.35, 0.2, 1),
    ),
    "at_once": (Stage(1, 1, 1, synced=True),),
    "futures_only": (Stage(1, 0, 1, synced=True),),
}
"""SMB-Structure found a curriculum better than both at once; its weights are not known."""


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

    def __post_init__(self) -> None:
        if self.stages not in STAGES:
            raise ValueError(f"`stages` must be one of {', '.join(STAGES)}, not {self.stages!r}")
        if len(self.horizons) < 2 or not all(np.diff(self.horizons) > 0) or self.horizons[0] < 0:
            raise ValueError("`horizons` must be two or more days, rising from 0 or more")
        if not 0 <= self.decay < 1:
            raise ValueError(f"`decay` must be 0 or more and below 1, not {self.decay}")
        if self.anchors < 1 or not 0 < self.share <= 10 or self.rate <= 0:
            raise ValueError("`anchors`, `share` and `rate` must be above 0")

    @property
    def sampling(self) -> Sampling:
        """How pairs are drawn."""
        edges = (np.array(self.horizons) * DAY).astype(np.int64)
        return Sampling(np.stack([edges[:-1], edges[1:]], 1), share=self.share)


@dataclass(frozen=True)
class WorldInputs:
    """One packed row with its states and futures.

    Attributes:
        row: tokens and state tokens.
        idle: int64 [S], class of idle time of each state.
        state, horizon: int64 [Q]; came: float32 [Q], see `Pairs`.
        futures: packed rows; None if there are none.
        which: int64, the future of each of their tokens; F for padding.
        pair: int64 [F].
    """

    row: Inputs
    idle: Tensor
    state: Tensor
    horizon: Tensor
    came: Tensor
    futures: Inputs | None
    which: Tensor
    pair: Tensor

    @property
    def weight(self) -> float:
        """The number of predicted tokens."""
        return self.row.weight


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


class StateJepa(nn.Module):
    """See the module. The predictor and the target are for training; a checkpoint holds decoder and state tokens."""

    name = "state_jepa"
    unit = NextToken.unit
    pure = True

    def __init__(self, decoder: Decoder, setup: Setup | None = None):
        super().__init__()
        self.setup = setup or Setup()
        self.options = options(StateJepaOptions(), self.setup)
        self.stages = STAGES[self.options.stages]
        self.decoder = decoder
        self.next_token = NextToken(decoder, self.setup)
        width = decoder.config.hidden_size
        generator = torch.Generator().manual_seed(self.setup.settings.seed)
        self.states = StateTokens(width).initialize(generator)
        self.predictor = Predictor(width, len(self.options.horizons) - 1)
        self.target = Target(decoder)
        self.register_buffer("stage", torch.tensor(0))

    def collate(self, windows: Windows, row: np.ndarray) -> WorldInputs:
        """A packed row, and what its patients are going to live through; the same for the same row and seed."""
        records = Records.of(windows, self.setup.tokenizer, self.setup.rest)
        return self._inputs(records, row)

    def _inputs(self, records: Records, row: np.ndarray) -> WorldInputs:
        windows, device = records.windows, self.decoder.embedding.weight.device
        random = self._random(row)
        anchors = anchors_of(records, row, self.options.anchors, random)
        pairs = pairs_of(records, row, anchors, self.options.sampling, random)
        batch = collate(windows, row, self.setup.row_multiple, anchors.behind)
        ends = ends_of(windows, row, records.rest, self.setup.tokenizer)
        futures, which = None, np.zeros(0, np.int64)
        if len(pairs.futures):
            side_by_side = packed(pairs.futures, self.setup.row_multiple)
            which = np.where(side_by_side.segments < 0, len(pairs.futures), side_by_side.segments).ravel()
            futures = inputs(side_by_side, device)
        pair = np.roll(pairs.pair, 1) if self.options.shuffled else pairs.pair
        arrays = idle_class(anchors.idle), pairs.anchor, pairs.horizon, pairs.came.astype(np.float32), which, pair
        idle, state, horizon, came, which, pair = (torch.from_numpy(np.asarray(x)).to(device) for x in arrays)
        return WorldInputs(
            inputs(batch, device, ends), idle, state, horizon, came, futures, which, pair
        )

    def _random(self, row: np.ndarray) -> np.random.Generator:
        """For a row: of the seed and the windows in it, so that it does not matter when, where and how often it is
        collated."""
        digest = hashlib.sha256(np.asarray(row, np.int64).tobytes()).digest()
        return np.random.default_rng([self.setup.settings.seed, *digest[:8]])

    def forward(self, batch: WorldInputs) -> Loss:
        """The weighted sum of both losses; that of futures is a mean over pairs, times the weight of the row."""
        stage, row = self.stages[int(self.stage)], batch.row
        with computed_in(self.setup.precision, row.ids.device):
            soft = self.states.soft(row.aside, batch.idle)
            hidden = self.decoder.hidden(row.ids, row.positions, row.attention, soft)
            tokens = self.next_token.read(hidden, row)
        total, parts = stage.tokens * tokens.total, dict(tokens.parts)
        parts.setdefault(self.unit, tokens.total.detach())
        missed = empty = total.new_zeros(())
        if stage.futures and len(batch.state):
            foreseen, logit, future = self.foresee(batch, self.states.read(hidden, row.aside), stage)
            empty = F.binary_cross_entropy_with_logits(logit, batch.came) * row.weight
            if len(future):
                missed = F.smooth_l1_loss(foreseen[batch.pair], normalized(future)) * row.weight
            total = total + stage.futures * (missed + empty)
        return Loss(total, parts | {"futures": missed.detach(), "empty": empty.detach()})

    def foresee(self, batch: WorldInputs, state: Tensor, stage: Stage | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """What is foreseen [Q, C], the logit that anything comes [Q], and the mean of what came [F, C]."""
        state = state.detach() if stage and stage.detached else state
        foreseen, logit = self.predictor(state[batch.state], batch.horizon)
        if batch.futures is None:
            return foreseen, logit, state.new_zeros(0, state.shape[1])
        future = self.target.means(batch.futures, batch.which, len(batch.pair), self.setup.precision)
        return foreseen, logit, future

    def groups(self) -> list[Group]:
        """The decoder's, and the predictor with the state tokens."""
        rest = [*self.predictor.parameters(), *self.states.parameters()]
        return [*self.next_token.groups(), Group("predictor", rest, rate=self.options.rate)]

    def after_step(self, done: float) -> None:
        """Go to the stage that begins, and let the target follow."""
        ends = list(accumulate(stage.share for stage in self.stages))
        number = min(sum(done >= end for end in ends), len(self.stages) - 1)
        stage = self.stages[number]
        if number > int(self.stage):
            self.stage.fill_(number)
            if stage.synced:
                self.target.follow(self.decoder, 0.0)
                return
        if stage.futures:
            first = next(n for n, each in enumerate(self.stages) if each.futures)
            begun = sum(each.share for each in self.stages[:first])
            self.target.follow(self.decoder, rising(self.options.decay, (done - begun) / max(1 - begun, 1e-9)))

    def flops(self, lengths: np.ndarray) -> int:
        """Of next tokens; and a forward pass over as many tokens of futures as there may be."""
        tokens = self.next_token.flops(lengths)
        return int(tokens * (1 + self.options.share / 3)) if self.stages[int(self.stage)].futures else tokens

    def shown(self, loss: float) -> float:
        """Bits for nats."""
        return self.next_token.shown(loss)

    def figures(self, mean: float) -> dict[str, float]:
        """Those of next tokens."""
        return self.next_token.figures(mean)

    def validate(self, corpus: Corpus, patients: np.ndarray | None = None) -> Validation | None:
        """Those of next tokens, and how well futures are foreseen (`sequela.training.objectives.collapse`).

        Raises:
            InputError: if the states or the futures have collapsed.
        """
        tokens = self.next_token.validate(corpus, patients)
        if tokens is None or not self.stages[int(self.stage)].futures:
            return tokens
        seen = self.panel(corpus, patients)
        if seen is None:
            return tokens
        seen.check()
        figures = {f"futures/{name}": value for name, value in seen.as_dict().items()}
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
            row = batch.row
            soft = self.states.soft(row.aside, batch.idle)
            hidden = self.decoder.hidden(row.ids, row.positions, row.attention, soft)
            state = self.states.read(hidden, row.aside)
            foreseen, _, future = self.foresee(batch, state)
            parts.append((state[batch.state[batch.pair]], foreseen[batch.pair], future))
        return panel(*(torch.cat(each) for each in zip(*parts, strict=True))) if parts else None

    def compared(self, corpus: Corpus, patients: np.ndarray) -> dict | None:
        """As of next tokens."""
        return self.next_token.compared(corpus, patients)

    def save(self, folder: Path) -> None:
        """Write the decoder's checkpoint and the state tokens."""
        self.next_token.save(folder)
        self.states.save(folder)
