"""The calibration slope: a logistic regression of the outcome on the logit of the prediction, for many weights at once.

Every step of Newton's method needs the fitted probability of every row for every resample, each with an intercept and
a slope of its own. Of many rows these are not computed one by one: within a narrow interval of logits the probability
is a parabola to nine digits, so the weights' sums, first and second moments by interval say all about them, and a
step costs as much as the intervals are many, not the rows.

Shapes: N rows, R resamples, K intervals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sequela.task.scoring.areas import ratio
from sequela.task.scoring.sums import many, placed

NEWTON_STEPS = 25
CLIP = 1e-6  # logits of 0 and 1 are infinite; a rollout share of 0 of 25 is such a 0
INTERVALS = 1 << 11
STEEPEST = 0.1  # logits of the fit from one end of an interval to the other; beyond, a parabola is too rough
Sums = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Intercepts and slopes -> sums of the fitted probability [2] and of its derivative [3], times powers of the logit."""


@dataclass(frozen=True, eq=False)
class SlopeFit:
    """The rows of one model, for the calibration slope under many weights.

    Attributes:
        outcome: float64 [N], 1 or 0.
        logit: float64 [N], of the prediction, less the mean.
    """

    outcome: np.ndarray
    logit: np.ndarray

    @staticmethod
    def of(outcome_N: np.ndarray, prediction_N: np.ndarray) -> SlopeFit:
        """Probabilities of 0 and 1 are taken for CLIP and 1 - CLIP."""
        from scipy.special import logit  # here: who only lists metrics need not load scipy

        logit_N = logit(np.clip(prediction_N, CLIP, 1 - CLIP))
        return SlopeFit(outcome_N, logit_N - logit_N.mean())

    def slope(self, weights: np.ndarray) -> np.ndarray:
        """The slope, a number or [R]; NaN if the predictions are all equal, or the classes one or separable."""
        if np.ptp(self.logit) < 1e-9:
            return np.full(weights.shape[1:], np.nan)
        observed, none = self._observed @ weights, np.zeros(weights.shape[1:])
        if many(len(self.logit)):
            start = (none + x for x in self._start)
            slope = _newton(observed, self._by_interval(weights), *start)[1]
            if not np.any(np.abs(slope) * self._width > STEEPEST):
                return slope
        if weights.ndim == 1:
            return _newton(observed, self._by_row(weights), none, none)[1]
        # every resample is close to their mean: starting there saves half of the steps
        mean = weights.mean(axis=1)
        start = np.nan_to_num(_newton(self._observed @ mean, self._by_row(mean), np.zeros(()), np.zeros(())))
        return _newton(observed, self._by_row(weights), *(none + x for x in start))[1]

    @cached_property
    def _start(self) -> np.ndarray:
        """Intercept and slope if every row counts once, which is close to every resample; 0 if there are none."""
        once = np.ones_like(self.logit)
        fit = _newton(self._observed @ once, self._by_interval(once), np.zeros(()), np.zeros(()))
        return np.nan_to_num(np.array(fit))

    @cached_property
    def _powers(self) -> np.ndarray:
        return np.stack([np.ones_like(self.logit), self.logit, self.logit**2])

    @cached_property
    def _observed(self) -> np.ndarray:
        return self._powers[:2] * self.outcome

    def _by_row(self, weights: np.ndarray) -> Sums:
        from scipy.special import expit

        def sums(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            fitted = expit(a + np.multiply.outer(self.logit, b))
            expected = weights * fitted
            return self._powers[:2] @ expected, self._powers @ (expected - expected * fitted)

        return sums

    @property
    def _width(self) -> float:
        return float(np.ptp(self.logit)) / INTERVALS

    @cached_property
    def _intervals(self) -> tuple[np.ndarray, Any]:
        """The middles of the K intervals with rows; and what, times weights (`@`), gives their sums, times 1, the
        distance from the middle, and its square, [3 x K].
        """
        interval = ((self.logit - self.logit.min()) / self._width).astype(np.int64)
        filled, place = np.unique(np.minimum(interval, INTERVALS - 1), return_inverse=True)
        middles = self.logit.min() + self._width * (filled + 0.5)
        off = self.logit - middles[place]
        return middles, placed(np.stack([np.ones_like(off), off, off**2]), place, len(filled))

    def _by_interval(self, weights: np.ndarray) -> Sums:
        from scipy.special import expit

        middles, moments = self._intervals
        zeroth, first, second = (moments @ weights).reshape(3, len(middles), *weights.shape[1:])
        middle = middles.reshape(-1, *[1] * (weights.ndim - 1))
        powers = np.stack([np.ones_like(middles), middles, middles**2])

        def sums(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            fitted = expit(a + middle * b)
            rise = fitted - fitted * fitted
            steep = b * rise
            in_all = zeroth * fitted + first * steep + second * (b / 2 * steep * (1 - 2 * fitted))
            expected = powers[:2] @ in_all
            expected[1] += (first * fitted + second * steep).sum(axis=0)
            return expected, powers @ (zeroth * rise)

        return sums


def logistic_fit(outcome_N: np.ndarray, prediction_N: np.ndarray, weights_N: np.ndarray) -> tuple[float, float]:
    """Intercept and slope of the weighted logistic regression of the outcome on the logit of the prediction.

    NaN if the predictions are all equal, or the classes one or separable.

    >>> half = np.array([1, 0, 0, 0, 1, 1, 1, 0])
    >>> [round(x, 3) + 0.0 for x in logistic_fit(half, np.repeat([0.25, 0.75], 4), np.ones(8))]
    [0.0, 1.0]
    """
    from scipy.special import logit

    fit, none = SlopeFit.of(outcome_N, prediction_N), np.zeros(())
    if np.ptp(fit.logit) < 1e-9:
        return np.nan, np.nan
    intercept, slope = _newton(fit._observed @ weights_N, fit._by_row(weights_N), none, none)
    center = logit(np.clip(prediction_N, CLIP, 1 - CLIP)).mean()
    return float(intercept - slope * center), float(slope)


def _newton(observed: np.ndarray, sums: Sums, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted logistic regression of the outcome on one variable: intercept and slope, NaN if there is no maximum."""
    moved = np.zeros_like(b)
    for _ in range(NEWTON_STEPS):
        expected, (h0, h1, h2) = sums(a, b)
        residual = observed - expected
        determinant = h0 * h2 - h1**2
        step_a = ratio(h2 * residual[0] - h1 * residual[1], determinant)
        step_b = ratio(h0 * residual[1] - h1 * residual[0], determinant)
        a, b = a + step_a, b + step_b
        moved = np.abs(step_a) + np.abs(step_b)
        if not np.any(moved > 1e-8):
            break
    converged = moved < 1e-6
    return np.where(converged, a, np.nan), np.where(converged, b, np.nan)
