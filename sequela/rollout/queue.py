"""What the lanes take their work from and bring their results to."""

from __future__ import annotations

import threading
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

    `prefill` is made by the first lane that needs it, under `lock`, and shared; so is the hidden state at its end,
    `last` [1, C].
    """

    ids: np.ndarray
    rows: list[Row]
    lock: threading.Lock = field(default_factory=threading.Lock)
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
    """Prompts in their order, a few of them begun. Safe to use from several threads.

    Args:
        cut: a whole prompt to the tokens of it that the model reads.
        score: of ended rollouts, what the plan decides on.
        lanes: how many share the work.
    """

    def __init__(
        self,
        prompts: Prompts,
        plan: Plan,
        cut: Callable[[np.ndarray], np.ndarray],
        score: Callable[[Ended], np.ndarray],
        lanes: int,
    ):
        self.prompts, self.plan, self.cut, self.score, self.lanes = prompts, plan, cut, score, lanes
        self.changed = threading.Condition()
        self.waiting: list[Window] = []  # the last one is next
        self.untouched = iter(range(len(prompts.ids)))
        self.begun: dict[int, Window] = {}
        self.asked = np.zeros(len(prompts.ids), np.int64)
        self.ended: list[list[Ended]] = [[] for _ in range(len(prompts.ids))]
        self.settled = self.tokens = self.busy = 0
        self.abandoned = False

    def take(self, most: int, *, patient: bool) -> tuple[Window, list[Row]] | None:
        """At most so many rows of one window, to begin now.

        Near the end the lanes share what there is. None where there is nothing to begin: at once, or, for the
        `patient`, when nothing will come any more.
        """
        with self.changed:
            while not self.abandoned:
                if not self.waiting:
                    self._begin()
                if self.waiting:
                    return self._grant(most)
                if not patient or not self.busy:
                    break
                self.changed.wait()
            return None

    def _begin(self) -> None:
        """Put the next prompt that wants rollouts into the queue."""
        none = np.zeros(0, np.int64)
        for prompt in self.untouched:
            numbers = self.plan.more(prompt, none, np.zeros((0, 1)))
            if len(numbers):
                window = Window(self.cut(self.prompts.ids[prompt]), [])
                self.begun[prompt] = window
                self._ask(prompt, numbers)
                return
            self.settled += 1

    def _ask(self, prompt: int, numbers: np.ndarray) -> None:
        window = self.begun[prompt]
        window.rows.extend(Row(prompt, int(number)) for number in numbers[::-1])
        self.asked[prompt] += len(numbers)
        self.waiting.append(window)

    def _grant(self, most: int) -> tuple[Window, list[Row]]:
        window = self.waiting[-1]
        left = sum(len(one.rows) for one in self.waiting)
        if self.lanes > 1 and left < self.lanes * most:
            self._begin_beside()
            left = sum(len(one.rows) for one in self.waiting)
            most = min(most, max(-(-left // self.lanes), 1))
        rows = [window.rows.pop() for _ in range(min(most, len(window.rows)))]
        if not window.rows:
            self.waiting.pop()
        self.busy += len(rows)
        return window, rows

    def _begin_beside(self) -> None:
        """Know of more work than there is in the queue, so that it is not cut finer than it needs to be."""
        window = self.waiting.pop()
        before = len(self.waiting)
        self._begin()
        assert len(self.waiting) <= before + 1
        self.waiting.append(window)

    def again(self, window: Window) -> None:
        """A row that has filled its window goes on in this one."""
        with self.changed:
            self.busy -= 1
            self.waiting.append(window)
            self.changed.notify_all()

    def bring(self, prompt: int, ended: Ended) -> None:
        """A rollout has ended."""
        with self.changed:
            self.busy -= 1
            self.tokens += len(ended.tokens)
            mine = self.ended[prompt]
            mine.append(ended)
            if len(mine) == self.asked[prompt]:
                mine.sort(key=lambda one: one.number)
                numbers = np.array([one.number for one in mine], np.int64)
                more = self.plan.more(prompt, numbers, np.stack([self.score(one) for one in mine]))
                if len(more):
                    self._ask(prompt, more)
                else:
                    del self.begun[prompt]
                    self.settled += 1
            self.changed.notify_all()

    def abandon(self) -> None:
        """Let every lane stop where it is."""
        with self.changed:
            self.abandoned = True
            self.changed.notify_all()
