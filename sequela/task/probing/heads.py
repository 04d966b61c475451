"""Heads on frozen vectors: logistic for probabilities, ridge for numbers, and Cox for waits that may be censored.

The protocol of EHRSHOT (Wornow et al. 2023, arXiv 2307.02028): the scaler and the head are fitted on training patients,
the penalty is the one whose head does best on the tuning patients, and the head that answers is the one that was fitted
on training patients alone. A patient with several rows counts as one: each row counts 1 / n, times the weight that
makes those who were followed stand for those who were not.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge

from sequela.record.duration import DAY
from sequela.task.baselines.baseline import Model, TrainingSample, one_thread, standardizer
from sequela.task.baselines.cox import fit_hazard, risk
from sequela.task.scoring.metric import AUROC
from sequela.task.task import Task

INVERSE_PENALTIES = (1e-8, 1e-6, 1e-4, 1e-2, 1e-1, 1.0, 1e2, 1e4)  # EHRSHOT's C of logistic heads
RIDGES = (1e6, 1e5, 1e4, 1e3, 1e2, 1e1, 1.0, 1e-2)
HAZARD_RIDGES = (1e4, 1e3, 1e2, 1e1, 1.0)
TOLERANCE, MOST_STEPS = 1e-4, 1000
COMPONENTS = 50  # that a Cox head reads of a vector, where there are fewer than FEW rows for each of its numbers
FEW = 5
Scaler = Callable[[np.ndarray], Model]
"""Training vectors [N, D] -> what a head reads of a vector."""


@dataclass(frozen=True, eq=False)
class ProbeRows:
    """Rows of one split: their vectors and what happened.

    Attributes:
        patient: int64 [N].
        sample: the vectors as features, and the labels.
    """

    patient: np.ndarray
    sample: TrainingSample

    @cached_property
    def weights(self) -> np.ndarray:
        """float64 [N]: censoring weights, 0 without an outcome, shared by the rows of a patient with one."""
        known = self.sample.decided
        patients, of = np.unique(self.patient, return_inverse=True)
        count = np.bincount(of, known, minlength=len(patients))
        return self.sample.weights / np.maximum(count, 1)[of]

    @cached_property
    def shares(self) -> np.ndarray:
        """float64 [N]: 1 / n for each of a patient's n rows."""
        _, of, count = np.unique(self.patient, return_inverse=True, return_counts=True)
        return 1 / count[of]

    def take(self, rows: np.ndarray) -> ProbeRows:
        """These rows, without those who were lost, so that each stands for itself."""
        sample = self.sample
        return ProbeRows(
            self.patient[rows],
            TrainingSample(sample.values[rows], sample.outcome[rows], sample.until_days[rows], ~sample.decided[rows]),
        )


@dataclass(frozen=True, eq=False)
class Head:
    """A fitted head.

    Attributes:
        predict: vectors [N, D] -> probabilities, or numbers, [N].
        penalty: the one chosen: C of a logistic head, else the ridge.
        scores: on the tuning patients by penalty: AUROC, or the mean absolute error.
    """

    predict: Model
    penalty: float
    scores: Mapping[float, float]


@one_thread
def fit_linear(task: Task, train: ProbeRows, tuning: ProbeRows) -> Head:
    """The logistic head, or the ridge of a task whose answers are numbers."""
    return fit_ridge(train, tuning, task.asks.valid.low) if task.asks.numeric else fit_logistic(train, tuning)


