"""Recalibration: maps from the risks of a simulation to risks that fit what happened to other patients.

Both keep the order of risks, the isotonic one with ties: "logistic" is a line in logits (Cox 1958), "isotonic" the
rising steps that fit best (Zadrozny and Elkan 2002), read between the middles of the steps. Fitted where the answer is
known, with weights that let these patients stand for those who were lost (`sequela.task.scoring.censoring`).

Of 60 patients with the outcome, chance alone moves observed over expected by an eighth, more than most models are off.
So the line starts from what a sound model has, no shift and a slope of 1, and moves as far as the outcomes can tell:
`SOUND` is the standard deviation of shift and slope around these, a normal prior (docs/records/risks.md has others).

The noise of few rollouts flattens the slope of any risk, however sound. So before the line comes what undoes just that:
risks are drawn towards their mean (`Credibility`). How far depends on the number of rollouts, and so does the map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sequela.task.scoring.slope import logistic_fit

SOUND = 0.15
LEAST = 0.05  # share that is left where noise hides all differences, so that risks keep their order
FEWEST = 10  # of those with the outcome, and of those without it; with fewer, a map says more about chance


@dataclass(frozen=True)
class Credibility:
    """p -> mean + share (p - mean): the best guess of the risk that many more rollouts would show (Buhlmann 1967).

    `share` is that of the variance between patients which is not noise. For votes about risks with a beta distribution
    this is their posterior mean.
    """

    mean: float = 0.0
    share: float = 1.0

    @staticmethod
    def of(risk_N: np.ndarray, noise: float) -> Credibility:
        """Of the risks of some patients, whose sampling errors have the mean square `noise`; NaN: not known.

        >>> Credibility.of(np.array([0.1, 0.3, 0.5]), 0.01)
        Credibility(mean=0.3, share=0.75)
        """
        variance = float(np.var(risk_N, ddof=1)) if len(risk_N) > 1 else 0.0
        if not (np.isfinite(noise) and variance > 0):
            return Credibility()
        return Credibility(round(float(np.mean(risk_N)), 9), round(max(1 - noise / variance, LEAST), 9))

    def __call__(self, risk: np.ndarray) -> np.ndarray:
        """The risks, drawn towards the mean; they keep their order."""
        return self.mean + self.share * (risk - self.mean)


WHOLE = Credibility()


@dataclass(frozen=True)
class Logistic:
    """logit(p) -> intercept + slope logit(p), for a risk p made credible, at least `floor` and at most 1 - `floor`."""

    intercept: float
    slope: float
    floor: float
    credibility: Credibility = WHOLE

    def __call__(self, risk: np.ndarray) -> np.ndarray:
        """The recalibrated risks, NaN where there are none.

        >>> Logistic(0.0, 1.0, 1e-6)(np.array([0.25, np.nan])).round(3)
        array([0.25,  nan])
        """
        p = np.clip(self.credibility(risk), self.floor, 1 - self.floor)
        return 1 / (1 + np.exp(-(self.intercept + self.slope * np.log(p / (1 - p)))))


@dataclass(frozen=True)
class Isotonic:
    """Straight lines between knots; below the first and above the last one, the risk of that knot."""

    risk: tuple[float, ...]
    recalibrated: tuple[float, ...]

    def __call__(self, risk: np.ndarray) -> np.ndarray:
        """The recalibrated risks, NaN where there are none.

        >>> Isotonic((0.1, 0.3), (0.0, 0.4))(np.array([0.05, 0.2, 0.9, np.nan])).round(3)
        array([0. , 0.2, 0.4, nan])
        """
        return np.where(np.isnan(risk), np.nan, np.interp(np.nan_to_num(risk), self.risk, self.recalibrated))


Recalibrator = Callable[[np.ndarray], np.ndarray]


def enough(outcome_N: np.ndarray) -> bool:
    """Whether these known outcomes are enough to fit a map."""
    events = int(outcome_N.sum())
    return min(events, len(outcome_N) - events) >= FEWEST


def fit_logistic(
    outcome_N: np.ndarray,
    risk_N: np.ndarray,
    weights_N: np.ndarray,
    floor: float,
    prior: float | None = None,
    credibility: Credibility = WHOLE,
) -> Logistic | None:
    """The weighted maximum of likelihood; None if there is none, or it would turn the order of the risks.

    A prior keeps a line from turning the order where few outcomes speak for it.

    Args:
        credibility: what is done to risks before the line.
        prior: the maximum of the posterior instead, with this standard deviation of the slope, and of the shift where
            events are expected. The weights then count as so many patients as there are rows with one.
    """
    risk_N = np.clip(credibility(risk_N), floor, 1 - floor)
    if not (0 < weights_N.sum() < np.inf and np.isfinite(risk_N).all()):
        return None
    if prior is None:
        intercept, slope = logistic_fit(outcome_N, risk_N, weights_N)
    else:
        intercept, slope = _likeliest(outcome_N, risk_N, weights_N * ((weights_N > 0).sum() / weights_N.sum()), prior)
    return Logistic(float(intercept), float(slope), floor, credibility) if slope > 0 else None


def _likeliest(
    outcome_N: np.ndarray, risk_N: np.ndarray, weights_N: np.ndarray, prior: float
) -> tuple[float, float]:
    from scipy.optimize import minimize
    from scipy.special import logit

    logit_N = logit(risk_N)
    center = np.average(logit_N, weights=weights_N * risk_N)
    off_N = logit_N - center

    def loss(moved: np.ndarray) -> tuple[float, np.ndarray]:
        shift, slope = moved
        fitted = center + shift + slope * off_N
        wrong = weights_N * (1 / (1 + np.exp(-fitted)) - outcome_N)
        away = (moved - (0, 1)) / prior
        nats = weights_N @ (np.logaddexp(0, fitted) - outcome_N * fitted) + away @ away / 2
        return float(nats), np.array([wrong.sum(), wrong @ off_N]) + away / prior

    shift, slope = minimize(loss, (0.0, 1.0), jac=True, method="BFGS").x
    return center + shift - slope * center, slope


def fit_isotonic(outcome_N: np.ndarray, risk_N: np.ndarray, weights_N: np.ndarray) -> Isotonic:
    """Weighted least squares among rising functions, by pooling adjacent violators."""
    means: list[float] = []
    masses: list[float] = []
    middles: list[float] = []
    for risk in np.unique(risk_N):
        same = (risk_N == risk) & (weights_N > 0)
        mass = float(weights_N[same].sum())
        if not mass:
            continue
        means.append(float(outcome_N[same] @ weights_N[same]) / mass)
        masses.append(mass)
        middles.append(float(risk))
        while len(means) > 1 and means[-2] >= means[-1]:
            mass = masses[-2] + masses[-1]
            for values in (means, middles):
                last = values.pop()
                values[-1] = (values[-1] * masses[-2] + last * masses[-1]) / mass
            masses.pop()
            masses[-1] = mass
    return Isotonic(tuple(middles), tuple(means))
