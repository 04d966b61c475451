"""What is asked of rollouts while they are made: hazards and occurrences of outcomes, the clock, the end.

Shape letters: R rows, V vocabulary, K watched outcomes, B bits of the grammar.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np
import torch
from torch import Tensor

from sequela.rollout.engine.constraint import Automaton
from sequela.rollout.engine.sampling import sample, uniform

REASONS = ("limit", "settled", "horizon", "end")
LEAST = 16  # columns in a product of hazards: of fewer, CPU libraries may add them up in another order


@dataclass(frozen=True)
class Stop:
    """When a rollout ends.

    "end": after one of `tokens` bool [V]. "horizon": when its clock has passed `horizon` minutes (reaching it is not
    passing it). "settled": when nothing is watched any more. "limit": after `limit` tokens. The first of these counts.
    """

    tokens: np.ndarray
    horizon: int
    limit: int


@dataclass(frozen=True)
class Watch:
    """Outcomes whose probability is summed on the way.

    Attributes:
        outcome: bool [K, V], tokens that are the outcome wherever they come.
        ends: bool [K, V], tokens after which it no longer counts.
        horizon: int64 [K], minutes after which it no longer counts.
        after: int64 [M, 3], rows of (node, token, k): the token is outcome k after that node of the grammar.
        repeats: bool [K], outcomes that are watched on after they came, to be counted.
    """

    outcome: np.ndarray
    ends: np.ndarray
    horizon: np.ndarray
    after: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.int64))
    repeats: np.ndarray | None = None


@dataclass
class State:
    """What is known of each row; all of length R.

    Attributes:
        seed, step, clock, node: int64. `step` counts the tokens sampled.
        bits: bool [R, B].
        watched: bool [R, K], outcomes still looked for.
        hazard, spared: float32 [R, K], the sum of hazards and the product of their complements.
        happened: int32 [R, K], how often the outcome came while it was watched.
        removed: float32, the probability that the grammar took away, summed.
    """

    seed: Tensor
    step: Tensor
    clock: Tensor
    node: Tensor
    bits: Tensor
    watched: Tensor
    hazard: Tensor
    spared: Tensor
    happened: Tensor
    removed: Tensor

    @staticmethod
    def fresh(seed: Tensor, clock: int | Tensor, bits: Tensor, watched: Tensor) -> State:
        """Rows at the beginning.

        `seed` int64 [R]; `clock` of all or int64 [R]; `bits` bool [B] or [R, B]; `watched` bool [R, K].
        """
        rows, device = len(seed), seed.device
        zeros = torch.zeros(rows, dtype=torch.int64, device=device)
        nought = torch.zeros(watched.shape, device=device)
        return State(
            seed, zeros, zeros + clock, zeros, bits.expand(rows, -1), watched, nought, nought + 1,
            nought.int(), torch.zeros(rows, device=device),
        )  # fmt: skip

    def take(self, rows: Tensor | slice) -> State:
        """These rows, in this order."""
        return State(*(getattr(self, one.name)[rows] for one in fields(self)))

    @staticmethod
    def joined(states: list[State]) -> State:
        """The rows of all, one after another."""
        if len(states) == 1:
            return states[0]
        return State(*(torch.cat([getattr(state, one.name) for state in states]) for one in fields(State)))


class Watching:
    """Chooses the next token of every row and keeps account of it.

    Args:
        minutes: int64 [V], how far each token moves the clock.
        automaton: tells where rows are in an event; None where there is no grammar.
        mask: whether what the grammar does not admit is taken away.
        avoid: whether the watched outcomes are, while they are watched.
    """

    def __init__(
        self,
        stop: Stop,
        watch: Watch,
        minutes: Tensor,
        automaton: Automaton | None,
        *,
        mask: bool,
        avoid: bool,
        temperature: float,
        greedy: bool,
    ):
        device = minutes.device

        def at(x: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(x)).to(device)

        self.minutes, self.automaton, self.mask, self.avoid = minutes, automaton, mask, avoid
        self.temperature, self.greedy = temperature, greedy
        self.limit, self.horizon, self.stops = stop.limit, stop.horizon, at(stop.tokens)
        self.outcomes, size = watch.outcome.shape
        self.outcome, self.horizons = at(watch.outcome), at(watch.horizon)
        repeats = np.zeros(self.outcomes, bool) if watch.repeats is None else watch.repeats
        self.once = at(~repeats)
        self.ends = at(watch.ends.T)
        self.weight = torch.zeros(size, max(self.outcomes, LEAST), device=device)
        self.weight[:, : self.outcomes] = self.outcome.T
        # Outcomes that depend on the node: a table of all tokens for each such node
        nodes = np.unique(watch.after[:, 0])
        self.table = None
        if len(nodes):
            table = np.zeros(
                (len(nodes) + 1, self.outcomes, size), bool
            )  # the last one is for all other nodes
            node, token, which = watch.after.T
            table[np.searchsorted(nodes, node), which, token] = True
            self.table, self.nodes = at(table), at(nodes)

    def choose(self, logits: Tensor, state: State, first: Tensor | None) -> Tensor:
        """The next tokens [R]; hazards of this position are added to `state`.

        `logits` [R, V] are overwritten; `first` bool [R, V]: what may come at all.
        """
        mass = self.weigh(logits, state, first)
        if self.avoid:
            hit = self._special(state.node)
            avoided = self.outcome if hit is None else self.outcome | hit
            rest = mass.masked_fill((avoided & state.watched[..., None]).any(1), 0)
            # Where nothing else can come, it comes: the row has no share in what is avoided.
            mass = torch.where((rest.sum(-1) > 0)[:, None], rest, mass)
        return mass.argmax(-1) if self.greedy else sample(mass, uniform(state.seed, state.step))

    def weigh(self, logits: Tensor, state: State, first: Tensor | None) -> Tensor:
        """The mass [R, V] of what may come next, in the place of `logits`; hazards are added to `state`."""
        logits.div_(self.temperature) if self.temperature != 1 else logits
        mass = logits.sub_(logits.amax(-1, keepdim=True)).exp_()
        if first is not None:
            mass *= first
        if self.mask and self.automaton is not None:
            state.removed = state.removed + self.automaton.mask(mass, state.node, state.bits)
        hit = self._special(state.node)
        share = (mass @ self.weight)[:, : self.outcomes]
        if hit is not None:
            share = share + torch.einsum("rv,rkv->rk", mass, hit.float())
        hazard = (share / mass.sum(-1, keepdim=True)).clamp(max=1) * state.watched
        state.hazard = state.hazard + hazard
        state.spared = state.spared * (1 - hazard)
        return mass

    def _special(self, node: Tensor) -> Tensor | None:
        """bool [R, K, V]: outcomes that depend on the node; None where no row is at such a node."""
        if self.table is None:
            return None
        place = torch.searchsorted(self.nodes, node).clamp(max=len(self.nodes) - 1)
        place = torch.where(self.nodes[place] == node, place, len(self.nodes))
        return self.table[place] if bool((place < len(self.nodes)).any()) else None

    def take(self, token: Tensor, state: State) -> Tensor:
        """Account for these tokens [R] in `state`. int8 [R]: why each row ends, index into REASONS; -1: it goes on."""
        came = self.outcome[:, token].T
        hit = self._special(state.node)
        if hit is not None:
            came = came | hit[torch.arange(len(token), device=token.device), :, token]
        came = came & state.watched
        state.happened = state.happened + came
        clock = state.clock + self.minutes[token]
        state.clock = torch.where(state.step == 0, clock.clamp(min=0), clock)
        state.step = state.step + 1
        over = (came & self.once) | self.ends[token] | (state.clock[:, None] > self.horizons)
        state.watched = state.watched & ~over
        if self.automaton is not None:
            state.node, state.bits = self.automaton.advance(state.node, state.bits, token)
        reason = torch.full_like(token, -1, dtype=torch.int8)
        reason[state.step >= self.limit] = REASONS.index("limit")
        if self.outcomes:
            reason[~state.watched.any(-1)] = REASONS.index("settled")
        reason[state.clock > self.horizon] = REASONS.index("horizon")
        reason[self.stops[token]] = REASONS.index("end")
        return reason
