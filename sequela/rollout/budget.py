"""Rollout budgets: a fixed number per question, or as many as the answer needs.

Shape letters: Q questions, N rollouts per question (column j is rollout number j), K outcomes. A score is NaN if the
rollout gives no answer, or was not run.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int

from sequela.rollout.estimators import check_estimator, equal_weights, normal_quantile
from sequela.rollout.spread import Spread, limits, prior


class RolloutBudget(Protocol):
    """Decides which rollouts of a question to run, from its own scores alone, and how much each of them counts."""

    def more(
        self, question: int, numbers: Int[np.ndarray, "done"], scores: Float[np.ndarray, "done K"]
    ) -> Int[np.ndarray, "new"]:
        """Numbers of the rollouts to run next, given `scores` [done, K] of `numbers` [done]; empty when finished."""
        ...

    def weights(self, scores_QN: Float[np.ndarray, "Q N"]) -> Float[np.ndarray, "Q N"]:
        """Weights [Q, N] of one outcome's scores, for `estimators.answers`; they sum to 1."""
        ...


@dataclass(frozen=True)
class FixedBudget:
    """`n` rollouts for every question.

    >>> FixedBudget(4).more(0, np.array([2]), np.zeros((1, 1)))
    array([0, 1, 3])
    """

    n: int

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n must be 1 or more, not {self.n}")

    def more(
        self, question: int, numbers: Int[np.ndarray, "done"], scores: Float[np.ndarray, "done K"]
    ) -> Int[np.ndarray, "new"]:
        """Those of 0 to n - 1 that are not done."""
        return np.setdiff1d(np.arange(self.n), numbers)

    def weights(self, scores_QN: Float[np.ndarray, "Q N"]) -> Float[np.ndarray, "Q N"]:
        """Equal weights for all answers."""
        return equal_weights(np.isfinite(scores_QN))


@dataclass(frozen=True)
class AdaptiveBudget:
    """As many rollouts as each question needs, judged by a pilot, without the bias of peeking.

    The rollouts of a question form two halves, by the parity of their number. Both start with `pilot` rollouts; then
    the pilot of one half fixes the size of the *other*, once and for all. A half's size is therefore independent of its
    own scores and its mean is unbiased. The answer is the plain average of both means, with weights of 1/2 that no
    score changes, so it is exactly unbiased too. With several outcomes the largest size counts.

    Why not continue in rounds, each half growing while the other's scores ask for it? Because then a half's own scores
    decide how many the other has, and through them its own size: the bias is back (the tests show it). The size of a
    half may only depend on rollouts of the other that are run in any case, and those are the pilot.

    The size is the smallest at which, if the pilot's mean and variance were those of the question and the other half
    were as large, the interval would be narrow enough: a 95 % half-width of at most 1.96 `target`, or entirely on one
    side of `threshold`. It lies between `pilot` and `cap` / 2. A pilot that missed a rare state has too small a
    variance, so it is shrunk as in `sequela.rollout.spread`: not towards that of the run, which a question may not look
    at, but towards the `overdispersion` given in advance. So that no half stops because it saw nothing, the `target`
    takes half a case added to each side (Jeffreys), of as many votes as the scores are worth. Fewer than two answers in
    the pilot ask for the largest size. The target is aimed at, not promised: the interval says what was reached.

    Rollouts without an answer do not count. A half whose pilot has no answer is left out, unless that is true of both;
    this depends on which scores are known, not on their values.
    """

    estimator: str
    """mc, scope or reach."""
    target: float | None = None
    """Standard error to aim at."""
    threshold: float | None = None
    """Risk that the interval should lie entirely above or below."""
    confidence: float = 0.99
    """Confidence of the interval that has to exclude the threshold: higher than what is reported later, because the
    pilot's mean is not the final one."""
    pilot: int = 8
    """Rollouts of each half that are run in any case."""
    cap: int = 256
    """Maximum number of rollouts per question."""
    overdispersion: float | None = None
    """How much scores vary (see `sequela.rollout.spread`), known from other patients; None: what is assumed of any."""

    def __post_init__(self) -> None:
        check_estimator(self.estimator)
        if self.target is None and self.threshold is None:
            raise ValueError("name a target (a standard error) or a threshold (a risk), or use FixedBudget")
        if self.target is not None and not self.target > 0:
            raise ValueError(f"target must be above 0, not {self.target}")
        for name in ("threshold", "confidence"):
            share = getattr(self, name)
            if share is not None and not 0 < share < 1:
                raise ValueError(f"{name} must lie between 0 and 1, not {share}")
        if self.overdispersion is not None and not self.overdispersion > 0:
            raise ValueError(f"overdispersion must be above 0, not {self.overdispersion}")
        if self.pilot < 2 or self.cap < 2 * self.pilot:
            raise ValueError(
                f"pilot must be 2 or more and cap at least twice that, not {self.pilot} and {self.cap}"
            )

    def more(
        self, question: int, numbers: Int[np.ndarray, "done"], scores: Float[np.ndarray, "done K"]
    ) -> Int[np.ndarray, "new"]:
        """Both pilots; then what each asks for in the other half; then nothing."""
        pilots = np.setdiff1d(np.arange(2 * self.pilot), numbers)
        if len(pilots):
            return pilots
        wanted = []
        for half in (0, 1):
            other = (numbers % 2 != half) & (numbers < 2 * self.pilot)
            size = max(self._size(score[np.isfinite(score)]) for score in scores[other].T)
            wanted.append(2 * np.arange(size) + half)
        return np.setdiff1d(np.concatenate(wanted), numbers)

    def weights(self, scores_QN: Float[np.ndarray, "Q N"]) -> Float[np.ndarray, "Q N"]:
        """1/2 for each half, shared equally among its answers."""
        known = np.isfinite(scores_QN)
        begun = np.stack([known[:, half : 2 * self.pilot : 2].any(1) for half in (0, 1)])
        weights = np.zeros(known.shape)
        for half in (0, 1):
            share = begun[half] / np.maximum(begun.sum(0), 1)
            weights[:, half::2] = share[:, None] * equal_weights(known[:, half::2])
        return np.where(begun.any(axis=0, keepdims=True).T, weights, equal_weights(known))

    def _size(self, pilot: np.ndarray) -> int:
        """Size of a half, from the answers [d] of the other half's pilot."""
        sizes = np.arange(self.pilot, self.cap // 2 + 1)
        known = len(pilot)
        if known < 2:
            return int(sizes[-1])
        counts = 2.0 * sizes * known / self.pilot  # answers of both halves
        mean, variance = pilot.mean(), pilot.var(ddof=1)
        settled = np.ones(len(sizes), bool)
        if self.threshold is not None:
            low, high = limits(mean, variance, counts, known - 1, self._spread, self.confidence)
            settled &= (low > self.threshold) | (high < self.threshold)
        if self.target is not None:
            votes = known / self._spread.overdispersion
            shrunk = (votes * mean + 0.5) / (votes + 1)
            low, high = limits(shrunk, variance, counts, known - 1, self._spread, 0.95)
            settled &= high - low <= 2 * normal_quantile(0.95) * self.target
        return int(sizes[settled.argmax()] if settled.any() else sizes[-1])

    @property
    def _spread(self) -> Spread:
        return prior(self.estimator) if self.overdispersion is None else Spread(self.overdispersion)
