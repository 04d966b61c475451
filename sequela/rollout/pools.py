"""Which pools of rollouts answer the requests, and how many rollouts each question gets.

Shape letters: P questions, K requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from sequela.rollout.budget import AdaptiveBudget, FixedBudget
from sequela.rollout.request import Request
from sequela.rollout.settings import SimulateSettings

PILOT = 8  # rollouts of each half, with the estimator auto
TARGET_ERROR = 0.02  # of auto, where no other is set


def pools_of(
    settings: SimulateSettings, requests: Sequence[Request]
) -> list[tuple[str | None, list[Request]]]:
    """For each pool what it avoids (None: nothing), and the requests that it serves."""
    settled_by_first = [request for request in requests if request.counted == "first"]
    if not avoids(settings, requests):
        return [(None, list(requests))]
    others = [request for request in requests if request.counted != "first"]
    avoiding = [(request.name, [request]) for request in settled_by_first]
    return [*([(None, others)] if others else []), *avoiding]


def avoids(settings: SimulateSettings, requests: Sequence[Request]) -> bool:
    """Whether rollouts without the outcome are made for each request. Auto makes them if there is only one request."""
    return settings.estimator == "reach" or (settings.estimator == "auto" and len(requests) == 1)


def adaptive_budget(settings: SimulateSettings, requests: Sequence[Request]) -> AdaptiveBudget | None:
    """The budget of the estimator auto; None if every question gets the same number of rollouts."""
    if settings.estimator != "auto" or not any(request.counted == "first" for request in requests):
        return None
    target = settings.target_error
    if target is None and settings.threshold is None:
        target = TARGET_ERROR
    return AdaptiveBudget(
        "reach" if avoids(settings, requests) else "scope", target, settings.threshold,
        pilot=min(PILOT, settings.rollouts // 2), cap=settings.rollouts, overdispersion=settings.overdispersion,
    )  # fmt: skip


def asked_by(questions: pl.DataFrame, requests: Sequence[Request]) -> np.ndarray:
    """Which of K requests ask each of P questions, bool [P, K]."""
    key = list(questions.columns)
    columns = []
    for request in requests:
        marks = request.times.select(key).with_columns(asked=True)
        joined = questions.join(marks, on=key, how="left", maintain_order="left")
        columns.append(joined["asked"].fill_null(False).to_numpy())
    return np.stack(columns, 1)


def budget_of(
    settings: SimulateSettings, requests: Sequence[Request], served: Sequence[Request], asked: np.ndarray
) -> BudgetOfAsked:
    """The budget of a pool.

    Args:
        requests: all of the simulation.
        served: the K requests of this pool.
        asked: bool [P, K], see `asked_by`.
    """
    adaptive = adaptive_budget(settings, requests)
    judged = np.array([adaptive is not None and request.counted == "first" for request in served])
    return BudgetOfAsked(FixedBudget(settings.rollouts), adaptive, asked, asked & judged)


@dataclass(frozen=True)
class BudgetOfAsked:
    """Rollouts for the questions that are asked: as many as their judged scores need, or a fixed number.

    Attributes:
        fixed: for questions of which no score is judged.
        adaptive: for the others; None if there are none.
        asked, judged: bool [P, K].
    """

    fixed: FixedBudget
    adaptive: AdaptiveBudget | None
    asked: np.ndarray
    judged: np.ndarray

    def more(self, question: int, numbers: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """See `PromptBudget`."""
        if not self.asked[question].any():
            return numbers[:0]
        judged = self.judged[question]
        if self.adaptive is None or not judged.any():
            return self.fixed.more(question, numbers, scores)
        return self.adaptive.more(question, numbers, scores[:, judged] if len(numbers) else scores)
