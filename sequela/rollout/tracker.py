"""What simulations ask of rollouts: hazards and occurrences of outcomes, the clock, and when a rollout ends.

Shape letters: R rows, V vocabulary, K watched outcomes, G steps of time.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256

import numpy as np
import torch
from torch import Tensor

from sequela.rollout.clock.calendar import Calendar
from sequela.rollout.clock.minutes import TokenClock
from sequela.rollout.engine.rollouts import REASONS, Prompts, Rollouts
from sequela.rollout.engine.tracker import DecodingState

LONGEST = 10 * 525_960  # minutes: values of outcomes with a later horizon, or none, move no more after ten years
LEAST = 16  # columns in a product of hazards: of fewer, CPU libraries may add them up in another order


@dataclass(frozen=True)
class StopRule:
    """When a rollout ends.

    "end": after one of `tokens`, bool [V]. "horizon": when its clock has passed `horizon` minutes (reaching it is not
    passing it). "settled": when nothing is watched any more. "limit": after `limit` tokens. The first of these counts.
    """

    tokens: np.ndarray
    horizon: int
    limit: int


@dataclass(frozen=True)
class WatchedOutcomes:
    """Outcomes whose probability is summed up while rollouts are made.

    Attributes:
        outcome: bool [K, V], tokens that are the outcome wherever they come.
        ends: bool [K, V], tokens after whose moment it no longer counts: it still does until the clock moves on.
        horizon: int64 [K], minutes after which it no longer counts.
        after: int64 [M, 3], rows of (node, token, k): the token is outcome k after that node of the grammar.
        repeats: bool [K], outcomes that are still watched after they came, to be counted. None: none of them.
    """

    outcome: np.ndarray
    ends: np.ndarray
    horizon: np.ndarray
    after: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.int64))
    repeats: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.outcome)


class OutcomeTracker:
    """Sums the hazards of outcomes, counts their occurrences, and keeps the clock: a `Tracker` of the engine.

    What `Rollouts.account` says:

    - `clock` int64 [R]: minutes at the end.
    - `hazard` float32 [R, K]: the summed conditional probability of each watched outcome, over every position inside
      its horizon up to its first occurrence (the SCOPE score, arXiv 2602.03730).
    - `reached` float32 [R, K]: 1 less the product of the complements of the same hazards (the REACH score, if the
      outcome was avoided).
    - `happened` int32 [R, K]: how often the outcome came while it was watched.
    - `watched` bool [R, K]: whether it was still watched when the rollout ended.
    - `controlled` float32 [R, K], of a `steadied` tracker: the score "cv" (see `sequela.rollout.estimators`), the sum
      of h (1 - V) + y V + (z - e) V over the same positions, with `Prompts.values` at the clock before the token as V.
      Death is among the ends.
    - `removed` float32 [R]: the share of probability that the grammar took away, summed over positions.

    Args:
        time: how far tokens move the clock.
        avoid: sample only rollouts without the watched outcomes, while they are watched. Budgets then get the scores
            `reached`, otherwise `hazard`.
        calendar: sees to it that rollouts say their age band and calendar period at the right time, judging by the bits
            of a grammar. None: they are sampled like any other token.
        steadied: whether prompts bring `values`.
        device: of the model.
    """

    def __init__(
        self,
        stop: StopRule,
        watch: WatchedOutcomes,
        time: TokenClock,
        *,
        avoid: bool = False,
        calendar: Calendar | None = None,
        steadied: bool = False,
        device: torch.device | str = "cpu",
    ):
        self.stop, self.watch, self.device = stop, watch, device
        self.time, self.avoid, self.calendar = time, avoid, calendar
        self.steadied, self.steers = steadied, avoid or calendar is not None
        self.limit, self.stop_tokens = stop.limit, stop.tokens

        def at(x: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(x)).to(device)

        self.stops = at(stop.tokens)
        self.outcomes, size = watch.outcome.shape
        self.outcome, self.horizons = at(watch.outcome), at(watch.horizon)
        repeats = np.zeros(self.outcomes, bool) if watch.repeats is None else watch.repeats
        self.once = at(~repeats)
        self.ends = at(watch.ends.T)
        self.weight = torch.zeros(size, max(self.outcomes, LEAST), device=device)
        self.weight[:, : self.outcomes] = self.outcome.T
        # Death stops every rollout, so it ends every wait
        self.over = at(((watch.ends | stop.tokens) & ~watch.outcome).T)
        self.weight_over = torch.zeros_like(self.weight)
        self.weight_over[:, : self.outcomes] = self.over
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

    def __reduce__(self) -> tuple:
        return _outcome_tracker, (
            self.stop, self.watch, self.time, self.avoid, self.calendar, self.steadied, self.device,
        )  # fmt: skip

    @cached_property
    def key(self) -> Hashable:
        """See `Tracker`."""
        watch = self.watch
        arrays = (self.stop.tokens, watch.outcome, watch.ends, watch.horizon, watch.after)
        digest = sha256()
        for array in (*arrays, ~self.once.cpu().numpy()):
            digest.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        calendar = None if self.calendar is None else self.calendar.key
        switches = self.avoid, self.steadied, str(self.device)
        return self.stop.horizon, self.limit, switches, digest.hexdigest(), self.time.key, calendar

    def start(self, prompts: Prompts, rows: np.ndarray) -> dict[str, Tensor]:
        """See `Tracker`."""
        clock = np.zeros(len(rows), np.int64) if prompts.clock is None else prompts.clock[rows]
        watched = torch.from_numpy(prompts.watched_in(rows, self.outcomes)).to(self.device)
        zeros = torch.zeros(watched.shape, device=self.device)
        begins = np.zeros((len(rows), 0), np.int64) if self.calendar is None else prompts.begins[rows]
        steadied = {}
        if self.steadied:
            values = torch.from_numpy(prompts.values[rows]).to(self.device)
            steadied = {"values": values, "value": zeros, "controlled": zeros}
        return steadied | {
            "clock": torch.from_numpy(clock).to(self.device),
            "begins": torch.from_numpy(begins).to(self.device),
            "watched": watched,
            "ending": torch.zeros_like(watched),  # an end came at this very moment
            "hazard": zeros,
            "spared": zeros + 1,
            "happened": zeros.int(),
        }

    def weigh(self, mass: Tensor, state: DecodingState) -> Tensor:
        """Add the hazards of this position; take away the mass of outcomes that are to be avoided.

        What the calendar knows is settled before.
        """
        columns = state.columns
        if self.calendar is not None:
            mass = self.calendar.force(mass, columns["clock"], columns["begins"], state.bits)
        hit = self._at_node(state.node)
        share = (mass @ self.weight)[:, : self.outcomes]
        if hit is not None:
            share = share + torch.einsum("rv,rkv->rk", mass, hit.float())
        hazard = (share / mass.sum(-1, keepdim=True)).clamp(max=1) * columns["watched"]
        columns["hazard"] = columns["hazard"] + hazard
        columns["spared"] = columns["spared"] * (1 - hazard)
        if self.steadied:
            self._steady(hazard, mass, columns)
        if not self.avoid:
            return mass
        avoided = self.outcome if hit is None else self.outcome | hit
        rest = mass.masked_fill((avoided & columns["watched"][..., None]).any(1), 0)
        # Where nothing else can come, the outcome comes: this row has no share in what is avoided.
        return torch.where((rest.sum(-1) > 0)[:, None], rest, mass)

    def _steady(self, hazard: Tensor, mass: Tensor, columns: dict[str, Tensor]) -> None:
        """Add what this position expects of `controlled`; within the moment of an end the guess is 0."""
        values, clock = columns["values"], columns["clock"]
        steps = values.shape[2]
        step = (clock.clamp(min=0)[:, None] * steps // self.horizons.clamp(1, LONGEST)).clamp(max=steps - 1)
        open_ = columns["watched"] & ~columns["ending"]
        value = torch.where(open_, values.gather(2, step[..., None])[..., 0], 0.0)
        end = (mass @ self.weight_over)[:, : self.outcomes] / mass.sum(-1, keepdim=True)
        columns["value"] = value
        columns["controlled"] = columns["controlled"] + hazard * (1 - value) - end.clamp(max=1) * value

    def _at_node(self, node: Tensor) -> Tensor | None:
        """bool [R, K, V]: outcomes that depend on the node; None if no row is at such a node."""
        if self.table is None:
            return None
        index = torch.searchsorted(self.nodes, node).clamp(max=len(self.nodes) - 1)
        index = torch.where(self.nodes[index] == node, index, len(self.nodes))
        return self.table[index] if bool((index < len(self.nodes)).any()) else None

    def take(self, token: Tensor, state: DecodingState, mass: Tensor | None) -> Tensor:
        """See `Tracker`."""
        columns = state.columns
        came = self.outcome[:, token].T
        hit = self._at_node(state.node)
        if hit is not None:
            came = came | hit[torch.arange(len(token), device=token.device), :, token]
        came = came & columns["watched"]
        columns["happened"] = columns["happened"] + came
        if self.steadied:
            over = self.over[token] & columns["watched"]
            columns["controlled"] = columns["controlled"] + (came.int() + over.int()) * columns["value"]
        clock = columns["clock"] + self.time.moves(token, state.seed, state.step, columns["clock"])
        passed = columns["ending"] & (clock > columns["clock"])[:, None]
        over = (came & self.once) | passed | (clock[:, None] > self.horizons)
        watched = columns["watched"] & ~over
        columns["ending"] = (columns["ending"] | self.ends[token]) & watched
        columns["clock"], columns["watched"] = clock, watched
        reason = torch.full_like(token, -1, dtype=torch.int8)
        if self.outcomes:
            reason[~watched.any(-1)] = REASONS.index("settled")
        reason[clock > self.stop.horizon] = REASONS.index("horizon")
        reason[self.stops[token]] = REASONS.index("end")
        return reason

    def account(self, state: DecodingState) -> dict[str, np.ndarray]:
        """See `Tracker`."""
        tensors = {
            "clock": state.columns["clock"],
            "hazard": state.columns["hazard"],
            "reached": 1 - state.columns["spared"],
            "happened": state.columns["happened"],
            "watched": state.columns["watched"],
            "removed": state.removed,
        }
        if self.steadied:
            tensors["controlled"] = state.columns["controlled"]
        return {name: x.cpu().numpy() for name, x in tensors.items()}

    def scores(self, rollouts: Rollouts) -> np.ndarray:
        """`reached` or `hazard`, [R, K]; NaN where a rollout was truncated before the outcome was settled."""
        score = rollouts.account["reached" if self.avoid else "hazard"]
        unsettled = rollouts.account["watched"] & rollouts.truncated[:, None]
        return np.where(unsettled, np.nan, score)


def _outcome_tracker(
    stop: StopRule,
    watch: WatchedOutcomes,
    time: TokenClock,
    avoid: bool,
    calendar: Calendar | None,
    steadied: bool,
    device: torch.device | str,
) -> OutcomeTracker:
    return OutcomeTracker(stop, watch, time, avoid=avoid, calendar=calendar, steadied=steadied, device=device)
