"""What the lane takes its work from and brings its results to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from sequela.rollout.cache import Prefill
from sequela.rollout.estimators import Plan
from sequela.rollout.watching import REASONS, State
from sequela.tokens.ragged import Ragged


@dataclass(frozen=True)
class Prompts:
    """What is to be continued.

    Attributes:
        ids: ragged [P, length], whole; what does not fit the context is left out by the engine's `cut`.
        clock: int64 [P], minutes at the prompt's end; 0 is now, never later.
        first: bool [P, V], what the first new token may be (the clock never shows less than 0 after it).
        key: int64 [P], what the seeds of its rollouts are made from (see `sequela.rollout.sampling.keys`).
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


@dataclass(eq=False)
class Row:
    """One rollout on its way. `state`: of a rollout that goes on in a new window."""

    prompt: int
    number: int
    tokens: list[int] = field(default_factory=list)
    windows: int = 0
    state: State | None = None


@dataclass(eq=False)
class Window:
    """What the model reads at once before rows go on from it: a prompt, or one that a row's own tokens were added to.

    `prefill` is made when the first rows begin, and shared; so is the hidden state at its end, `last` [1, C].
    """

    ids: np.ndarray
    rows: list[Row]
    prefill: Prefill | None = None
    last: object = None


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
        cut: a whole prompt to the tokens of it that the model reads.
        score: of ended rollouts, what the plan decides on.
    """

    def __init__(
        self,
        prompts: Prompts,
        plan: Plan,
        cut: Callable[[np.ndarray], np.ndarray],
        score: Callable[[Ended], np.ndarray],
    ):
        self.prompts, self.plan, self.cut, self.score = prompts, plan, cut, score
        self.waiting: list[Window] = []  # the last one is next
        self.untouched = iter(range(len(prompts.ids)))
        self.begun: dict[int, Window] = {}
        self.asked = np.zeros(len(prompts.ids), np.int64)
        self.ended: list[list[Ended]] = [[] for _ in range(len(prompts.ids))]
        self.settled = self.tokens = 0

    def take(self, most: int) -> tuple[Window, list[Row]] | None:
        """At most so many rows of one window, to begin now; None where there is nothing to begin."""
        if not self.waiting:
            self._begin()
        if not self.waiting:
            return None
        window = self.waiting[-1]
        rows = [window.rows.pop() for _ in range(min(most, len(window.rows)))]
        if not window.rows:
            self.waiting.pop()
        return window, rows

    def _begin(self) -> None:
        """Put the next prompt that wants rollouts into the queue."""
        none = np.zeros(0, np.int64)
        for prompt in self.untouched:
            numbers = self.plan.more(prompt, none, np.zeros((0, 1)))
            if len(numbers):
                self.begun[prompt] = Window(self.cut(self.prompts.ids[prompt]), [])
                self._ask(prompt, numbers)
                return
            self.settled += 1

    def _ask(self, prompt: int, numbers: np.ndarray) -> None:
        window = self.begun[prompt]
        window.rows.extend(Row(prompt, int(number)) for number in numbers[::-1])
        self.asked[prompt] += len(numbers)
        self.waiting.append(window)

    def again(self, window: Window) -> None:
        """A row that has filled its window goes on in this one."""
        self.waiting.append(window)

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
            self._ask(prompt, more)
        else:
            del self.begun[prompt]
            self.settled += 1
