"""Weighted metrics of predictions, each for one set of weights or for a thousand resamples at once.

Shapes: N rows (questions), R resamples. `weights` is [N] or [N, R]; the result is then a number or [R]. Weights are
those of `censoring_weights`, so rows without a known label weigh 0. A metric that is not defined is NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

BINS = 10
NEWTON_STEPS = 25
CLIP = 1e-6  # logits of 0 and 1 are infinite; a rollout share of 0 of 25 is such a 0


@dataclass(frozen=True)
class Metric:
    """A metric, and how it is shown.

    Attributes:
        name: in metrics.json.
        measure: (outcome_N, prediction_N, weights) over the rows with a known outcome -> a number or [R]; with
            `whole_cohort` over all rows, and (.., copies), how often each of them counts, as a fourth argument.
        title: heading of a column in the terminal.
        page_title: the same on pages for people; empty: `title`.
        higher_is_better: else lower is; of metrics by which models are compared.
        in_units: whether it is in the unit of the outcome.
        whole_cohort: see `measure`.
    """

    name: str
    measure: Callable[..., np.ndarray]
    title: str
    page_title: str = ""
    higher_is_better: bool = False
    in_units: bool = False
    whole_cohort: bool = False


def auroc(outcome_N: np.ndarray, prediction_N: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Probability that a random case is ranked above a random control; ties count half.

    >>> float(auroc(np.array([1, 0, 1, 0]), np.array([0.9, 0.1, 0.4, 0.4]), np.ones(4)))
    0.875
    """
    cases, total = _by_score(outcome_N, prediction_N, weights)
    controls = total - cases
    above = np.cumsum(controls, axis=0) - controls / 2
    all_pairs = cases.sum(axis=0) * controls.sum(axis=0)
    return 1 - _ratio((cases * above).sum(axis=0), all_pairs)


