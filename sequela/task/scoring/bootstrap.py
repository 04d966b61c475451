"""Bootstrap intervals: how far would a number move with other patients of the same kind?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sequela.task.scoring.sums import many

RESAMPLES = 1000
LEVEL = 0.95  # of an interval
CELLS = 1 << 18  # patients x resamples worked on at once: 2 MB of float64, so that a batch stays in the cache


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; NaN if it is not defined (no cases, or a constant prediction).

    >>> Estimate(0.8, 0.7, 0.9).as_dict(), Estimate(float("nan"), 0.7, 0.9).as_dict()
    ({'value': 0.8, 'low': 0.7, 'high': 0.9}, {})
    >>> Estimate(float("nan"), 0.7, 0.9).as_dict("nobody had the outcome")["reason"]
    'nobody had the outcome'
    """

    value: float
    low: float
    high: float

    def as_dict(self, reason: str = "") -> dict[str, float | str | None]:
        """`value`, `low`, `high`; if the number is not defined, empty, or None each (JSON has no NaN) with `reason`."""
        if not np.isfinite(self.value):
            return {"value": None, "low": None, "high": None, "reason": reason} if reason else {}
        pairs = {"value": self.value, "low": self.low, "high": self.high}
        return {name: float(x) if np.isfinite(x) else None for name, x in pairs.items()}


def resamples(
    patient_N: np.ndarray, count: int = RESAMPLES, seed: int = 0, among: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """Batches [N, r] of how often each row counts when patients are drawn with replacement, `count` columns in all.

    Rows of the same patient are drawn together: several questions about one patient are not independent.

    >>> [(batch.shape, batch[0].tolist() == batch[1].tolist()) for batch in resamples(np.array([7, 7, 9]), count=4)]
    [((3, 4), True)]

    Args:
        among: patients to draw from, sorted and distinct, who include those of the rows; None: those of the rows. Rows
            of several cohorts with the same `among` and `seed` are drawn together, column by column.
    """
    patients, row_patient_N = np.unique(patient_N, return_inverse=True)
    if among is not None:
        patients, row_patient_N = among, np.searchsorted(among, patient_N)
    generator = np.random.default_rng(seed)
    step = max(1, CELLS // max(1, len(patient_N if among is None else among)))
    for start in range(0, count, step):
        columns = min(step, count - start)
        drawn = generator.integers(len(patients), size=(len(patients), columns))
        cells = np.bincount((drawn * columns + np.arange(columns)).ravel(), minlength=len(patients) * columns)
        copies = cells.astype(np.uint32).reshape(len(patients), columns)  # small, so that looking up is fast
        for some in np.split(copies, columns, axis=1) if many(len(patient_N)) else [copies]:
            yield some[row_patient_N].astype(np.float64)


def interval(value: float, draws_R: np.ndarray) -> Estimate:
    """`value` with the 2.5 and 97.5 percentiles of its resampled values, without those that are not defined.

    >>> interval(1.0, np.array([0.0, 1.0, 2.0, np.nan]))
    Estimate(value=1.0, low=0.05, high=1.95)
    """
    known = draws_R[np.isfinite(draws_R)]
    if not np.isfinite(value) or not len(known):
        return Estimate(float(value), np.nan, np.nan)
    low, high = np.percentile(known, (2.5, 97.5))
    return Estimate(float(value), float(low), float(high))
