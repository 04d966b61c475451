"""From the scores of rollouts to a risk: the estimators, their Monte-Carlo error, and how many rollouts to run.

For an outcome token set A, the hazard h_t = p(next token in A | prefix) is counted at every position up to and
including the one at which the rollout stops counting: the outcome, a competing end, or the token that passes the
horizon. The score of one rollout has the risk as its mean (arXiv 2602.03730):

- "mc": 1 where the outcome happened, else 0;
- "scope": the sum of h_t over an ordinary rollout; a mean may exceed 1;
- "reach": 1 - prod(1 - h_t) over a rollout that is sampled with A avoided, the rest renormalised; its variance is
  never above that of "mc" (Rao-Blackwell). A rollout serves one outcome only.

Shape letters: Q questions, N rollouts of each by number (column j is rollout number j), K outcomes. A score is NaN
where its rollout cannot decide the question, and where no such rollout was run.
"""

from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Int

SAME = 1e-5  # scores that vary by less than this share of their mean are equal but for float32 rounding


@dataclass(frozen=True)
class Estimator:
    """Which `score` of a rollout is averaged, and whether its rollouts are sampled with the outcome avoided."""

    name: str
    score: str
    avoids: bool


ESTIMATORS = {
    "mc": Estimator("mc", "happened", avoids=False),
    "scope": Estimator("scope", "hazard", avoids=False),
    "reach": Estimator("reach", "reached", avoids=True),
}


@dataclass(frozen=True)
class Answer:
    """What the rollouts say about Q questions; every field is an array [Q].

    `value`: the unbiased mean, above 1 at times for "scope" (`risk` is not); NaN without a decidable rollout.
    `standard_error`: of `value`, from sampling alone; NaN with fewer than 2 decidable rollouts. It is the plug-in one,
    0 where all scores are equal: quote `interval`, which then has a width. `skewness`: third central moment of the
    scores over their deviation cubed; 0 without spread. `effective`: number of equally weighted rollouts that would
    know as much. `rollouts`: decidable ones; `undecidable`: the others; `tokens`: sampled for all of them.
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
        """`value` as a probability, at most 1: closer to the truth wherever it differs, though no longer unbiased."""
        return np.clip(self.value, 0, 1)


def answers(
    scores_QN: Float[np.ndarray, "Q N"],
    weights_QN: Float[np.ndarray, "Q N"] | None = None,
    tokens_QN: Int[np.ndarray, "Q N"] | None = None,
) -> Answer:
    """The weighted mean of each question's decidable scores, with its standard error.

    With weights w that sum to 1: value m = sum(w x), s^2 = sum(w (x - m)^2) / (1 - sum(w^2)), standard error
    s sqrt(sum(w^2)), skewness sum(w (x - m)^3) / s^3. For equal weights: the usual mean and s / sqrt(n).

    Args:
        scores_QN: NaN where undecidable or not run.
        weights_QN: as the plan gives them (`RolloutBudget.weights`); None: every decidable score counts the same.
        tokens_QN: length of each rollout, 0 where none was run; None: every column was run, at an unknown cost.
    """
    known = np.isfinite(scores_QN)
    x = np.where(known, scores_QN, 0.0)
    w = _equal(known) if weights_QN is None else np.where(known, weights_QN, 0.0)
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
    return Answer(value, error, skewness, effective, known.sum(1), (ran & ~known).sum(1), tokens)


def interval(
    answer: Answer, estimator: str, confidence: float = 0.95
) -> tuple[Float[np.ndarray, "Q"], Float[np.ndarray, "Q"]]:
    """Lower and upper ends [Q] of the interval of the model's risk that sampling leaves open, inside [0, 1].

    "mc": Wilson's score interval (JASA 1927), which has a width when no or every rollout has the outcome. "scope" and
    "reach": Student's t after the monotone cubic transformation that removes the skewness of the mean (Hall, JRSS B
    1992), since the scores of rare outcomes are skewed. Where their scores are all equal, or there is but one, their
    spread is unknown rather than 0, and the interval is that of "mc" with as many rollouts. What lies outside [0, 1],
    as a mean of "scope" may, is cut off: no risk is there. NaN without a decidable rollout.

    Where a rare state of high hazard decides the risk, few rollouts may not have seen it; then no interval from them
    can be right (coverage measured in tests/rollout/test_estimators.py).
    """
    _check(estimator)
    deviation = answer.standard_error * np.sqrt(answer.effective)
    scores = _Moments(answer.value, deviation, answer.skewness)
    low, high = _bounds(estimator, scores, answer.effective, answer.effective - 1, confidence)
    some = answer.effective > 0
    return np.where(some, low, np.nan), np.where(some, high, np.nan)


class RolloutBudget(Protocol):
    """Which rollouts of a question to run, from its own scores alone, and how much each of them counts."""

    def more(
        self, question: int, numbers: Int[np.ndarray, "done"], scores: Float[np.ndarray, "done K"]
    ) -> Int[np.ndarray, "new"]:
        """Numbers of the rollouts to run after those of `numbers` [done] with `scores` [done, K]; none: settled."""
        ...

    def weights(self, scores_QN: Float[np.ndarray, "Q N"]) -> Float[np.ndarray, "Q N"]:
        """Weights [Q, N] of one outcome's scores in `answers`; column j is rollout number j. They sum to 1."""
        ...


