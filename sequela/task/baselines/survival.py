"""A random survival forest (scikit-survival; Ishwaran et al. 2008), for tasks with a horizon and censoring.

One forest for the outcome and one for the events that end the wait without it (death before a diagnosis), each with the
other as censoring; their hazards make the cumulative incidence, as labels count it: who dies first does not have the
outcome. One minus the survival of the first forest alone would count diagnoses of the dead.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from sequela.task.baselines.baseline import Model, TrainingSample, both_classes, one_thread, standardizer

if TYPE_CHECKING:
    from sksurv.ensemble import RandomSurvivalForest

EXTRA = "survival"  # of the package
MOST_TIMES = 40  # every node of a tree keeps a curve over them
MOST_PATIENTS = 20_000  # more are sampled: to split a node takes a pass over its patients for every feature
FOREST = {"n_estimators": 40, "min_samples_leaf": 50, "max_features": "sqrt", "max_samples": 0.5, "n_jobs": 1}


def installed() -> bool:
    """Whether scikit-survival is there."""
    return find_spec("sksurv") is not None


@one_thread
def fit_forest(train: TrainingSample, horizon_days: float, seed: int) -> Model | None:
    """The risk at the horizon; None without censoring, or with too few outcomes (as for `cox`)."""
    from sksurv.ensemble import RandomSurvivalForest
    from sksurv.util import Surv

    if train.decided.all() or not both_classes(train):
        return None
    happened, ended = train.outcome == 1, (train.outcome == 0) & (train.until_days < horizon_days)
    time = _coarse(train.until_days, happened | ended)
    rows = np.arange(len(time))
    if len(rows) > MOST_PATIENTS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MOST_PATIENTS, replace=False))
    scale = standardizer(train.values)
    values = scale(train.values[rows]).astype(np.float32)
    causes = [cause[rows] for cause in (happened, ended) if cause[rows].any()]
    forests = [
        RandomSurvivalForest(**FOREST, random_state=seed % 2**32).fit(values, Surv.from_arrays(cause, time[rows]))
        for cause in causes
    ]

    def predict(values_NF: np.ndarray) -> np.ndarray:
        asked = scale(values_NF).astype(np.float32)
        return incidence([_increments(forest, asked) for forest in forests])

    return one_thread(predict)


def incidence(increments: list[np.ndarray]) -> np.ndarray:
    """The probability [N] of the first cause by the last of T times.

    Args:
        increments: of the cumulative hazard of each cause, [N, T].
    """
    total = np.sum(increments, axis=0)
    free = np.exp(total - np.cumsum(total, axis=1))  # of any event, just before each time
    share = np.divide(increments[0], total, out=np.zeros_like(total), where=total > 0)
    return (free * -np.expm1(-total) * share).sum(axis=1)


def _increments(forest: RandomSurvivalForest, values_NF: np.ndarray) -> np.ndarray:
    """Of the cumulative hazard at each time of the grid, [N, T]."""
    hazard_NT = forest.predict_cumulative_hazard_function(values_NF, return_array=True)
    return np.maximum(np.diff(hazard_NT, axis=1, prepend=0.0), 0.0)


def _coarse(until: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Days on a grid of at most `MOST_TIMES` event times: events at the next, the others at the last they have seen."""
    grid = np.unique(np.quantile(until[known], np.linspace(0, 1, MOST_TIMES), method="higher"))
    following = grid[np.minimum(np.searchsorted(grid, until), len(grid) - 1)]
    seen = np.append(0.0, grid)[np.searchsorted(grid, until, side="right")]
    return np.where(known, following, seen)
