"""What simulation has to beat: plain models, fitted on the labels of the training patients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from threadpoolctl import threadpool_limits

from sequela.record.duration import DAY
from sequela.task.baselines.cox import fit_hazard, risk
from sequela.task.scoring.censoring import UNSEEN, Censoring
from sequela.task.task import Task

FEWEST = 5  # patients of each class; with fewer, only the prevalence is fitted
# standard deviations at which values are clipped: one wrong unit must not decide a linear model
OUTLIER = 5.0
INVERSE_PENALTY = 0.03
# shallow, slow and penalized, for a few hundred cases; chosen by cross-validation on training patients
TREES = {
    "max_iter": 250,
    "learning_rate": 0.05,
    "max_leaf_nodes": 8,
    "min_samples_leaf": 50,
    "max_features": 0.2,
    "l2_regularization": 20.0,
    "max_bins": 63,  # scikit-learn searches for the edges of weighted bins one by one: 255 take longer than the trees
}

Model = Callable[[np.ndarray], np.ndarray]
"""Features [N, F] -> predictions [N]: probabilities, or numbers."""


@dataclass(frozen=True, eq=False)
class TrainingSample:
    """Training patients and their labels.

    Attributes:
        values: float32 [N, F], the table of `Features`: age, sex, then the rest; NaN if unknown.
        outcome: float64 [N]: 1, 0, or a number; NaN for none.
        until_days: float64 [N], as from `labels`.
        lost: bool [N], whether the record ended too early to know; None: true of all without an outcome.
    """

    values: np.ndarray
    outcome: np.ndarray
    until_days: np.ndarray
    lost: np.ndarray | None = None

    @cached_property
    def decided(self) -> np.ndarray:
        """bool [N]."""
        return ~np.isnan(self.outcome)

    @cached_property
    def _censoring(self) -> tuple[np.ndarray, float]:
        """Weights of all who were followed, and the share of patients for whom nobody stands."""
        followed = self.decided if self.lost is None else ~self.lost
        censoring, once = Censoring.of(self.until_days, followed), np.ones(len(self.outcome))
        weights = censoring.weights(once)
        return weights, float(censoring.unseen(weights, once))

    @property
    def weights(self) -> np.ndarray:
        """Inverse probability of censoring weights [N], 0 without an outcome."""
        return np.where(self.decided, self._censoring[0], 0.0)

    @property
    def identified(self) -> bool:
        """Whether patients were followed for long enough that the known outcomes stand for all."""
        return self._censoring[1] <= UNSEEN


# On busy cores the threads of the trees wait for each other, up to a hundred times longer than they work
one_thread = threadpool_limits.wrap(limits=1)


@one_thread
def fit_baselines(task: Task, train: TrainingSample, seed: int = 0) -> dict[str, Model]:
    """The baselines of the task's kind, by name, fitted on `train`.

    Those that it is too small for are left out, and all if its patients were not followed for long enough.
    """
    if train.decided.sum() < 2 * FEWEST or not train.identified:
        return {}
    horizon_days = None if task.horizon is None else task.horizon / DAY
    fitted = {
        name: FITTERS[fitter](train, seed, horizon_days) for name, fitter in task.asks.baselines.items()
    }
    return {name: model for name, model in fitted.items() if model is not None}


def both_classes(train: TrainingSample) -> bool:
    """Whether there are enough patients with and without the outcome."""
    outcome = train.outcome[train.decided]
    return bool(min(outcome.sum(), (1 - outcome).sum()) >= FEWEST)


def _mean(train: TrainingSample) -> Model:
    share = np.average(train.outcome[train.decided], weights=train.weights[train.decided])
    return lambda values_NF: np.full(len(values_NF), share)


def _logistic(train: TrainingSample, columns: slice) -> Model:
    scale = standardizer(train.values[:, columns])
    model = LogisticRegression(C=INVERSE_PENALTY, max_iter=1000)
    known = train.decided
    model.fit(scale(train.values[known, columns]), train.outcome[known], sample_weight=train.weights[known])
    return lambda values_NF: model.predict_proba(scale(values_NF[:, columns]))[:, 1]


def _trees(train: TrainingSample, seed: int) -> Model:
    model = HistGradientBoostingClassifier(**TREES, random_state=seed % 2**32)
    fit_trees(model, train)
    return one_thread(lambda values_NF: model.predict_proba(values_NF)[:, 1])


def _cox(train: TrainingSample, horizon_days: float) -> Model:
    scale = standardizer(train.values)
    values = scale(train.values)
    happened, ended = train.outcome == 1, (train.outcome == 0) & (train.until_days < horizon_days)
    event = fit_hazard(values, train.until_days, happened, ridge=1 / INVERSE_PENALTY)
    competing = (
        fit_hazard(values, train.until_days, ended, ridge=1 / INVERSE_PENALTY) if ended.any() else None
    )
    return lambda values_NF: risk(scale(values_NF), event, competing, horizon_days)


def _median(train: TrainingSample) -> Model:
    days, weights = train.outcome[train.decided], train.weights[train.decided]
    order = np.argsort(days)
    middle = days[order][np.searchsorted(np.cumsum(weights[order]), weights.sum() / 2)]
    return lambda values_NF: np.full(len(values_NF), middle)


def _ridge(train: TrainingSample, *, logarithmic: bool) -> Model:
    """Days and counts on a logarithm: closer to normal, and its mean is closer to the median, which minimizes MAE."""
    there, back = (
        (np.log1p, lambda x: np.clip(np.expm1(x), 0, None)) if logarithmic else (np.asarray, np.asarray)
    )
    scale = standardizer(train.values)
    model = Ridge(alpha=1 / INVERSE_PENALTY)
    known = train.decided
    model.fit(scale(train.values[known]), there(train.outcome[known]), sample_weight=train.weights[known])
    return lambda values_NF: back(model.predict(scale(values_NF)))


def _tree_regression(
    train: TrainingSample, seed: int, *, loss: str = "absolute_error", lowest: float | None = None
) -> Model:
    model = HistGradientBoostingRegressor(loss=loss, **TREES, random_state=seed % 2**32)
    fit_trees(model, train)
    return one_thread(lambda values_NF: np.clip(model.predict(values_NF), lowest, None))


def fit_trees(
    model: HistGradientBoostingClassifier | HistGradientBoostingRegressor, train: TrainingSample
) -> None:
    """Fit boosted trees on the patients with a known answer."""
    known = train.decided
    values = train.values[known]
    values[:, np.isnan(values).all(axis=0)] = 0  # the library cannot bin a column without any value
    model.fit(values, train.outcome[known], sample_weight=train.weights[known])


def standardizer(values_NF: np.ndarray) -> Model:
    """Scales to mean 0 and standard deviation 1 on these patients, clips, and replaces unknown values by the mean."""
    known = ~np.isnan(values_NF)
    count_F = np.maximum(known.sum(axis=0), 1)
    mean_F = np.where(known, values_NF, 0).sum(axis=0, dtype=np.float64) / count_F
    spread_F = np.sqrt(np.where(known, (values_NF - mean_F) ** 2, 0).sum(axis=0) / count_F)
    unit_F = np.where(spread_F > 1e-6 * (1 + np.abs(mean_F)), spread_F, np.inf)
    return lambda rows_NF: np.nan_to_num(np.clip((rows_NF - mean_F) / unit_F, -OUTLIER, OUTLIER))


def _survival(train: TrainingSample, horizon_days: float | None) -> Model | None:
    """Only a horizon and censoring make it a survival problem."""
    if horizon_days is None or train.decided.all() or not both_classes(train):
        return None
    return _cox(train, horizon_days)


def _counting_trees(train: TrainingSample, seed: int) -> Model | None:
    """The Poisson loss is not defined if all counts are 0."""
    if not train.outcome[train.decided].any():
        return None
    return _tree_regression(train, seed, loss="poisson", lowest=0.0)


Fitter = Callable[[TrainingSample, int, float | None], Model | None]
"""(training patients, seed, horizon in days) -> the fitted model; None if they are too few, or it does not apply."""
FITTERS: dict[str, Fitter] = {
    "mean": lambda train, seed, days: _mean(train),
    "age_sex": lambda train, seed, days: _logistic(train, slice(0, 2)) if both_classes(train) else None,
    "logistic": lambda train, seed, days: _logistic(train, slice(None)) if both_classes(train) else None,
    "trees": lambda train, seed, days: _trees(train, seed) if both_classes(train) else None,
    "cox": lambda train, seed, days: _survival(train, days),
    "median": lambda train, seed, days: _median(train),
    "ridge": lambda train, seed, days: _ridge(train, logarithmic=False),
    "ridge of logarithms": lambda train, seed, days: _ridge(train, logarithmic=True),
    "trees of numbers": lambda train, seed, days: _tree_regression(train, seed),
    "positive trees": lambda train, seed, days: _tree_regression(train, seed, lowest=0.0),
    "counting trees": lambda train, seed, days: _counting_trees(train, seed),
}
