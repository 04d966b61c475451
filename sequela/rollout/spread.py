"""How much the scores of rollouts vary about a risk, learned from a whole run, and the intervals that follow.

Ten scores of one patient cannot tell their own spread: where a rare state carries much of a risk, they miss it mostly,
and then mean and deviation are both too small. The other patients can. Of all questions of a run,

    overdispersion  phi = sum s^2 / sum v,  v = m (1 - m) + s^2 / n

for the mean m and sample variance s^2 of n scores; v estimates the variance of a vote without bias. It is 1 for votes,
less for scores that average over what comes next. Few questions are shrunk towards what was known before, from tuning
patients (`sequela calibrate`) or `PRIOR`. A question's own scores count beside it as n - 1 against `OWN`:

    phi_i = (OWN phi v + (n - 1) s^2) / ((OWN + n - 1) v)

and its interval is Wilson's at n / (effect x phi_i) votes. `effect` is the design effect: the variance of a mean over
what independent rollouts would have. First tokens are stratified (`sequela.rollout.engine.sampling.openings`), so it
may be far below 1. The halves by the parity of the rollouts' numbers are independent: with means a and b of n and k
scores, (a - b)^2 n k / (n + k) has the variance of one score as its expectation if scores are independent, and its sum
over that of s^2 estimates the effect.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sequela.rollout.estimators import RiskEstimates, check_estimator, normal_quantile, wilson

OWN = 20.0  # rollouts of its own that weigh as much as the run's overdispersion
FEW = 20.0  # questions that weigh as much as what was known before of overdispersion
HALVES = 10.0  # and of the effect: fewer, since no effect is a cautious guess where the first token says much
SURELY = 1 + 1e-6  # overdispersion that votes cannot have, nor any scores between 0 and 1
LEAST = 1e-6  # of a ratio: scores that are all equal have none


@dataclass(frozen=True)
class Spread:
    """See above; `questions` is how many questions' worth of evidence there is."""

    overdispersion: float
    effect: float = 1.0
    questions: float = 0.0

    def updated(self, answers: RiskEstimates) -> Spread:
        """This spread, known before, together with what the questions of a run say.

        Both ratios of sums are led by the questions with much variance, so they count as the effective number of terms,
        (sum x)^2 / sum x^2.
        """
        square, chance = answers.variance, _chance(answers)
        known = np.isfinite(square)
        square, chance = square[known], chance[known]
        halves = answers.discord[known]
        whole = np.isfinite(halves)
        return Spread(
            _shrunk(self.overdispersion, square.sum(), chance, FEW),
            _shrunk(self.effect, halves[whole].sum(), square[whole], HALVES),
            _terms(chance),
        )


# The largest of the cohorts that were measured: .1 for death in intensive care, .06 to .3 for diagnoses and death in
# the NAFLD cohort (scope, independent rollouts). Too large a value makes intervals wide, too small a one makes them
# miss, so what nothing is known of starts there.
PRIOR = Spread(0.3)
VOTES = Spread(1.0)  # of "mc", whatever the cohort


def prior(estimator: str) -> Spread:
    """What holds before any score of a cohort is known.

    Raises:
        ValueError: for an unknown estimator.
    """
    check_estimator(estimator)
    return VOTES if estimator == "mc" else PRIOR


def spread_of(answers: RiskEstimates, estimator: str, before: Spread | None = None) -> Spread:
    """The spread of the scores of a run. `before`: known of others, such as tuning patients; None: `prior`."""
    known = before or prior(estimator)
    found = known.updated(answers)
    return Spread(1.0, found.effect, found.questions) if estimator == "mc" else found


def interval(
    answers: RiskEstimates, spread: Spread, confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Confidence interval, float64 [Q] and [Q], of the model's risk: from sampling error alone, inside [0, 1], and NaN
    without an answer.

    >>> from sequela.rollout.estimators import answers
    >>> votes = answers(np.array([[0.0] * 10, [1.0, 0.0] * 5]))
    >>> low, high = interval(votes, VOTES)
    >>> low.round(3), high.round(3)
    (array([0.   , 0.237]), array([0.278, 0.763]))
    """
    freedom = np.maximum(answers.effective - 1, 0)
    return limits(answers.value, answers.variance, answers.effective, freedom, spread, confidence)


def limits(
    mean: np.ndarray,
    variance: np.ndarray,
    count: np.ndarray,
    freedom: np.ndarray | float,
    spread: Spread,
    confidence: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Interval of the mean of `count` scores whose variance was estimated with `freedom` degrees of freedom.

    Scores that vary more than votes go beyond 1, so their means do not come to rest near 1, as Wilson has it: there the
    interval reaches up at least as far as the plain normal one.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        square, chance = np.nan_to_num(variance), _bernoulli(mean, variance, count)
        own = np.where(chance > 0, freedom * square / chance, 0)
        own = (OWN * spread.overdispersion + own) / (OWN + np.where(chance > 0, freedom, 0))
        votes = count / (spread.effect * own)
        low, high = wilson(np.clip(mean, 0, 1), votes, confidence)
        plain = mean + normal_quantile(confidence) * np.sqrt(chance / votes)
        high = np.where(own > SURELY, np.clip(plain, high, 1), high)
    some = count > 0
    return np.where(some, low, np.nan), np.where(some, high, np.nan)


def _chance(answers: RiskEstimates) -> np.ndarray:
    return _bernoulli(answers.value, answers.variance, answers.effective)


def _bernoulli(mean: np.ndarray, variance: np.ndarray, count: np.ndarray) -> np.ndarray:
    """v, the variance of a vote.

    Where the mean is nearer to 1 than its standard error, or beyond, as the sums of "scope" can be, it counts as one
    standard error below: means of scores between 0 and 1 are never so near.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        square = np.nan_to_num(variance) / count
    near = np.minimum(mean, np.maximum(1 - np.sqrt(square), 0.5))
    return near * (1 - near) + square


def _shrunk(before: float, total: float, terms: np.ndarray, few: float) -> float:
    """`total` over the sum of the terms, and the ratio known before as if `few` terms more had had it.

    By their logarithms, since ratios of rare outcomes are smaller by orders of magnitude.
    """
    count = _terms(terms)
    if not count:
        return before
    ratio = max(float(total / terms.sum()), LEAST)
    return float(np.exp((few * np.log(before) + count * np.log(ratio)) / (few + count)))


def _terms(x: np.ndarray) -> float:
    """How many equal terms would make a sum as sure as these do."""
    return float(x.sum() ** 2 / (x**2).sum()) if x.any() else 0.0
