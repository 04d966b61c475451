"""Estimators: from the scores of rollouts to a risk with its Monte Carlo error.

For an outcome token set A, the hazard h_t = p(next token in A | prefix) is counted at every position up to and
including the one where the rollout stops counting: the outcome, death, or the token that moves the clock past the
moment of a competing end or past the horizon.
The score of one rollout is an unbiased estimate of the risk (arXiv 2602.03730):

- "mc": 1 if the outcome happened, else 0;
- "scope": the sum of h_t over an ordinary rollout; the mean may exceed 1;
- "reach": 1 - prod(1 - h_t) over a rollout sampled with A excluded and the remaining probabilities renormalized. Its
  variance never exceeds that of "mc" (Rao-Blackwell), but such a rollout serves one outcome only;
- "cv": over an ordinary rollout, whether the outcome happened less a control variate, D_1 + D_2 + ... With y and z for
  whether the outcome, or an end such as death, comes at a position, h and e for the chances that they do, and V for a
  guess at the risk that is made before the token is drawn (a value head's, moved on by the clock),

      D = (y - h) (1 - V) - (z - e) V

  Given all tokens before, V is a number and the expectations of y and z are h and e, so that of D is 0, and so is that
  of the sum: the mean of the score is the risk whatever V is. V = 0 is "scope". With Q for the true risk given all
  tokens so far, y and z move Q by 1 - Q and -Q and D by 1 - V and -V; steps of a martingale are uncorrelated, so

      variance  =  sum of  E[(V - Q + m)^2; the outcome or an end comes] + E[(Q' - Q + m)^2; another token comes]

  where m = h (1 - V) - e V and Q' is the risk after the token. A good V takes the first part away, as "reach" does, in
  a pool that serves all outcomes. The second is what other tokens say; it stays. So "cv" gains much over "scope" where
  risks are high, and next to nothing where they are low: there the first part is small anyhow.

Shape letters: Q questions, N rollouts per question (column j is rollout number j), K outcomes. A score is NaN if the
rollout gives no answer, or was not run.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Int


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
    "cv": Estimator("cv", "controlled", avoids=False),
}


@dataclass(frozen=True)
class RiskEstimates:
    """Estimated risks of Q questions; every field is an array [Q].

    Attributes:
        value: the unbiased mean. With "scope" it may exceed 1 (`risk` does not). NaN if no rollout gave an answer.
        standard_error: sampling error of `value`; NaN with fewer than two answers. It is the plug-in estimate of
            independent rollouts, so it is 0 when all scores are equal: report an interval
            (`sequela.rollout.spread.interval`), which never has zero width.
        discord: nk / (n + k) (a - b)^2 for the means a and b of the n scores with even numbers and the k others; NaN
            unless both have any.
        effective: the number of equally weighted rollouts that would carry the same information.
        rollouts: rollouts that gave an answer; `undecidable`: rollouts that did not.
        tokens: sampled over all rollouts.
    """

    value: Float[np.ndarray, "Q"]
    standard_error: Float[np.ndarray, "Q"]
    discord: Float[np.ndarray, "Q"]
    effective: Float[np.ndarray, "Q"]
    rollouts: Int[np.ndarray, "Q"]
    undecidable: Int[np.ndarray, "Q"]
    tokens: Int[np.ndarray, "Q"]

    @property
    def variance(self) -> Float[np.ndarray, "Q"]:
        """Of one score; NaN with fewer than two answers."""
        return self.standard_error**2 * self.effective

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
    s sqrt(sum(w^2)). With equal weights this is the usual mean and s / sqrt(n).

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
        effective = np.where(squares > 0, 1 / squares, 0.0)
    ran = np.ones_like(known) if tokens_QN is None else tokens_QN > 0
    tokens = np.zeros(len(x), np.int64) if tokens_QN is None else tokens_QN.sum(1)
    return RiskEstimates(value, error, _discord(x, known), effective, known.sum(1), (ran & ~known).sum(1), tokens)


def _discord(x: np.ndarray, known: np.ndarray) -> np.ndarray:
    counts = [known[:, half::2].sum(1) for half in (0, 1)]
    with np.errstate(invalid="ignore", divide="ignore"):
        means = [x[:, half::2].sum(1) / counts[half] for half in (0, 1)]
        return counts[0] * counts[1] / (counts[0] + counts[1]) * (means[0] - means[1]) ** 2


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


def normal_quantile(confidence: float) -> float:
    """Quantile of the normal distribution that leaves `confidence` between it and its negative.

    >>> round(normal_quantile(0.95), 3)
    1.96
    """
    return NormalDist().inv_cdf((1 + confidence) / 2)