def fit_logistic(
    train: ProbeRows,
    tuning: ProbeRows,
    scaler: Scaler = standardizer,
    penalties: Sequence[float] = INVERSE_PENALTIES,
) -> Head:
    """Penalized logistic regression on standardized vectors, chosen by AUROC on the tuning patients."""
    known = train.sample.decided
    scale = scaler(train.sample.values)
    values, outcome, weights = scale(train.sample.values[known]), train.sample.outcome[known], train.weights[known]

    def fit(inverse: float) -> Model:
        model = LogisticRegression(C=inverse, tol=TOLERANCE, max_iter=MOST_STEPS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the protocol stops there
            model.fit(values, outcome, sample_weight=weights)
        return lambda x_ND: model.predict_proba(scale(x_ND))[:, 1]

    return _chosen(fit, penalties, lambda model: _auroc(model, tuning), higher=True)


def fit_ridge(
    train: ProbeRows,
    tuning: ProbeRows,
    lowest: float,
    scaler: Scaler = standardizer,
    penalties: Sequence[float] = RIDGES,
) -> Head:
    """Ridge regression on standardized vectors, chosen by the mean absolute error on the tuning patients.

    Args:
        lowest: of a prediction; numbers that cannot be below 0 are fitted on a logarithm.
    """
    there, back = np.asarray, np.asarray
    if lowest == 0:
        there, back = np.log1p, lambda x: np.clip(np.expm1(x), 0, None)
    known, judged = train.sample.decided, tuning.sample.decided
    scale = scaler(train.sample.values)
    values, weights = scale(train.sample.values[known]), train.weights[known]
    number = there(train.sample.outcome[known])

    def fit(ridge: float) -> Model:
        model = Ridge(alpha=ridge).fit(values, number, sample_weight=weights)
        return lambda x_ND: back(model.predict(scale(x_ND)))

    def error(model: Model) -> float:
        off = np.abs(model(tuning.sample.values[judged]) - tuning.sample.outcome[judged])
        return float(np.average(off, weights=tuning.weights[judged]))

    return _chosen(fit, penalties, error, higher=False)


@one_thread
def fit_cox(task: Task, train: ProbeRows, tuning: ProbeRows) -> Head | None:
    """The risk at the task's horizon by Cox regression, with what ends the wait as a competing event.

    Of a vector with more numbers than a fifth of the rows it reads 50 principal components, those of the training
    patients.

    Returns:
        None for a task without a horizon, or one whose answer is no probability.
    """
    if task.asks.numeric or task.horizon is None:
        return None
    days, sample, weights = task.horizon / DAY, train.sample, train.shares
    read = _components(sample.values)
    values = read(sample.values)
    happened, ended = sample.outcome == 1, (sample.outcome == 0) & (sample.until_days < days)

    def fit(ridge: float) -> Model:
        event = fit_hazard(values, sample.until_days, happened, ridge, weights)
        other = fit_hazard(values, sample.until_days, ended, ridge, weights) if ended.any() else None
        return lambda x_ND: np.clip(risk(read(x_ND), event, other, days), 0, 1)

    return _chosen(fit, HAZARD_RIDGES, lambda model: _auroc(model, tuning), higher=True)


def _components(values_ND: np.ndarray) -> Model:
    """Standardized vectors, or with few rows their principal components, standardized."""
    scale = standardizer(values_ND)
    rows, width = values_ND.shape
    if rows >= FEW * width or width <= COMPONENTS:
        return scale
    values = scale(values_ND)
    center_D = values.mean(axis=0)
    _, _, axes_KD = np.linalg.svd(values - center_D, full_matrices=False)
    axes_KD = axes_KD[:COMPONENTS]
    again = standardizer((values - center_D) @ axes_KD.T)
    return lambda x_ND: again((scale(x_ND) - center_D) @ axes_KD.T)


def _auroc(model: Model, rows: ProbeRows) -> float:
    known = rows.sample.decided
    prediction = model(rows.sample.values[known])
    return float(AUROC(rows.sample.outcome[known], prediction, rows.weights[known]))


def _chosen(
    fit: Callable[[float], Model], penalties: Sequence[float], judge: Callable[[Model], float], *, higher: bool
) -> Head:
    """The best of the heads by what tuning patients say; of equal ones the most penalized, which comes first."""
    models = {penalty: fit(penalty) for penalty in penalties}
    scores = {penalty: judge(model) for penalty, model in models.items()}
    sign = 1 if higher else -1
    best = max(penalties, key=lambda penalty: np.nan_to_num(sign * scores[penalty], nan=-np.inf))
    return Head(models[best], best, scores)
