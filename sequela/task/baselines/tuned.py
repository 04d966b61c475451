"""A baseline as strong as its features allow: linear models and trees, tuned on tuning patients.

Every candidate is fitted on the training patients. The tuning patients alone choose: the penalty of the linear model,
the size and number of the trees, and then the linear model, the trees, or the mean of both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge

from sequela.task.baselines.baseline import (
    FEWEST,
    Model,
    TrainingSample,
    both_classes,
    fit_trees,
    one_thread,
    standardizer,
)
from sequela.task.task import Task

INVERSE_PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1)
LEAVES = (4, 10)
MOST_TREES, STEP = 180, 10  # of so many trees, each multiple of the step is tried
COLUMNS_A_SPLIT = 40  # about so many columns are tried for a split
TREES = {"learning_rate": 0.08, "min_samples_leaf": 30, "l2_regularization": 20.0, "max_bins": 63}
LINEAR, BOOSTED, MEAN = "linear", "trees", "mean"
SURELY = 1e-6  # no probability is nearer to 0 or 1


@dataclass(frozen=True, eq=False)
class Tuned:
    """The chosen model.

    Attributes:
        predict: features -> predictions.
        chosen: `LINEAR`, `BOOSTED` or `MEAN` (of both).
        losses: of the best of each, on the tuning patients: log loss, or the mean absolute error of numbers.
    """

    predict: Model
    chosen: str
    losses: Mapping[str, float]


@one_thread
def fit_tuned(task: Task, train: TrainingSample, tuning: TrainingSample, seed: int = 0) -> Tuned | None:
    """Fit on `train`, choose on `tuning`; None if either has too few patients, or was not followed for long enough."""
    if not (_suffices(task, train) and _suffices(task, tuning)):
        return None
    numeric = task.asks.numeric
    linear, boosted = (_ridges, _regressions) if numeric else (_logistics, _classifications)
    lowest = task.asks.valid.low if numeric else None
    candidates = {
        LINEAR: _best(linear(train, tuning, lowest), tuning, numeric),
        BOOSTED: _best(boosted(train, tuning, lowest, seed), tuning, numeric),
    }
    models = {name: model for name, (model, _) in candidates.items()}
    tried = {name: prediction for name, (_, prediction) in candidates.items()}
    tried[MEAN] = (tried[LINEAR] + tried[BOOSTED]) / 2
    models[MEAN] = lambda values_NF: (models[LINEAR](values_NF) + models[BOOSTED](values_NF)) / 2
    losses = {name: _loss(tuning, prediction, numeric) for name, prediction in tried.items()}
    chosen = min(losses, key=lambda name: losses[name])
    return Tuned(one_thread(models[chosen]), chosen, losses)


Candidate = tuple[Model, np.ndarray]
"""A fitted model, and its predictions for the tuning patients."""


def _suffices(task: Task, sample: TrainingSample) -> bool:
    if sample.decided.sum() < 2 * FEWEST or not sample.identified:
        return False
    return task.asks.numeric or both_classes(sample)


def _best(candidates: Iterator[Candidate], tuning: TrainingSample, numeric: bool) -> Candidate:
    return min(candidates, key=lambda candidate: _loss(tuning, candidate[1], numeric))


def _loss(tuning: TrainingSample, prediction: np.ndarray, numeric: bool) -> float:
    """The mean loss over the tuning patients, with censoring weights."""
    known = tuning.decided
    outcome, predicted = tuning.outcome[known], prediction[known]
    if numeric:
        each = np.abs(outcome - predicted)
    else:
        sure = np.clip(predicted, SURELY, 1 - SURELY)
        each = -np.where(outcome == 1, np.log(sure), np.log(1 - sure))
    return float(np.average(each, weights=tuning.weights[known]))


def _logistics(train: TrainingSample, tuning: TrainingSample, _lowest: float | None) -> Iterator[Candidate]:
    scale, known = standardizer(train.values), train.decided
    values, asked = scale(train.values[known]).astype(np.float32), scale(tuning.values)
    for inverse in INVERSE_PENALTIES:
        model = LogisticRegression(C=inverse, max_iter=1000)
        model.fit(values, train.outcome[known], sample_weight=train.weights[known])
        yield _scaled(lambda x, model=model: model.predict_proba(x)[:, 1], scale), model.predict_proba(asked)[:, 1]


def _ridges(train: TrainingSample, tuning: TrainingSample, lowest: float | None) -> Iterator[Candidate]:
    """Numbers that cannot be negative on the logarithm."""
    there, back = np.asarray, np.asarray
    if lowest == 0:
        there, back = np.log1p, lambda x: np.clip(np.expm1(x), 0, None)
    scale, known = standardizer(train.values), train.decided
    values, asked = scale(train.values[known]), scale(tuning.values)
    for inverse in INVERSE_PENALTIES:
        model = Ridge(alpha=1 / inverse)
        model.fit(values, there(train.outcome[known]), sample_weight=train.weights[known])
        yield _scaled(lambda x, model=model: back(model.predict(x)), scale), back(model.predict(asked))


def _classifications(
    train: TrainingSample, tuning: TrainingSample, _lowest: float | None, seed: int
) -> Iterator[Candidate]:
    for leaves in LEAVES:
        model = HistGradientBoostingClassifier(**_trees(train, leaves, seed))
        fit_trees(model, train)
        staged = model.staged_predict_proba
        yield from _stages(lambda x, staged=staged: (each[:, 1] for each in staged(x)), tuning)


def _regressions(
    train: TrainingSample, tuning: TrainingSample, lowest: float | None, seed: int
) -> Iterator[Candidate]:
    for leaves in LEAVES:
        model = HistGradientBoostingRegressor(loss="absolute_error", **_trees(train, leaves, seed))
        fit_trees(model, train)
        staged = model.staged_predict
        yield from _stages(
            lambda x, staged=staged: (np.clip(each, lowest, None) for each in staged(x)), tuning
        )


def _trees(train: TrainingSample, leaves: int, seed: int) -> dict:
    share = min(1.0, COLUMNS_A_SPLIT / train.values.shape[1])
    return {
        **TREES,
        "max_iter": MOST_TREES,
        "max_leaf_nodes": leaves,
        "max_features": share,
        "random_state": seed % 2**32,
    }


def _stages(staged, tuning: TrainingSample) -> Iterator[Candidate]:
    """The first 10, 20, ... of the trees."""
    for number, prediction in enumerate(staged(tuning.values), start=1):
        if number % STEP == 0:
            yield lambda x, number=number: _nth(staged(x), number), np.asarray(prediction)


def _nth(stages: Iterator[np.ndarray], number: int) -> np.ndarray:
    for _ in range(number - 1):
        next(stages)
    return np.asarray(next(stages))


def _scaled(model: Model, scale: Model) -> Model:
    return lambda values_NF: model(scale(values_NF))
