"""Weighted metrics of predictions, each prepared once and then measured for one set of weights or for many.

Shapes: N rows (questions), M of them with a known outcome, R resamples. Weights are [M] or [M, R]; a metric is then a
number or [R]. Weights are those of `censoring_weights`. A metric that is not defined is NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sequela.task.scoring.areas import Ranking, ratio
from sequela.task.scoring.slope import SlopeFit
from sequela.task.scoring.sums import placed

BINS = 10


@dataclass(frozen=True, eq=False)
class ModelAnswers:
    """One model's answers.

    Attributes:
        outcome, prediction: float64 [M], where the outcome is known.
        everyone: float64 [N], the predictions of all questions.
    """

    outcome: np.ndarray
    prediction: np.ndarray
    everyone: np.ndarray


@dataclass(frozen=True, eq=False)
class Weights:
    """How much every row counts.

    Attributes:
        known: [M] or [M, R], of the rows with a known outcome.
        copies: [N] or [N, R], how often each row counts; what the weights were made from.
        observed: the weighted mean of the outcome, a number or [R].
    """

    known: np.ndarray
    copies: np.ndarray
    observed: np.ndarray

    @cached_property
    def total(self) -> np.ndarray:
        """The sum of `known`."""
        return self.known.sum(axis=0)

    @cached_property
    def count(self) -> np.ndarray:
        """The sum of `copies`."""
        return self.copies.sum(axis=0)


Measure = Callable[[Weights], tuple[np.ndarray, ...]]
"""Weights -> the values of metrics that are measured together."""
Prepare = Callable[[ModelAnswers], Measure]
"""Works out all that does not depend on weights."""


@dataclass(frozen=True)
class Metric:
    """A metric, and how it is shown.

    Attributes:
        name: in metrics.json.
        prepare: makes its measure; metrics with the same one are measured together.
        part: which of the values of that measure is this metric.
        title: heading of a column in the terminal.
        page_title: the same on pages for people; empty: `title`.
        higher_is_better: else lower is; of metrics by which models are compared.
        in_units: whether it is in the unit of the outcome.
    """

    name: str
    prepare: Prepare
    title: str
    part: int = 0
    page_title: str = ""
    higher_is_better: bool = False
    in_units: bool = False

    def margin(self, share: float, other: float) -> float:
        """Which difference from a model that scores `other` is none: `share`, or of an error that share of it."""
        return share if self.higher_is_better else share * abs(other)

    def __call__(
        self,
        outcome_N: np.ndarray,
        prediction_N: np.ndarray,
        weights: np.ndarray,
        copies: np.ndarray | None = None,
    ) -> np.ndarray:
        """The metric of these rows, a number or [R].

        Args:
            weights: [N] or [N, R]; 0 where the outcome is not known.
            copies: how often each row counts, what `weights` were made from; None: the weights.
        """
        observed = ratio(outcome_N @ weights, weights.sum(axis=0))
        answers = ModelAnswers(outcome_N, prediction_N, prediction_N)
        measured = self.prepare(answers)(Weights(weights, weights if copies is None else copies, observed))
        return measured[self.part]


def _areas(answers: ModelAnswers) -> Measure:
    """AUROC, the probability that a random case is ranked above a random control, where ties count half; and average
    precision, the mean over the cases of the share of cases among those scored at least as high.

    >>> float(AUROC(np.array([1, 0, 1, 0]), np.array([0.9, 0.1, 0.4, 0.4]), np.ones(4)))
    0.875
    >>> round(float(AUPRC(np.array([1, 0, 1]), np.array([0.9, 0.5, 0.1]), np.ones(3))), 3)
    0.833
    """
    ranking = Ranking.of(answers.outcome, answers.prediction)
    return lambda weights: ranking.areas(weights.known)


def _ece(answers: ModelAnswers) -> Measure:
    """Expected calibration error: mean absolute gap of predicted and observed share over ten bins of equal width.

    >>> float(ECE(np.array([1, 0, 0, 0]), np.array([0.25, 0.25, 0.25, 0.25]), np.ones(4)))
    0.0
    """
    bin_M = np.clip((answers.prediction * BINS).astype(int), 0, BINS - 1)
    gaps = placed((answers.prediction - answers.outcome)[None], bin_M, BINS)
    return lambda weights: (ratio(np.abs(gaps @ weights.known).sum(axis=0), weights.total),)


def _slope(answers: ModelAnswers) -> Measure:
    """Slope b of the logistic regression logit P(outcome) = a + b logit(prediction) (Cox 1958).

    1 is right; below 1 the predictions are too extreme, above 1 too timid. NaN if the predictions are all equal, there
    is only one class, or the fit diverges because the classes are separable.

    >>> half = np.array([1, 0, 0, 0, 1, 1, 1, 0])  # one in four of the first group, three in four of the second
    >>> round(float(CALIBRATION_SLOPE(half, np.repeat([0.25, 0.75], 4), np.ones(8))), 3)
    1.0
    """
    fit = SlopeFit.of(answers.outcome, answers.prediction)
    return lambda weights: (fit.slope(weights.known),)


def _oe(answers: ModelAnswers) -> Measure:
    """Observed over expected: the incidence in the whole cohort over the mean prediction for the whole cohort.

    The weights make the known labels stand for everyone, so the mean prediction must be everyone's too. Above 1 the
    predictions are too low.

    >>> float(OE(np.array([1, 0]), np.array([0.25, 0.25]), np.ones(2)))
    2.0
    """
    return lambda weights: (ratio(weights.observed, ratio(answers.everyone @ weights.copies, weights.count)),)


def averaged(
    loss: Callable[[np.ndarray, np.ndarray], np.ndarray],
    then: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> Prepare:
    """The preparation of a metric that is `then` of the mean `loss`, of (outcome, prediction), over the rows."""

    def prepare(answers: ModelAnswers) -> Measure:
        loss_M = loss(answers.outcome, answers.prediction)
        return lambda weights: (then(ratio(loss_M @ weights.known, weights.total)),)

    return prepare


def _squared_logarithms(outcome_M: np.ndarray, prediction_M: np.ndarray) -> np.ndarray:
    return (np.log1p(prediction_M) - np.log1p(outcome_M)) ** 2


AUROC = Metric("auroc", _areas, "AUROC", higher_is_better=True)
AUPRC = Metric("auprc", _areas, "AUPRC", part=1, higher_is_better=True)
# of probabilities: the mean squared difference of probability and outcome
BRIER = Metric("brier", averaged(lambda outcome, prediction: (prediction - outcome) ** 2), "Brier")
ECE = Metric("ece", _ece, "ECE")
CALIBRATION_SLOPE = Metric("calibration_slope", _slope, "slope")
OE = Metric("oe", _oe, "O/E")
MAE = Metric(
    "mae",
    averaged(lambda outcome, prediction: np.abs(prediction - outcome)),
    "MAE",
    page_title="mean error",
    in_units=True,
)
# root mean squared difference of log(1 + prediction) and log(1 + outcome); neither may be negative
RMSLE = Metric("rmsle", averaged(_squared_logarithms, np.sqrt), "RMSLE")
