"""The queue of rollouts that decoding batches take their work from and bring their results to."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from sequela.rollout.engine.rollouts import Prompts, Rollouts


class PromptBudget(Protocol):
    """How many rollouts a prompt gets, from the scores of its own rollouts alone."""

    def more(self, question: int, numbers: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """The numbers of the rollouts to run next for the prompt at index `question`; none: it has enough.

        `numbers` int64 [R] are those that ended, in order, and `scores` float [R, K] what they scored.
        """
        ...


@dataclass(frozen=True, eq=False)
class PromptAssignment:
    """Rollouts of one prompt to begin now.

    Attributes:
        index: of the prompt, as its source counts.
        prompt: this prompt alone.
        numbers: int64 [n], of the rollouts.
    """

    index: int
    prompt: Prompts
    numbers: np.ndarray


class Source(Protocol):
    """Where a decoding batch takes its work from and brings its results to: a `Queue`, or one further away."""

    def take(self, most: int) -> PromptAssignment | None:
        """At most so many rollouts of one prompt, to begin now; None where there are none."""
        ...

    def bring(self, index: int, rollout: Rollouts) -> None:
        """One rollout of the prompt with this index has ended."""
        ...


class Queue:
    """Prompts in their order, a few of them begun.

    Args:
        scores: of rollouts, what the budget decides on, float [R, K].
    """

    def __init__(self, prompts: Prompts, budget: PromptBudget, scores: Callable[[Rollouts], np.ndarray]):
        self.prompts, self.budget, self.scores = prompts, budget, scores
        self.waiting: deque[tuple[int, np.ndarray]] = deque()  # prompt, numbers; the last one is next
        self.left = 0  # how many rollouts these are
        self.untouched = iter(range(len(prompts)))
        self.requested = np.zeros(len(prompts), np.int64)
        self.finished: list[list[Rollouts]] = [[] for _ in range(len(prompts))]
        self.settled = self.tokens = 0

    def take(self, most: int) -> PromptAssignment | None:
        """At most so many rollouts of one prompt, to begin now; None where there are none."""
        if not self.ahead(1):
            return None
        prompt, numbers = self.waiting.pop()
        if len(numbers) > most:
            self.waiting.append((prompt, numbers[most:]))
        self.left -= len(numbers[:most])
        return PromptAssignment(prompt, self.prompts.take(np.array([prompt])), numbers[:most])

    def ahead(self, rollouts: int) -> int:
        """Have so many wait, if there are as many. How many wait now."""
        none = np.zeros(0, np.int64)
        while self.left < rollouts and (prompt := next(self.untouched, None)) is not None:
            numbers = self.budget.more(prompt, none, np.zeros((0, 1)))
            self.requested[prompt] = len(numbers)
            self.left += len(numbers)
            if len(numbers):
                self.waiting.appendleft((prompt, numbers))
            else:
                self.settled += 1
        return self.left

    def bring(self, index: int, rollout: Rollouts) -> None:
        """A rollout has ended. With the last one that was requested, the budget may ask for more."""
        self.tokens += len(rollout.tokens.flat)
        finished = self.finished[index]
        finished.append(replace(rollout, prompt=np.array([index])))
        if len(finished) < self.requested[index]:
            return
        finished.sort(key=lambda rollout: int(rollout.number[0]))
        numbers = np.concatenate([rollout.number for rollout in finished])
        scores = np.concatenate([self.scores(rollout) for rollout in finished])
        more = self.budget.more(index, numbers, scores)
        if len(more):
            self.requested[index] += len(more)
            self.left += len(more)
            self.waiting.append((index, more))
        else:
            self.settled += 1

    def rollouts(self, none: Rollouts) -> Rollouts:
        """All that ended, in the order of prompts and numbers. `none`: rollouts of which there are none."""
        return Rollouts.joined([none, *(rollout for finished in self.finished for rollout in finished)])
