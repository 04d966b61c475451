"""The points of ROC and calibration plots, with the undecided patients spoken for by weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from sequela.task.scoring.censoring import censoring_weights

ROC_POINTS = 150
GROUPS = 10


@dataclass(frozen=True, eq=False)
class Scored:
    """Decided predictions of one model: outcome bool [N], risk [N], weight [N]."""

    outcome: np.ndarray
    risk: np.ndarray
    weight: np.ndarray


def read_scored(path: Path) -> Scored | None:
    """The decided rows of one predictions file; None where it holds no probabilities or only one class."""
    table = pl.read_parquet(path)
    if "predicted_boolean_probability" not in table.columns:
        return None
    decided = (
        pl.col("boolean_value").is_not_null() & pl.col("predicted_boolean_probability").is_not_null()
    ).alias("decided")
    known = table.select(decided)["decided"].to_numpy()
    weight = np.ones(len(table))
    if "until_days" in table.columns:
        weight = censoring_weights(table["until_days"].to_numpy(), known, weight)
    kept = table.filter(pl.Series(known))
    outcome = kept["boolean_value"].to_numpy().astype(bool)
    if outcome.all() or not outcome.any():
        return None
    return Scored(outcome, kept["predicted_boolean_probability"].to_numpy().astype(float), weight[known])


def roc(scored: Scored) -> list[tuple[float, float]]:
    """(false alarms, hits) as shares, from the strictest threshold to the loosest; one point a distinct risk."""
    order = np.argsort(-scored.risk, kind="stable")
    risk, weight = scored.risk[order], scored.weight[order]
    hits = np.cumsum(weight * scored.outcome[order])
    alarms = np.cumsum(weight * ~scored.outcome[order])
    last = np.flatnonzero(np.r_[risk[1:] != risk[:-1], True])
    if len(last) > ROC_POINTS:
        last = last[np.linspace(0, len(last) - 1, ROC_POINTS).astype(int)]
    points = zip(alarms[last] / alarms[-1], hits[last] / hits[-1], strict=True)
    return [(0.0, 0.0), *((float(a), float(b)) for a, b in points)]


def calibration(scored: Scored) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """(mean risk, observed share) of ten groups of equal size by risk, and the 95 % Wilson interval of each share."""
    order = np.argsort(scored.risk, kind="stable")
    points, spread = [], []
    for rows in np.array_split(order, min(GROUPS, len(order))):
        weight = scored.weight[rows]
        observed = float(np.average(scored.outcome[rows], weights=weight))
        points.append((float(np.average(scored.risk[rows], weights=weight)), observed))
        spread.append(wilson(observed, float(weight.sum() ** 2 / (weight**2).sum())))
    return points, spread


def wilson(share: float, n: float) -> tuple[float, float]:
    """The 95 % interval of a share of `n` patients (Wilson 1927).

    >>> [round(limit, 3) for limit in wilson(0.5, 100)]
    [0.404, 0.596]
    """
    z = 1.96
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)