def auprc(outcome_N: np.ndarray, prediction_N: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average precision: mean over the cases of the share of cases among those scored at least as high.

    >>> round(float(auprc(np.array([1, 0, 1]), np.array([0.9, 0.5, 0.1]), np.ones(3))), 3)
    0.833
    """
    cases, total = _by_score(outcome_N, prediction_N, weights)
    reached = np.cumsum(total, axis=0)
    precision = np.divide(np.cumsum(cases, axis=0), reached, out=np.zeros_like(reached), where=reached > 0)
    return _ratio((cases * precision).sum(axis=0), cases.sum(axis=0))


def brier(outcome_N: np.ndarray, prediction_N: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean squared difference of probability and outcome.

    >>> float(brier(np.array([1, 0]), np.array([0.5, 0.5]), np.ones(2)))
    0.25
    """
    return _mean((prediction_N - outcome_N) ** 2, weights)


def ece(outcome_N: np.ndarray, prediction_N: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Expected calibration error: mean absolute gap of predicted and observed share over ten bins of equal width.

    >>> float(ece(np.array([1, 0, 0, 0]), np.array([0.25, 0.25, 0.25, 0.25]), np.ones(4)))
    0.0
    """
    bin_N = np.clip((prediction_N * BINS).astype(int), 0, BINS - 1)
    gap_BN = (bin_N == np.arange(BINS)[:, None]) * (prediction_N - outcome_N)
    return _ratio(np.abs(gap_BN @ weights).sum(axis=0), weights.sum(axis=0))


def calibration_slope(outcome_N: np.ndarray, prediction_N: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Slope b of the logistic regression logit P(outcome) = a + b logit(prediction) (Cox 1958).

    1 is right; below 1 the predictions are too extreme, above 1 too timid. NaN if the predictions are all equal, there
    is only one class, or the fit diverges because the classes are separable.

    >>> half = np.array([1, 0, 0, 0, 1, 1, 1, 0])  # one in four of the first group, three in four of the second
    >>> round(float(calibration_slope(half, np.repeat([0.25, 0.75], 4), np.ones(8))), 3)
    1.0
    """
    from scipy.special import logit  # here: who only lists metrics need not load scipy

    logit_N = logit(np.clip(prediction_N, CLIP, 1 - CLIP))
    if np.ptp(logit_N) < 1e-9:
        return np.full(weights.shape[1:], np.nan)
    centered_N = logit_N - logit_N.mean()
    if weights.ndim == 1:
        return _newton(outcome_N, centered_N, weights, np.zeros(()), np.zeros(()))[1]
    # every resample is close to their mean: starting there saves half of the steps
    a, b = np.nan_to_num(_newton(outcome_N, centered_N, weights.mean(axis=1), np.zeros(()), np.zeros(())))
    return _newton(outcome_N, centered_N, weights, np.full(weights.shape[1], a), np.full(weights.shape[1], b))[
        1
    ]


def _newton(
    outcome_N: np.ndarray, x_N: np.ndarray, weights: np.ndarray, a: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted logistic regression of the outcome on one variable: intercept and slope, NaN if there is no maximum."""
    from scipy.special import expit

    powers_3N = np.stack([np.ones_like(x_N), x_N, x_N**2])
    observed = (powers_3N[:2] * outcome_N) @ weights
    moved = np.zeros_like(b)
    for _ in range(NEWTON_STEPS):
        fitted = expit(a + np.multiply.outer(x_N, b))
        expected = weights * fitted
        residual = observed - powers_3N[:2] @ expected
        h0, h1, h2 = powers_3N @ (expected - expected * fitted)
        determinant = h0 * h2 - h1**2
        step_a = _ratio(h2 * residual[0] - h1 * residual[1], determinant)
        step_b = _ratio(h0 * residual[1] - h1 * residual[0], determinant)
        a, b = a + step_a, b + step_b
        moved = np.abs(step_a) + np.abs(step_b)
        if not np.any(moved > 1e-8):
            break
    converged = moved < 1e-6
    return np.where(converged, a, np.nan), np.where(converged, b, np.nan)


def oe(
    outcome_N: np.ndarray, prediction_N: np.ndarray, weights: np.ndarray, copies: np.ndarray
) -> np.ndarray:
    """Observed over expected: the incidence in the whole cohort over the mean prediction for the whole cohort.

    The rows are all questions, those without a known label with weight 0: the weights make the known labels stand for
    everyone, so the mean prediction must be everyone's too. Above 1 the predictions are too low.

    >>> float(oe(np.array([1, 0]), np.array([0.25, 0.25]), np.ones(2), np.ones(2)))
    2.0

    Args:
        copies: how often each row counts, [N] or [N, R]; what `weights` were made from.
    """
    return _ratio(_mean(outcome_N, weights), _mean(prediction_N, copies))


def mae(outcome_N: np.ndarray, prediction_N: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean absolute error, in the unit of the outcome.

    >>> float(mae(np.array([1.0, 3.0]), np.array([2.0, 3.0]), np.ones(2)))
    0.5
    """
    return _mean(np.abs(prediction_N - outcome_N), weights)


def rmsle(outcome_N: np.ndarray, prediction_N: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Root mean squared difference of log(1 + prediction) and log(1 + outcome); neither may be negative.

    >>> round(float(rmsle(np.array([0.0]), np.array([1.0]), np.ones(1))), 3)
    0.693
    """
    return np.sqrt(_mean((np.log1p(prediction_N) - np.log1p(outcome_N)) ** 2, weights))


def _by_score(
    outcome_N: np.ndarray, prediction_N: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weight of the cases, and of all rows, by prediction, highest first: [G] or [G, R] each.

    A group is a distinct prediction, or a run of predictions without a case: merging those changes neither area, and
    leaves little to add up if cases are few.
    """
    order = np.argsort(-prediction_N, kind="stable")
    ranked, case_N = prediction_N[order], outcome_N[order] > 0
    tie_N = np.cumsum(np.r_[True, ranked[1:] != ranked[:-1]]) - 1
    has_case_N = np.bincount(tie_N, case_N)[tie_N] > 0
    starts_N = np.r_[True, (tie_N[1:] != tie_N[:-1]) & (has_case_N[1:] | has_case_N[:-1])]
    ranked_weights = weights[order]
    total = np.add.reduceat(ranked_weights, np.flatnonzero(starts_N), axis=0)
    groups, first = np.unique((np.cumsum(starts_N) - 1)[case_N], return_index=True)
    cases = np.zeros_like(total)
    cases[groups] = np.add.reduceat(ranked_weights[case_N], first, axis=0)
    return cases, total


def _mean(values_N: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return _ratio(values_N @ weights, weights.sum(axis=0))


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """top / bottom, NaN if the bottom is 0."""
    top, bottom = np.broadcast_arrays(top, bottom)
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom != 0)


AUROC = Metric("auroc", auroc, "AUROC", higher_is_better=True)
AUPRC = Metric("auprc", auprc, "AUPRC", higher_is_better=True)
BRIER = Metric("brier", brier, "Brier")
ECE = Metric("ece", ece, "ECE")
CALIBRATION_SLOPE = Metric("calibration_slope", calibration_slope, "slope")
OE = Metric("oe", oe, "O/E", whole_cohort=True)
MAE = Metric("mae", mae, "MAE", "mean error", in_units=True)
RMSLE = Metric("rmsle", rmsle, "RMSLE")
