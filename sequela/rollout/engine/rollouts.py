"""What is continued and what comes of it: prompts and rollouts.

Shape letters: P prompts, R rollouts, V vocabulary, B bits of the constraint, K watched outcomes, G steps of time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from sequela.tokens.ragged import Ragged

REASONS = ("limit", "settled", "horizon", "end")
"""Why a rollout ended: it reached its token limit, nothing is watched any more, its clock passed the horizon, or it
sampled something that ends it."""


@dataclass(frozen=True)
class Prompts:
    """What is to be continued.

    Attributes:
        ids: ragged [P, length], whole; the engine's `cut` leaves out what does not fit the context.
        key: int64 [P], what the seeds of its rollouts are made from (see `sequela.rollout.engine.sampling.keys`).
        first: [P, V], by what the probability of each token as the first one is multiplied, 0 for one that cannot come;
            None: by 1.
        bits: bool [P, B], the constraint's state at the end of the prompt; None: no bit is set.
        clock: int64 [P], minutes at the end of the prompt, for trackers that keep time; 0 is now, never later. None: 0.
        watched: bool [P, K], which outcomes are watched, for trackers that watch any; None: all, for every prompt.
        begins: int64 [P, S], the minute of that clock at which each age band and calendar period begins, for trackers
            with a calendar.
        values: float32 [P, K, G], a guess at the risk of each watched outcome as time goes on without it, for trackers
            that are steadied by one (see `sequela.rollout.tracker.OutcomeTracker`); None: no guess.
    """

    ids: Ragged
    key: np.ndarray
    first: np.ndarray | None = None
    bits: np.ndarray | None = None
    clock: np.ndarray | None = None
    watched: np.ndarray | None = None
    begins: np.ndarray | None = None
    values: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def watched_in(self, rows: np.ndarray, outcomes: int) -> np.ndarray:
        """Which of so many outcomes are watched in rollouts of the prompts at these indices [R], bool [R, K]."""
        return np.ones((len(rows), outcomes), bool) if self.watched is None else self.watched[rows]

    def take(self, rows: np.ndarray) -> Prompts:
        """The prompts at these indices, in this order."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "ids"}
        return replace(
            self,
            ids=self.ids.take(rows),
            **{name: None if x is None else x[rows] for name, x in arrays.items()},
        )


@dataclass(frozen=True)
class Rollouts:
    """What came of the prompts, in the order of prompts and numbers.

    Attributes:
        prompt, number: int64 [R], whose rollout it is, and which one of that prompt.
        tokens: ragged [R, length], the new tokens.
        reason: int8 [R], why each one ended, index into REASONS.
        windows: int64 [R], how often the context was filled and a new window was begun.
        account: what the tracker recorded, by name; each array is [R, ...].
    """

    prompt: np.ndarray
    number: np.ndarray
    tokens: Ragged
    reason: np.ndarray
    windows: np.ndarray
    account: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.number)

    @property
    def truncated(self) -> np.ndarray:
        """Which ones ran into their token limit, bool [R]."""
        return self.reason == REASONS.index("limit")

    @staticmethod
    def joined(parts: Sequence[Rollouts]) -> Rollouts:
        """The rollouts of all parts, one after another. The first part says which columns there are."""
        arrays = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("prompt", "number", "reason", "windows")
        }
        tokens = Ragged.of([part.tokens[row] for part in parts for row in range(len(part))])
        account = {name: np.concatenate([part.account[name] for part in parts]) for name in parts[0].account}
        return Rollouts(**arrays, tokens=tokens, account=account)
