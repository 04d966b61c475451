"""What is to be continued, and the queue that lanes take it from and bring their results to."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sequela.rollout.budget import RolloutBudget
from sequela.rollout.tracker import REASONS
from sequela.tokens.ragged import Ragged


@dataclass(frozen=True)
class Prompts:
    """What is to be continued.

    Attributes:
        ids: ragged [P, length], whole; what does not fit the context is left out by the engine's `cut`.
        clock: int64 [P], minutes at the prompt's end; 0 is now, never later.
        first: bool [P, V], what the first new token may be (the clock never shows less than 0 after it).
        key: int64 [P], what the seeds of its rollouts are made from (see `sequela.rollout.engine.sampling.keys`).
        bits: bool [P, B], the grammar's state at the end; [P, 0] without a grammar.
        asked: bool [P, K], which outcomes are watched; None: all, of every prompt.
    """

    ids: Ragged
    clock: np.ndarray
    first: np.ndarray
    key: np.ndarray
    bits: np.ndarray
    asked: np.ndarray | None = None

    def watched(self, prompt: np.ndarray, outcomes: int) -> np.ndarray:
        """Which of so many outcomes are watched in rollouts of these prompts [R], bool [R, K]."""
        return np.ones((len(prompt), outcomes), bool) if self.asked is None else self.asked[prompt]

    def one(self, place: int, outcomes: int) -> Prompt:
        """The prompt at this place, with all that its rollouts need."""
        return Prompt(
            place, self.ids[place], int(self.clock[place]), self.first[place], int(self.key[place]),
            self.bits[place], self.watched(np.array([place]), outcomes)[0],
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Prompt:
    """One of the prompts; the fields are those of `Prompts`, `place` is its place among them."""

    place: int
    ids: np.ndarray
    clock: int
    first: np.ndarray
    key: int
    bits: np.ndarray
    watched: np.ndarray


@dataclass(frozen=True)
class Ended:
    """A rollout that has ended; the fields are those of `engine.Rollouts`."""

    number: int
    tokens: list[int]
    clock: int
    reason: int
    hazard: np.ndarray
    reached: np.ndarray
    happened: np.ndarray
    watched: np.ndarray
    removed: float
    windows: int

    def score(self, *, avoided: bool) -> np.ndarray:
        """What a plan decides on, float [K]; NaN where the limit came before the question was settled."""
        undecided = self.watched & (self.reason == REASONS.index("limit"))
        return np.where(undecided, np.nan, self.reached if avoided else self.hazard)


class Queue:
    """Prompts in their order, a few of them begun.

    Args:
        outcomes: how many are watched.
        score: of ended rollouts, what the plan decides on.
    """

    def __init__(
        self, prompts: Prompts, plan: RolloutBudget, outcomes: int, score: Callable[[Ended], np.ndarray]
    ):
        self.prompts, self.plan, self.outcomes, self.score = prompts, plan, outcomes, score
        self.waiting: deque[tuple[int, np.ndarray]] = deque()  # prompt, numbers; the last one is next
        self.left = 0  # how many rollouts these are
        self.untouched = iter(range(len(prompts.ids)))
        self.asked = np.zeros(len(prompts.ids), np.int64)
        self.ended: list[list[Ended]] = [[] for _ in range(len(prompts.ids))]
        self.settled = self.tokens = 0

    def take(self, most: int) -> tuple[Prompt, np.ndarray] | None:
        """At most so many rollouts of one prompt, by their numbers, to begin now; None where there are none."""
        if not self.ahead(1):
            return None
        prompt, numbers = self.waiting.pop()
        if len(numbers) > most:
            self.waiting.append((prompt, numbers[most:]))
        self.left -= len(numbers[:most])
        return self.prompts.one(prompt, self.outcomes), numbers[:most]

    def ahead(self, rollouts: int) -> int:
        """Have so many wait, if there are as many. How many wait now."""
        none = np.zeros(0, np.int64)
        while self.left < rollouts and (prompt := next(self.untouched, None)) is not None:
            numbers = self.plan.more(prompt, none, np.zeros((0, 1)))
            self.asked[prompt] = len(numbers)
            self.left += len(numbers)
            if len(numbers):
                self.waiting.appendleft((prompt, numbers))
            else:
                self.settled += 1
        return self.left

    def bring(self, prompt: int, ended: Ended) -> None:
        """A rollout has ended. With the last one that was asked for, the plan may ask for more."""
        self.tokens += len(ended.tokens)
        mine = self.ended[prompt]
        mine.append(ended)
        if len(mine) < self.asked[prompt]:
            return
        mine.sort(key=lambda one: one.number)
        numbers = np.array([one.number for one in mine], np.int64)
        more = self.plan.more(prompt, numbers, np.stack([self.score(one) for one in mine]))
        if len(more):
            self.asked[prompt] += len(more)
            self.left += len(more)
            self.waiting.append((prompt, more))
        else:
            self.settled += 1
