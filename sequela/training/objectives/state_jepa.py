"""A world model of patients: from the state at a time, foresee what the time after it will be like, beside next tokens.

A joint-embedding predictive objective (JEPA; I-JEPA, arXiv 2301.08243), grounded by next-token prediction as in
SMB-Structure (arXiv 2601.22128). From the state z at an anchor (`sequela.model.states`) and a horizon k, a predictor
foresees the normalized mean hidden state of what comes within the horizon,

    loss = smooth L1 (g(z + E_k + a), sg LN mean target(future)) / C

where the future is encoded by itself, by a moving average of the decoder's weights: it knows nothing of the history, so
nothing of the history can be copied into it. Whether anything comes at all is a head of its own, since a horizon that
is known to be empty has no future to encode. The weight of the term counts for both.

The vector a tells what is done within the horizon (`latent.actions`), in training for every other pair, if `actions`
are named. Target futures are the same with and without it, and hold what is done as they hold everything else: so what
is foreseen of them with that knowledge may be better for that alone.

The predictor can be iterated over windows as long as the first horizon; a stage that gives `rollouts` a weight trains
it for two in a row. How far that goes is part of the report (`latent.rollouts`).

Shape letters: S states, Q pairs of state and horizon, F futures, C hidden width, A chains of K windows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sequela.errors import InputError
from sequela.model.decoder import Decoder
from sequela.training.objectives.anchors import Records
from sequela.training.objectives.collapse import Panel, Watch, panel
from sequela.training.objectives.futures import (
    FutureSampling,
    anything_ahead,
    chains_of,
    done_in,
    pairs_of,
)
from sequela.training.objectives.latent.actions import Actions, ActionsBatch, action_tokens
from sequela.training.objectives.latent.predictor import Predictor
from sequela.training.objectives.latent.rollouts import MOST, Courses, report
from sequela.training.objectives.objective import Loss, Setup, Validation
from sequela.training.objectives.stages import TrainingStage
from sequela.training.objectives.target import Encodable, Target, normalized, rising
from sequela.training.objectives.term import GivenRow, Moment, Read, Rows, Term
from sequela.training.objectives.world_model import WorldModel

DAY = 24 * 60
IN_A_ROW = 2  # windows that rollouts are trained for


@dataclass(frozen=True)
class StateJepaOptions:
    """What can be chosen."""

    horizons: tuple[float, ...] = (0.0, 30.0, 180.0, 365.0, 730.0)
    """Days after an anchor between which horizons lie."""
    decay: float = 0.996
    """Of the moving average, at first; it rises to 1."""
    share: float = 0.5
    """Most tokens of futures, as a share of those of the row."""
    actions: tuple[str, ...] = ()
    """Interventions that the predictor is given: kinds of events, such as medication, or beginnings of codes."""
    ahead: int = 3
    """For how many windows in a row, each as long as the first horizon, the report follows the predictor; 0: none."""
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
        if self.ahead < 0:
            raise ValueError(f"`ahead` must be 0 or more, not {self.ahead}")

    @property
    def sampling(self) -> FutureSampling:
        """How pairs are drawn."""
        edges = (np.array(self.horizons) * DAY).astype(np.int64)
        return FutureSampling(np.stack([edges[:-1], edges[1:]], 1), share=self.share)

    def spans(self, count: int) -> np.ndarray:
        """So many windows in a row, int64 [K, 2] minutes: the first horizon, and on from there."""
        low, high = self.sampling.spans[0]
        return np.array([low, high]) + (high - low) * np.arange(count)[:, None]


@dataclass(frozen=True)
class FuturesBatch:
    """The futures of the states of a row.

    Attributes:
        state, horizon: int64 [Q]; came: float32 [Q], see `Pairs`.
        futures: F of them.
        pair: int64 [F].
        done: within the horizons, of Q; None without actions.
        chains: where rollouts are trained.
    """

    state: Tensor
    horizon: Tensor
    came: Tensor
    futures: Encodable
    pair: Tensor
    done: ActionsBatch | None
    chains: ChainsBatch | None


@dataclass(frozen=True)
class ChainsBatch:
    """Windows in a row after A states.

    Attributes:
        state: int64 [A].
        futures: F of them; chain, window: int64 [F], see `Chains`.
        done: within each of the K windows; empty without actions.
    """

    state: Tensor
    futures: Encodable
    chain: Tensor
    window: Tensor
    done: tuple[ActionsBatch, ...]


class FuturesTerm(Term):
    """See the module; the losses are means over pairs, and over features."""

    name = "futures"
    parts = ("rollouts",)
    defaults = StateJepaOptions()

    def __init__(self, decoder: Decoder, setup: Setup, options: StateJepaOptions):
        super().__init__(decoder, setup, options)
        self.predictor = Predictor(decoder.config.hidden_size, len(options.horizons) - 1)
        self.actions, self.action = None, None
        if options.actions:
            self.actions = Actions(decoder.config.hidden_size)
            self.action = action_tokens(setup.tokenizer, options.actions)
        self.target = Target(decoder)
        self.watch = Watch()

    def check(self, records: Records) -> None:
        """Raises InputError if no record is followed long enough for a horizon that holds anything."""
        low, high = self.options.horizons[:2]
        if not anything_ahead(records, self.options.sampling.spans):
            raise InputError(
                f"`horizons`: no training patient has an event {low:g} to {high:g} days after another one, or within a "
                "later horizon, and is followed until its end: give shorter `horizons`, or train next tokens alone."
            )

    def collate(self, given: GivenRow) -> FuturesBatch:
        """What the patients of a row are going to live through."""
        random, device, spans = given.random, given.device, self.options.sampling.spans
        pairs = pairs_of(given.records, given.row, given.anchors, self.options.sampling, random)
        pair = np.roll(pairs.pair, 1) if self.options.shuffled else pairs.pair
        arrays = pairs.anchor, pairs.horizon, pairs.came.astype(np.float32), pair
        state, horizon, came, pair = (torch.from_numpy(x).to(device) for x in arrays)
        futures = Encodable.of(pairs.futures, self.setup.row_multiple, device)
        given_actions = random.random(len(pairs.anchor)) < 0.5
        done = self._done(given, pairs.anchor, spans[pairs.horizon], given_actions)
        chains = None
        if "rollouts" in given.learned:
            chains = self._chains(given, self.options.spans(IN_A_ROW), IN_A_ROW - 1, random)
            chains = replace(chains, chain=chains.chain.roll(1)) if self.options.shuffled else chains
        return FuturesBatch(state, horizon, came, futures, pair, done, chains)

    def _done(
        self, given: GivenRow, anchor: np.ndarray, spans: np.ndarray, knowing: np.ndarray
    ) -> ActionsBatch | None:
        """What is done within spans [Q, 2] after anchors [Q]; None without actions."""
        if self.action is None:
            return None
        tokens = done_in(given.records, given.row, given.anchors, (anchor, spans), self.action)
        return ActionsBatch.of(tokens, knowing, given.device)

    def _chains(self, given: GivenRow, spans: np.ndarray, first: int, random: np.random.Generator) -> ChainsBatch:
        """Of windows from `first` on there are futures."""
        sampling = FutureSampling(spans[first:], share=self.options.share)
        chains = chains_of(given.records, given.row, given.anchors, sampling, random)
        futures = Encodable.of(chains.futures, self.setup.row_multiple, given.device)
        knowing = random.random(len(chains.anchor)) < 0.5
        each = [np.broadcast_to(span, (len(chains.anchor), 2)) for span in spans if span[1] > 0]
        done = [self._done(given, chains.anchor, spans, knowing) for spans in each]
        arrays = chains.anchor, chains.chain, chains.window + first
        state, chain, window = (torch.from_numpy(x).to(given.device) for x in arrays)
        return ChainsBatch(state, futures, chain, window, tuple(batch for batch in done if batch is not None))

    def forward(self, batch: FuturesBatch, read: Read, stage: TrainingStage) -> Loss:
        """How far off what is foreseen is, how badly it is told whether anything comes; and after two windows."""
        weight, further = map(stage.weight, self.losses)
        missed = empty = rolled = read.state.new_zeros(())
        figures = Watch.seen(*[read.state[:0]] * 3) if weight and self.options.watched else {}
        if weight and len(batch.state):
            foreseen, logit = self.foresee(batch, read, given=batch.done and batch.done.given)
            empty = F.binary_cross_entropy_with_logits(logit, batch.came)
            if batch.futures.count:
                future = self.means(batch.futures)
                missed = F.smooth_l1_loss(foreseen[batch.pair], normalized(future))
                if figures:
                    figures = Watch.seen(read.state[batch.state[batch.pair]], foreseen[batch.pair], future)
        if further and batch.chains is not None and batch.chains.futures.count:
            chains = batch.chains
            windows = self.roll(chains, read, IN_A_ROW, [done.given for done in chains.done])
            rolled = F.smooth_l1_loss(windows[chains.chain, chains.window], normalized(self.means(chains.futures)))
        parts = {"futures": missed, "empty": empty} | ({} if batch.chains is None else {"rollouts": rolled})
        return Loss(weight * (missed + empty) + further * rolled, parts, figures)

    def foresee(self, batch: FuturesBatch, read: Read, given: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What is foreseen [Q, C], and the logit that anything comes [Q]; `given` bool [Q]: knowing what is done."""
        action = None
        if given is not None and self.actions is not None:
            action = self.actions(batch.done, read.decoder, given)
        return self.predictor(read.state[batch.state], batch.horizon, action)

    def roll(self, chains: ChainsBatch, read: Read, count: int, given: list[Tensor]) -> Tensor:
        """What is foreseen of so many windows in a row, [A, K, C]; `given` bool [A] for each, or none."""
        actions: list[Tensor | None] = [None] * count
        if given:
            actions = [self.actions(done, read.decoder, which) for done, which in zip(chains.done, given, strict=True)]
        return self.predictor.rolled(read.state[chains.state], actions)

    def means(self, futures: Encodable) -> Tensor:
        """The mean hidden state of each future as the target sees it, [F, C]."""
        return self.target.means(futures, self.setup.precision)

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
        """A forward pass over as many tokens of futures as there may be, and again for rollouts."""
        passes = sum(stage.weight(name) > 0 for name in self.losses)
        return int(passes * tokens * self.options.share / 3)

    def validate(self, tuning: Rows, training: Rows | None) -> Validation | None:
        """How well futures are foreseen (`collapse`), and at the end of a run how far (`latent.rollouts`).

        Raises:
            InputError: if the states or the futures have collapsed.
        """
        seen = self.panel(tuning)
        if seen is None:
            return None
        if self.options.watched:
            seen.check()
        details: dict[str, Any] = seen.as_dict()
        if self.actions is not None:
            details["skill_given_actions"] = self.panel(tuning, knowing=True).skill
        figures = {name: value for name, value in details.items() if value is not None}
        if training is not None and self.options.ahead and (courses := self.courses(tuning)) is not None:
            low, high = self.options.horizons[:2]
            details["rollouts"] = report(courses, self.courses(training), high - low)
        return Validation(figures, details)

    def panel(self, tuning: Rows, *, knowing: bool = False) -> Panel | None:
        """What is foreseen of tuning patients, beside what came; None if nothing comes to any.

        `knowing`: with knowledge of what is done.
        """
        parts = []
        for given, read in tuning():
            batch = self.collate(given)
            if not batch.futures.count:
                continue
            all_of_it = torch.ones_like(batch.state, dtype=torch.bool) if knowing else None
            foreseen, _ = self.foresee(batch, read, all_of_it)
            place = batch.state[batch.pair]
            patient = given.records.windows.patient[given.row][given.anchors.window[place.cpu().numpy()]]
            seen = read.state[place], foreseen[batch.pair], self.means(batch.futures)
            parts.append((*seen, torch.from_numpy(patient).to(place)))
        return panel(*(torch.cat(each) for each in zip(*parts, strict=True))) if parts else None

    def courses(self, rows: Rows) -> Courses | None:
        """The windows in a row after states, at most `MOST`, and what is foreseen of them; None if there are none."""
        parts, left, spans = [], MOST, self.options.spans(self.options.ahead)
        length = spans[0, 1] - spans[0, 0]
        spans = np.concatenate([[[-length, 0]], spans])
        for given, read in rows():
            chains = self._chains(given, spans, 0, given.random)
            if not len(chains.state):
                continue
            shape = len(chains.state), len(spans)
            came = read.state.new_zeros(*shape, read.state.shape[1])
            held = torch.zeros(shape, dtype=torch.bool, device=came.device)
            came[chains.chain, chains.window] = normalized(self.means(chains.futures))
            held[chains.chain, chains.window] = True
            count = len(spans) - 1
            knowing = [torch.ones_like(done.given) for done in chains.done]
            parts.append(
                Courses(
                    read.state[chains.state], came[:, 0], held[:, 0], came[:, 1:], held[:, 1:],
                    self.roll(chains, read, count, []),
                    self.roll(chains, read, count, knowing) if knowing else None,
                )
            )  # fmt: skip
            left -= len(chains.state)
            if left <= 0:
                break
        return Courses.joined(parts) if parts else None


class StateJepa(WorldModel):
    """Futures beside next tokens. Predictor and target are for training; a checkpoint has decoder and state tokens."""

    name = "state_jepa"
    choice = (FuturesTerm,)
