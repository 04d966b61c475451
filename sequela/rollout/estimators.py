"""Estimators: from the scores of rollouts to a risk with its Monte Carlo error.

For an outcome token set A, the hazard h_t = p(next token in A | prefix) is counted at every position up to and
including the one where the rollout stops counting: the outcome, death, or the token that moves the clock past the
moment of a competing end or past the horizon.
The score of one rollout is an unbiased estimate of the risk (arXiv 2602.03730):

- "mc": 1 if the outcome happened, else 0;
- "scope": the sum of h_t over an ordinary rollout; the mean may exceed 1;
- "reach": 1 - prod(1 - h_t) over a rollout sampled with A excluded and the remaining probabilities renormalized. Its
  variance never exceeds that of "mc" (Rao-Blackwell), but such a rollout serves one outcome only.

Shape letters: Q questions, N rollouts per question (column j is rollout number j), K outcomes. A score is NaN if the
rollout gives no answer, or was not run.
"""

from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

SAME = 1e-5  # scores that differ by less than this share of their mean differ by float32 rounding only


@dataclass(frozen=True)
class Estimator:
    """Which `score` of a rollout is averaged, and whether its rollouts are sampled with the outcome excluded."""

    name: str
    score: str
    avoids: bool


ESTIMATORS = {
    "mc": Estimator("mc", "happened", avoids=False),
    "scope": Estimator("scope", "hazard", avoids=False),
    "reach": Estimator("reach", "reached", avoids=True),
}


@dataclass(frozen=True)
class RiskEstimates:
    """Estimated risks of Q questions; every field is an array [Q].

    Attributes:
        value: the unbiased mean. With "scope" it may exceed 1 (`risk` does not). NaN if no rollout gave an answer.
        standard_error: sampling error of `value`; NaN with fewer than two answers. It is the plug-in estimate, so it is
            0 when all scores are equal: report `interval`, which never has zero width.
        skewness: third central moment of the scores over their cubed standard deviation; 0 without spread.
        effective: the number of equally weighted rollouts that would carry the same information.
        rollouts: rollouts that gave an answer; `undecidable`: rollouts that did not.
        tokens: sampled over all rollouts.
    """

    value: Float[np.ndarray, "Q"]
    standard_error: Float[np.ndarray, "Q"]
    skewness: Float[np.ndarray, "Q"]
    effective: Float[np.ndarray, "Q"]
    rollouts: Int[np.ndarray, "Q"]
    undecidable: Int[np.ndarray, "Q"]
    tokens: Int[np.ndarray, "Q"]

    @property
    def risk(self) -> Float[np.ndarray, "Q"]:
        """`value` clipped to 1: no longer unbiased, but closer to the truth wherever it differs."""
        return np.clip(self.value, 0, 1)


