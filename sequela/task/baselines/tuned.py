"""A baseline as strong as its features allow: linear models and trees, tuned on tuning patients.

Every member is fitted on the training patients: a linear model on standardized features, another one on their normal
scores (ranks, spread like a normal distribution), boosted trees with few leaves, and some with more. The tuning
patients alone choose: the penalty of each linear model, the number of trees, and which members' mean is the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations, islice

import numpy as np
from scipy.special import ndtri
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
LEAVES = (6, 20)
MOST_TREES, STEP = 300, 20  # of so many trees, each multiple of the step is tried
COLUMNS_A_SPLIT = 40  # about so many columns are tried for a split
RANKS = 65  # quantiles that stand for the ranks of a column
TREES = {"learning_rate": 0.05, "min_samples_leaf": 30, "l2_regularization": 20.0, "max_bins": RANKS}
LINEAR, SCORES, SMALL, LARGE = "linear", "linear on normal scores", "small trees", "large trees"

SURELY = 1e-6  # no probability is nearer to 0 or 1


@dataclass(frozen=True, eq=False)
class Tuned:
    """The chosen mean.

    Attributes:
        predict: features -> predictions.
        chosen: its members, of `LINEAR`, `SCORES`, `SMALL` and `LARGE`.
        losses: of every mean on the tuning patients, by its members: log loss, or the absolute error of numbers.
    """

    predict: Model
    chosen: tuple[str, ...]
    losses: Mapping[tuple[str, ...], float]


@one_thread
def fit_tuned(task: Task, train: TrainingSample, tuning: TrainingSample, seed: int = 0) -> Tuned | None:
    """Fit on `train`, choose on `tuning`; None if either has too few patients, or was not followed for long enough."""
    if not (_suffices(task, train) and _suffices(task, tuning)):
        return None
    numeric = task.asks.numeric
    lowest = task.asks.valid.low if numeric else None
    linear, boosted = (_ridges, _regressions) if numeric else (_logistics, _classifications)
    quantiles = _Quantiles.of(train.values)
    scale = standardizer(quantiles.scores(train.values))
    candidates = {
        LINEAR: linear(train, tuning, lowest, standardizer(train.values)),
        SCORES: linear(train, tuning, lowest, lambda values_NF: scale(quantiles.scores(values_NF))),
        SMALL: boosted(train, tuning, lowest, _Growth(LEAVES[0], seed, quantiles)),
        LARGE: boosted(train, tuning, lowest, _Growth(LEAVES[1], seed, quantiles)),
    }
    best = {name: min(each, key=lambda one: _loss(tuning, one[1], numeric)) for name, each in candidates.items()}
    losses = {
        members: _loss(tuning, np.mean([best[name][1] for name in members], axis=0), numeric)
        for count in range(1, len(best) + 1)
        for members in combinations(best, count)
    }
    chosen = min(losses, key=lambda members: losses[members])
    models = [best[name][0] for name in chosen]
    predict = one_thread(lambda values_NF: np.mean([model(values_NF) for model in models], axis=0))
    return Tuned(predict, chosen, losses)


Candidate = tuple[Model, np.ndarray]
"""A fitted model, and its predictions for the tuning patients."""


def _suffices(task: Task, sample: TrainingSample) -> bool:
    if sample.decided.sum() < 2 * FEWEST or not sample.identified:
        return False
    return task.asks.numeric or both_classes(sample)


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


@dataclass(frozen=True, eq=False)
class _Quantiles:
    """The distinct quantiles of each column among some patients; None for a column without any value."""

    cuts: list[np.ndarray | None]

    @staticmethod
    def of(values_NF: np.ndarray) -> _Quantiles:
        shares = np.linspace(0, 1, RANKS)
        known = (column[~np.isnan(column)] for column in values_NF.T)
        return _Quantiles([np.unique(np.quantile(each, shares)) if len(each) else None for each in known])

    def scores(self, values_NF: np.ndarray) -> np.ndarray:
        """The normal quantiles of the ranks, float32 [N, F]."""

        def score(column: np.ndarray, cut: np.ndarray) -> np.ndarray:
            return ndtri(np.interp(column, cut, np.linspace(0.5 / RANKS, 1 - 0.5 / RANKS, len(cut))))

        return self._each(values_NF, score)

    def bins(self, values_NF: np.ndarray) -> np.ndarray:
        """The number of the bin, float32 [N, F]: at most `RANKS` - 1 of them, NaN if unknown."""
        return self._each(
            values_NF,
            lambda column, cut: np.where(np.isnan(column), np.nan, np.searchsorted(cut[1:-1], column, side="right")),
        )

    def _each(
        self, values_NF: np.ndarray, change: Callable[[np.ndarray, np.ndarray], np.ndarray]
    ) -> np.ndarray:
        out = np.full(values_NF.shape, np.nan, np.float32)
        for number, cut in enumerate(self.cuts):
            if cut is not None:
                out[:, number] = change(values_NF[:, number], cut)
        return out


def _logistics(
    train: TrainingSample, tuning: TrainingSample, _lowest: float | None, scale: Model
) -> Iterator[Candidate]:
    known = train.decided
    values, asked = scale(train.values[known]).astype(np.float32), scale(tuning.values)
    for inverse in INVERSE_PENALTIES:
        model = LogisticRegression(C=inverse, max_iter=1000)
        model.fit(values, train.outcome[known], sample_weight=train.weights[known])
        yield _scaled(lambda x, model=model: model.predict_proba(x)[:, 1], scale), model.predict_proba(asked)[:, 1]


def _ridges(
    train: TrainingSample, tuning: TrainingSample, lowest: float | None, scale: Model
) -> Iterator[Candidate]:
    """Numbers that cannot be negative on the logarithm."""
    there, back = np.asarray, np.asarray
    if lowest == 0:
        there, back = np.log1p, lambda x: np.clip(np.expm1(x), 0, None)
    known = train.decided
    values, asked = scale(train.values[known]), scale(tuning.values)
    for inverse in INVERSE_PENALTIES:
        model = Ridge(alpha=1 / inverse)
        model.fit(values, there(train.outcome[known]), sample_weight=train.weights[known])
        yield _scaled(lambda x, model=model: back(model.predict(x)), scale), back(model.predict(asked))


@dataclass(frozen=True, eq=False)
class _Growth:
    """How trees grow: `leaves` each, on columns in the bins of `quantiles`.

    scikit-learn finds the bins of weighted patients one by one, which takes longer than the trees.
    """

    leaves: int
    seed: int
    quantiles: _Quantiles

    def settings(self, columns: int) -> dict[str, object]:
        """The arguments of scikit-learn's models."""
        return {
            **TREES,
            "max_iter": MOST_TREES,
            "max_leaf_nodes": self.leaves,
            "max_features": min(1.0, COLUMNS_A_SPLIT / columns),
            "random_state": self.seed % 2**32,
        }

    def fit(self, model: HistGradientBoostingClassifier | HistGradientBoostingRegressor, train: TrainingSample) -> None:
        """Fit `model`."""
        fit_trees(model, replace(train, values=self.quantiles.bins(train.values)))

    def stages(
        self, staged: Callable[[np.ndarray], Iterator[np.ndarray]], tuning: TrainingSample
    ) -> Iterator[Candidate]:
        """The first 10, 20, ... of the trees."""
        bins = self.quantiles.bins
        for number, prediction in enumerate(staged(bins(tuning.values)), start=1):
            if number % STEP == 0:
                predict: Model = lambda x, number=number: next(islice(staged(bins(x)), number - 1, None))  # noqa: E731
                yield predict, prediction


def _classifications(
    train: TrainingSample, tuning: TrainingSample, _lowest: float | None, growth: _Growth
) -> Iterator[Candidate]:
    model = HistGradientBoostingClassifier(**growth.settings(train.values.shape[1]))
    growth.fit(model, train)
    return growth.stages(lambda x: (each[:, 1] for each in model.staged_predict_proba(x)), tuning)


def _regressions(
    train: TrainingSample, tuning: TrainingSample, lowest: float | None, growth: _Growth
) -> Iterator[Candidate]:
    model = HistGradientBoostingRegressor(loss="absolute_error", **growth.settings(train.values.shape[1]))
    growth.fit(model, train)
    return growth.stages(lambda x: (np.clip(each, lowest, None) for each in model.staged_predict(x)), tuning)


def _scaled(model: Model, scale: Model) -> Model:
    return lambda values_NF: model(scale(values_NF))
