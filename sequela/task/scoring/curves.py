"""Points of ROC and calibration plots, weighted for censoring."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from sequela.record.validate import read_parquet
from sequela.rollout.estimators import wilson
from sequela.task.scoring.censoring import UNSEEN, Censoring, censoring_weights

ROC_POINTS = 150
GROUPS = 10


@dataclass(frozen=True, eq=False)
class ScoredPredictions:
    """Predictions of one model for the patients whose outcome is known: outcome bool [N], risk [N], weight [N]."""

    outcome: np.ndarray
    risk: np.ndarray
    weight: np.ndarray


def read_scored(path: Path) -> ScoredPredictions | None:
    """The rows of a predictions file whose outcome is known.

    None without probabilities, with one class only, or if nobody stands for too many patients (`Censoring.unseen`).
    """
    table = read_parquet(path)
    if "predicted_boolean_probability" not in table.columns:
        return None
    decided = (
        pl.col("boolean_value").is_not_null() & pl.col("predicted_boolean_probability").is_not_null()
    ).alias("decided")
    known = table.select(decided)["decided"].to_numpy()
    weight = np.ones(len(table))
    if "until_days" in table.columns:
        until = table["until_days"].to_numpy()
        labelled = Censoring.of(until, table["boolean_value"].is_not_null().to_numpy())
        if labelled.unseen(labelled.weights(weight), weight) > UNSEEN:
            return None
        weight = censoring_weights(until, known, weight)
    kept = table.filter(pl.Series(known))
    outcome = kept["boolean_value"].to_numpy().astype(bool)
    if outcome.all() or not outcome.any():
        return None
    return ScoredPredictions(
        outcome, kept["predicted_boolean_probability"].to_numpy().astype(float), weight[known]
    )


def roc(scored: ScoredPredictions) -> list[tuple[float, float]]:
    """(false positive rate, true positive rate) from the strictest threshold to the loosest, a point per risk.

    >>> roc(ScoredPredictions(np.array([True, False, True]), np.array([0.9, 0.5, 0.1]), np.ones(3)))
    [(0.0, 0.0), (0.0, 0.5), (1.0, 0.5), (1.0, 1.0)]
    """
    order = np.argsort(-scored.risk, kind="stable")
    risk, weight = scored.risk[order], scored.weight[order]
    hits = np.cumsum(weight * scored.outcome[order])
    alarms = np.cumsum(weight * ~scored.outcome[order])
    last = np.flatnonzero(np.r_[risk[1:] != risk[:-1], True])
    if len(last) > ROC_POINTS:
        last = last[np.linspace(0, len(last) - 1, ROC_POINTS).astype(int)]
    points = zip(alarms[last] / alarms[-1], hits[last] / hits[-1], strict=True)
    return [(0.0, 0.0), *((float(a), float(b)) for a, b in points)]


def calibration(scored: ScoredPredictions) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """(mean risk, observed share) of ten groups of equal size by risk, and the 95 % Wilson interval of each share."""
    order = np.argsort(scored.risk, kind="stable")
    points, spread = [], []
    for rows in np.array_split(order, min(GROUPS, len(order))):
        weight = scored.weight[rows]
        observed = float(np.average(scored.outcome[rows], weights=weight))
        points.append((float(np.average(scored.risk[rows], weights=weight)), observed))
        low, high = wilson(observed, float(weight.sum() ** 2 / (weight**2).sum()))
        spread.append((float(low), float(high)))
    return points, spread