def answers(
    scores_QN: Float[np.ndarray, "Q N"],
    weights_QN: Float[np.ndarray, "Q N"] | None = None,
    tokens_QN: Int[np.ndarray, "Q N"] | None = None,
) -> RiskEstimates:
    """Weighted mean and standard error of each question's scores.

    With weights w that sum to 1: value m = sum(w x), s^2 = sum(w (x - m)^2) / (1 - sum(w^2)), standard error
    s sqrt(sum(w^2)), skewness sum(w (x - m)^3) / s^3. With equal weights this is the usual mean and s / sqrt(n).

    >>> nan = np.nan
    >>> found = answers(np.array([[0.1, 0.2, 0.6, nan], [nan, nan, nan, nan]]))
    >>> found.value.round(3), found.standard_error.round(3), found.rollouts, found.undecidable
    (array([0.3, nan]), array([0.153,   nan]), array([3, 0]), array([1, 4]))

    Args:
        scores_QN: NaN if the rollout gave no answer or was not run.
        weights_QN: from the budget (`RolloutBudget.weights`); None weighs all answers equally.
        tokens_QN: length of each rollout, 0 if it was not run; None: every column was run, at unknown cost.
    """
    known = np.isfinite(scores_QN)
    x = np.where(known, scores_QN, 0.0)
    w = equal_weights(known) if weights_QN is None else np.where(known, weights_QN, 0.0)
    squares = (w**2).sum(1)
    value = np.where(squares > 0, (w * x).sum(1), np.nan)
    off = x - value[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        deviation = np.sqrt((w * off**2).sum(1) / (1 - squares))
        error = np.where((w > 0).sum(1) >= 2, deviation * np.sqrt(squares), np.nan)
        skewness = np.nan_to_num((w * off**3).sum(1) / deviation**3, posinf=0, neginf=0)
        effective = np.where(squares > 0, 1 / squares, 0.0)
    ran = np.ones_like(known) if tokens_QN is None else tokens_QN > 0
    tokens = np.zeros(len(x), np.int64) if tokens_QN is None else tokens_QN.sum(1)
    return RiskEstimates(value, error, skewness, effective, known.sum(1), (ran & ~known).sum(1), tokens)


def interval(
    answer: RiskEstimates, estimator: str, confidence: float = 0.95
) -> tuple[Float[np.ndarray, "Q"], Float[np.ndarray, "Q"]]:
    """Confidence interval [Q], [Q] of the model's risk, from sampling error alone and inside [0, 1].

    "mc": Wilson's score interval (JASA 1927), which has a width even if no rollout, or every rollout, has the outcome.
    "scope" and "reach": Student's t after Hall's monotone cubic transformation (JRSS B 1992), because the scores of
    rare outcomes are skewed. If all scores are equal, or there is only one, their spread is unknown rather than 0, and
    the interval is that of "mc" with as many rollouts. Parts outside [0, 1] are cut off. NaN without an answer.

    If a rare state with a high hazard decides the risk, a few rollouts may never visit it; no interval computed from
    them can be right then (tests/rollout/test_estimators.py measures the coverage).

    >>> low, high = interval(answers(np.array([[0.0] * 10, [0.3, 0.4, 0.5, 0.6, 0.7] * 2])), "mc")
    >>> low.round(3), high.round(3)
    (array([0.   , 0.237]), array([0.278, 0.763]))
    """
    check_estimator(estimator)
    deviation = answer.standard_error * np.sqrt(answer.effective)
    scores = Moments(answer.value, deviation, answer.skewness)
    low, high = bounds(estimator, scores, answer.effective, answer.effective - 1, confidence)
    some = answer.effective > 0
    return np.where(some, low, np.nan), np.where(some, high, np.nan)


def check_estimator(estimator: str) -> None:
    """Raise ValueError for an unknown estimator."""
    if estimator not in ESTIMATORS:
        raise ValueError(f"there is no estimator {estimator!r}: choose one of {', '.join(ESTIMATORS)}")


def equal_weights(known: np.ndarray) -> np.ndarray:
    """Equal weights [Q, N] of the known entries; they sum to 1 in every row that has one.

    >>> equal_weights(np.array([[True, True, False, False], [False] * 4]))
    array([[0.5, 0.5, 0. , 0. ],
           [0. , 0. , 0. , 0. ]])
    """
    return known / np.maximum(known.sum(1, keepdims=True), 1)


class Moments(NamedTuple):
    """Mean, standard deviation and skewness of scores."""

    mean: np.ndarray | float
    deviation: np.ndarray | float
    skewness: np.ndarray | float


def bounds(
    estimator: str, scores: Moments, count: np.ndarray, freedom: np.ndarray | float, confidence: float
) -> tuple[np.ndarray, np.ndarray]:
    """Interval of the mean of `count` scores whose deviation was estimated with `freedom` degrees of freedom."""
    mean, deviation, skewness = scores
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = wilson(np.clip(mean, 0, 1), count, confidence)
        if estimator == "mc":
            return low, high
        quantile = _student(confidence, freedom) / np.sqrt(count)
        least = np.clip(mean - deviation * _unskewed(quantile, skewness, count), 0, 1)
        most = np.clip(mean - deviation * _unskewed(-quantile, skewness, count), 0, 1)
        spread = deviation > SAME * mean
    return np.where(spread, least, low), np.where(spread, most, high)


def wilson(
    share: np.ndarray | float, count: np.ndarray | float, confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's score interval of a probability that was observed as a `share` of `count` trials (JASA 1927).

    >>> [limit.round(3).tolist() for limit in wilson(np.array([0.0, 0.5]), 100)]
    [[0.0, 0.404], [0.037, 0.596]]
    """
    pull = normal_quantile(confidence) ** 2 / count
    center = (share + pull / 2) / (1 + pull)
    half = np.sqrt(pull * share * (1 - share) + pull**2 / 4) / (1 + pull)
    return np.maximum(center - half, 0), np.minimum(center + half, 1)


def _unskewed(y: np.ndarray, skewness: np.ndarray | float, count: np.ndarray) -> np.ndarray:
    """Inverse of Hall's transformation: the W with W + g W^2 / 3 + g^2 W^3 / 27 + g / (6 n) = y, for skewness g.

    W is the error of a mean of n scores, in units of the scores' standard deviation.
    """
    g = np.where(np.abs(skewness) < 1e-6, 1e-6, skewness)
    return 3 / g * (np.cbrt(1 + g * (y - g / (6 * count))) - 1)


def normal_quantile(confidence: float) -> float:
    """Quantile of the normal distribution that leaves `confidence` between it and its negative.

    >>> round(normal_quantile(0.95), 3)
    1.96
    """
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _student(confidence: float, freedom: np.ndarray | float) -> np.ndarray:
    """Quantile of Student's t that leaves `confidence` between it and its negative, for degrees of freedom >= 1.

    >>> _student(0.95, np.array([1, 7, 99, 1e9])).round(3)
    array([12.706,  2.365,  1.984,  1.96 ])
    """
    inverse, quantile = _student_table(confidence)
    return np.interp(1 / np.maximum(freedom, 1), inverse, quantile)


@cache
def _student_table(confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """1 / degrees of freedom, rising from 0, and the quantile.

    With t = sqrt(f) tan(a) the density of Student's t at f degrees of freedom is proportional to cos(a)^(f - 1).
    """
    angle = np.linspace(0, np.pi / 2, 4097)
    freedom = np.arange(256, 0, -1)
    quantile = [normal_quantile(confidence)]
    for f in freedom:
        density = np.cos(angle) ** (f - 1)
        below = np.append(0, np.cumsum(density[1:] + density[:-1]))
        quantile.append(np.sqrt(f) * np.tan(np.interp(confidence * below[-1], below, angle)))
    return np.append(0, 1 / freedom), np.array(quantile)