@dataclass(frozen=True)
class FixedBudget:
    """`n` rollouts for every question."""

    n: int

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n must be 1 or more, not {self.n}")

    def more(
        self, question: int, numbers: Int[np.ndarray, "done"], scores: Float[np.ndarray, "done K"]
    ) -> Int[np.ndarray, "new"]:
        """All of 0 to n - 1 that are not done."""
        return np.setdiff1d(np.arange(self.n), numbers)

    def weights(self, scores_QN: Float[np.ndarray, "Q N"]) -> Float[np.ndarray, "Q N"]:
        """Every decidable score counts the same."""
        return _equal(np.isfinite(scores_QN))


@dataclass(frozen=True)
class AdaptiveBudget:
    """As many rollouts as each question needs, from a pilot, without the bias of peeking.

    A question's rollouts are two halves by the parity of their number. Both begin with `pilot` rollouts; then the pilot
    of one half fixes, once and for all, the size of the other. So a half's size is independent of its own scores, and
    its mean is unbiased; the answer is the plain average of the two means, with weights of 1/2 that no score moves,
    and therefore exactly unbiased. With several outcomes the largest size counts, which the other half's scores still
    fix alone.

    Why not in rounds, each half going on while the other's scores so far ask for it: how many scores the other has is
    then decided by a half's own, which so bear on its own size after all (the tests show the bias). A half's size may
    depend on nothing of the other but what is run whatever happens, and that is the pilot; more rounds are exact only
    where the scores beyond a half's own size are thrown away.

    The size of a half is the smallest at which, were the pilot's mean, spread and skewness those of the question and
    the other half as large, `interval` would be as asked: its half-width at 95 % at most 1.96 `target`, or one side of
    `threshold` free of it. The smallest is the pilot's, the largest `cap` / 2. Student's quantile is of the pilot's
    degrees of freedom, which makes up for the error of its spread (Stein, Ann. Math. Stat. 1945). So that no half ends
    because nothing was seen, equal scores are read like those of "mc", and for the `target` of "mc" itself half a case
    is added to each side (Jeffreys). Fewer than 2 decidable scores ask for the largest. What is asked is aimed at, not
    promised: the interval says what was reached.

    Undecidable scores do not count. A half whose pilot has no decidable score is left out, unless both are so: that
    depends on which of its scores are decidable, not on their values.
    """

    estimator: str
    """mc, scope or reach."""
    target: float | None = None
    """Standard error aimed at."""
    threshold: float | None = None
    """Risk of which the answer is to be on one side or the other."""
    confidence: float = 0.99
    """Of the interval that is to leave the threshold out: more than will be quoted, since the pilot's mean is not the
    final one."""
    pilot: int = 8
    """First rollouts of each half."""
    cap: int = 256
    """Most rollouts of a question."""

    def __post_init__(self) -> None:
        _check(self.estimator)
        if self.target is None and self.threshold is None:
            raise ValueError("name a target (a standard error) or a threshold (a risk), or use Fixed")
        if self.target is not None and not self.target > 0:
            raise ValueError(f"target must be above 0, not {self.target}")
        for name in ("threshold", "confidence"):
            share = getattr(self, name)
            if share is not None and not 0 < share < 1:
                raise ValueError(f"{name} must lie between 0 and 1, not {share}")
        if self.pilot < 2 or self.cap < 2 * self.pilot:
            raise ValueError(
                f"pilot must be 2 or more and cap at least twice that, not {self.pilot} and {self.cap}"
            )

    def more(
        self, question: int, numbers: Int[np.ndarray, "done"], scores: Float[np.ndarray, "done K"]
    ) -> Int[np.ndarray, "new"]:
        """Both pilots; then what each asks of the other half; then nothing."""
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
        """1/2 for each half, shared equally by its decidable scores."""
        known = np.isfinite(scores_QN)
        begun = np.stack([known[:, half : 2 * self.pilot : 2].any(1) for half in (0, 1)])
        weights = np.zeros(known.shape)
        for half in (0, 1):
            share = begun[half] / np.maximum(begun.sum(0), 1)
            weights[:, half::2] = share[:, None] * _equal(known[:, half::2])
        return np.where(begun.any(axis=0, keepdims=True).T, weights, _equal(known))

    def _size(self, pilot: np.ndarray) -> int:
        """Size of the half that the decidable scores [d] of the other's pilot ask for."""
        sizes = np.arange(self.pilot, self.cap // 2 + 1)
        known = len(pilot)
        if known < 2:
            return int(sizes[-1])
        counts = 2.0 * sizes * known / self.pilot  # decidable scores of both halves
        mean, deviation = pilot.mean(), pilot.std(ddof=1)
        skewness = ((pilot - mean) ** 3).mean() / deviation**3 if deviation > 0 else 0.0
        settled = np.ones(len(sizes), bool)
        if self.threshold is not None:
            seen = _Moments(mean, deviation, skewness)
            low, high = _bounds(self.estimator, seen, counts, known - 1, self.confidence)
            settled &= (low > self.threshold) | (high < self.threshold)
        if self.target is not None:
            shrunk = (pilot.sum() + 0.5) / (known + 1) if self.estimator == "mc" else mean
            seen = _Moments(shrunk, deviation, skewness)
            low, high = _bounds(self.estimator, seen, counts, known - 1, 0.95)
            settled &= high - low <= 2 * _normal(0.95) * self.target
        return int(sizes[settled.argmax()] if settled.any() else sizes[-1])


def _check(estimator: str) -> None:
    if estimator not in ESTIMATORS:
        raise ValueError(f"there is no estimator {estimator!r}: choose one of {', '.join(ESTIMATORS)}")


def _equal(known: np.ndarray) -> np.ndarray:
    """Equal weights [Q, N] of those known."""
    return known / np.maximum(known.sum(1, keepdims=True), 1)


class _Moments(NamedTuple):
    """Of the scores: mean, standard deviation, skewness."""

    mean: np.ndarray | float
    deviation: np.ndarray | float
    skewness: np.ndarray | float


def _bounds(
    estimator: str, scores: _Moments, count: np.ndarray, freedom: np.ndarray | float, confidence: float
) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the interval of the mean of `count` scores whose deviation is known to so many degrees of freedom."""
    mean, deviation, skewness = scores
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = _wilson(np.clip(mean, 0, 1), count, confidence)
        if estimator == "mc":
            return low, high
        quantile = _student(confidence, freedom) / np.sqrt(count)
        least = np.clip(mean - deviation * _unskewed(quantile, skewness, count), 0, 1)
        most = np.clip(mean - deviation * _unskewed(-quantile, skewness, count), 0, 1)
        spread = deviation > SAME * mean
    return np.where(spread, least, low), np.where(spread, most, high)


def _wilson(share: np.ndarray | float, count: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's interval of a probability."""
    pull = _normal(confidence) ** 2 / count
    centre = (share + pull / 2) / (1 + pull)
    half = np.sqrt(pull * share * (1 - share) + pull**2 / 4) / (1 + pull)
    return np.maximum(centre - half, 0), np.minimum(centre + half, 1)


def _unskewed(y: np.ndarray, skewness: np.ndarray | float, count: np.ndarray) -> np.ndarray:
    """The W with W + g W^2 / 3 + g^2 W^3 / 27 + g / (6 n) = y, for skewness g.

    W is the error of a mean of n scores over the scores' deviation; the left side is Hall's transformation of it.
    """
    g = np.where(np.abs(skewness) < 1e-6, 1e-6, skewness)
    return 3 / g * (np.cbrt(1 + g * (y - g / (6 * count))) - 1)


def _normal(confidence: float) -> float:
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
    quantile = [_normal(confidence)]
    for f in freedom:
        density = np.cos(angle) ** (f - 1)
        below = np.append(0, np.cumsum(density[1:] + density[:-1]))
        quantile.append(np.sqrt(f) * np.tan(np.interp(confidence * below[-1], below, angle)))
    return np.append(0, 1 / freedom), np.array(quantile)
