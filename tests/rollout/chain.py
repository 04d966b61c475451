"""A finite world whose risks are exact: a chain of tokens with an outcome, a competing end and a horizon."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from sequela.record.worlds.markov import MarkovWorld
from sequela.rollout.estimators import ESTIMATORS, RiskEstimates
from sequela.rollout.spread import interval, spread_of

TOKEN_MINUTES = np.array([1, 6, 0, 0, 0])


@dataclass(frozen=True)
class Chain:
    """S states, one a token. At every position comes the `outcome` [S], a `competing` end [S], or another token by
    `moves` [S, S], which takes so many `minutes` [S]; a rollout ends when its clock has passed the `horizon`."""

    outcome: np.ndarray
    competing: np.ndarray
    moves: np.ndarray
    minutes: np.ndarray
    horizon: int

    def risk(self, start: int) -> float:
        """Exact: the sum over positions of (probability to be in a state at a time within the horizon) x hazard."""
        stay = (1 - self.outcome - self.competing)[:, None] * self.moves
        here = np.zeros((self.horizon + 1, len(stay)))  # by clock and state
        here[0, start] = 1.0
        risk = 0.0
        while here.sum() > 1e-15:
            risk += float((here @ self.outcome).sum())
            moved, here = here @ stay, np.zeros_like(here)
            for state, minutes in enumerate(self.minutes):
                here[minutes:, state] = moved[: len(here) - minutes, state]
        return risk

    @cached_property
    def risks(self) -> np.ndarray:
        """The exact risk of what is left, by clock up to past the horizon, and state; 0 past it."""
        stay = (1 - self.outcome - self.competing)[:, None] * self.moves
        out = np.zeros((self.horizon + self.minutes.max() + 1, len(stay)))
        for clock in range(self.horizon, -1, -1):
            timed, now = self.minutes > 0, self.minutes == 0
            later = np.zeros(len(stay))
            later[timed] = out[clock + self.minutes[timed], np.flatnonzero(timed)]
            known = self.outcome + stay @ later
            inside = np.where(now[None], stay, 0.0)  # moves within this moment
            out[clock] = np.linalg.solve(np.eye(len(stay)) - inside, known)
        return out

    def by_clock(self, start: int) -> np.ndarray:
        """The exact risk of what is left at each clock, shaped like `risks`, where nothing is known but the start."""
        here, arrived = np.zeros_like(self.risks), np.zeros_like(self.risks)
        here[0, start] = 1.0
        stay = (1 - self.outcome - self.competing)[:, None] * self.moves
        while here.sum() > 1e-15:
            arrived += here
            moved, here = here @ stay, np.zeros_like(here)
            for state, minutes in enumerate(self.minutes):
                here[minutes : self.horizon + 1, state] = moved[: self.horizon + 1 - minutes, state]
        risk = (arrived * self.risks).sum(1) / np.maximum(arrived.sum(1), 1e-300)
        return np.repeat(risk[:, None], len(stay), 1)

    def variance(self, start: int, value: np.ndarray) -> float:
        """Exact, of the score "controlled": squares of what each token moves the risk by, less what `value` tells of
        it (see `sequela.rollout.estimators`)."""
        stay = (1 - self.outcome - self.competing)[:, None] * self.moves
        here, total = np.zeros((self.horizon + 1, len(stay))), 0.0
        here[0, start] = 1.0
        after = np.stack([
            self.risks[np.arange(self.horizon + 1) + minutes, state] for state, minutes in enumerate(self.minutes)
        ], 1)  # fmt: skip
        risk, value = self.risks[: self.horizon + 1], value[: self.horizon + 1]
        mean = self.outcome * (1 - value) - self.competing * value
        over = (self.outcome + self.competing) * (value - risk + mean) ** 2
        moved = (stay[None] * (after[:, None, :] - risk[:, :, None] + mean[:, :, None]) ** 2).sum(2)
        while here.sum() > 1e-15:
            total += float((here * (over + moved)).sum())
            gone, here = here @ stay, np.zeros_like(here)
            for state, minutes in enumerate(self.minutes):
                here[minutes:, state] = gone[: len(here) - minutes, state]
        return total

    def rollouts(
        self, start: int, count: int, seed: int, *, avoid: bool, value: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """`count` rollouts: happened, hazard, reached, tokens, and the hazard at the position that truncated it; and
        controlled, by a guess `value` shaped like `risks`; 0 unless given."""
        random = np.random.default_rng(seed)
        value = np.zeros_like(self.risks) if value is None else value
        state, clock = np.full(count, start), np.zeros(count, np.int64)
        happened, hazard, survival = np.zeros(count), np.zeros(count), np.ones(count)
        tokens, truncating, controlled = np.zeros(count, np.int64), np.zeros(count), np.zeros(count)
        cumulative, live = self.moves.cumsum(1), np.arange(count)
        while len(live):
            here = state[live]
            h, c = self.outcome[here], self.competing[here]
            hazard[live] += h
            survival[live] *= 1 - h
            tokens[live] += 1
            draw, other = random.random((2, len(live)))
            out = np.zeros(len(live), bool) if avoid else draw < h
            end = draw < c / (1 - h) if avoid else (draw >= h) & (draw < h + c)
            happened[live] = out
            guess = value[clock[live], here]
            controlled[live] += h * (1 - guess) - c * guess + (out | end) * guess
            new = np.minimum((cumulative[here] < other[:, None]).sum(1), len(self.minutes) - 1)
            state[live], clock[live] = new, clock[live] + self.minutes[new]
            passed = ~out & ~end & (clock[live] > self.horizon)
            truncating[live[passed]] = h[passed]
            live = live[~out & ~end & ~passed]
        return {
            "happened": happened,
            "hazard": hazard,
            "reached": 1 - survival,
            "controlled": controlled,
            "tokens": tokens,
            "truncating": truncating,
        }


def of_world(deaths_times: float, days: int) -> Chain:
    """The known world as such a chain: one position a day, `days` of them."""
    world = MarkovWorld.known(deaths_times)
    return Chain(world.deaths, 0 * world.deaths, world.moves, np.ones(3, np.int64), days - 1)


def rich(times: float) -> Chain:
    """An hour, a day, a normal value, an abnormal one, a crisis; a day is 6 units and the horizon 8 days."""
    moves = np.array(
        [
            [0.3, 0.2, 0.3, 0.15, 0.05],
            [0.2, 0.4, 0.25, 0.13, 0.02],
            [0.4, 0.4, 0.15, 0.04, 0.01],
            [0.35, 0.2, 0.15, 0.2, 0.1],
            [0.4, 0.1, 0.05, 0.25, 0.2],
        ]
    )
    outcome = np.array([0.004, 0.002, 0.001, 0.03, 0.15]) * times
    return Chain(outcome, np.array([0.01, 0.02, 0.005, 0.01, 0.04]), moves, TOKEN_MINUTES, 48)


CASES = {  # chain, start: risks of .31, .10, .0087, .0022, .26, .025 and .0010
    "world, often": (of_world(1.4, 7), 2),
    "world": (of_world(1, 7), 0),
    "world, rare": (of_world(0.05, 7), 1),
    "world, rarer": (of_world(0.02, 7), 0),
    "rich, often": (rich(1), 3),
    "rich": (rich(0.1), 1),
    "rich, rarest": (rich(0.004), 2),
}
BOTH = [(case, estimator) for case in CASES for estimator in ESTIMATORS]
SIZE = 120_000


@cache
def pool(case: str, avoid: bool) -> dict[str, np.ndarray]:
    chain, start = CASES[case]
    return chain.rollouts(start, SIZE, 7 + avoid, avoid=avoid, value=chain.by_clock(start))


@cache
def risk(case: str) -> float:
    chain, start = CASES[case]
    return chain.risk(start)


def scores(case: str, estimator: str, n: int, questions: int | None = None) -> np.ndarray:
    """Independent scores [questions, n]."""
    one = ESTIMATORS[estimator]
    questions = questions or SIZE // n
    return pool(case, one.avoids)[one.score][: questions * n].reshape(questions, n)


def off(values: np.ndarray, truth: float) -> float:
    """How many standard errors the mean of the values lies from the truth."""
    return float((values.mean() - truth) / (values.std(ddof=1) / np.sqrt(len(values))))


def covered(answer: RiskEstimates, estimator: str, truth: float, width: float = 1.0) -> float:
    low, high = interval(answer, spread_of(answer, estimator))
    middle, half = (low + high) / 2, (high - low) / 2 * width
    return float((np.abs(truth - middle) <= half).mean())


def within(share: float, count: int) -> bool:
    """Whether a coverage measured on so many intervals agrees with one of 93 to 97 %."""
    error = 3 * np.sqrt(0.05 * 0.95 / count)
    return 0.93 - error <= share <= 0.97 + error
