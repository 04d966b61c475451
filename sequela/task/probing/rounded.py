"""The probe again, on vectors rounded to bfloat16 and not standardized: what a model that is used would hold.

Standardizing in single precision finds what lies in a ten-thousandth of a vector's size, so a collapsed encoder passes
for a sound one (docs/records/world_model.md). Rounded vectors are only centered and divided by one number, their common
size: what lies below the resolution of bfloat16, 1 in 256, is gone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from sequela.task.baselines.baseline import Model, one_thread
from sequela.task.probing.heads import Head, ProbeRows, fit_logistic, fit_ridge
from sequela.task.scoring.metric import AUROC
from sequela.task.task import Task

INVERSE_PENALTIES = (1.0, 1e2, 1e4)
RIDGES = (1.0, 1e-2, 1e-4)
LOST = 0.05  # of AUROC, or of the mean error as a share


@dataclass(frozen=True)
class Repeated:
    """A probe and its repetition.

    Attributes:
        as_is, rounded: AUROC on the held-out rows, or the mean absolute error.
        lost: whether rounding takes more than .05 of AUROC, or adds more than 5 % of error.
    """

    as_is: float
    rounded: float
    lost: bool

    def as_dict(self) -> dict[str, float | bool]:
        """By name."""
        return asdict(self)

    def words(self, where: str, model: str) -> str:
        """What it means that it was lost."""
        return (
            f"{where}: {model} scores {self.as_is:.3f}, and {self.rounded:.3f} on the same vectors rounded to "
            "bfloat16: what it knows lies in a tiny part of their size. Look whether its training has collapsed."
        )


@one_thread
def repeated(task: Task, head: Head, train: ProbeRows, tuning: ProbeRows, asked: ProbeRows) -> Repeated:
    """Fit the head on rounded vectors too, and score both on `asked`."""
    numeric = task.asks.numeric
    if numeric:
        other = fit_ridge(train, tuning, task.asks.valid.low, scaler=rounding, penalties=RIDGES)
    else:
        other = fit_logistic(train, tuning, scaler=rounding, penalties=INVERSE_PENALTIES)
    as_is, rounded = (_score(each, asked, numeric=numeric) for each in (head, other))
    lost = rounded > (1 + LOST) * as_is if numeric else rounded < as_is - LOST
    return Repeated(as_is, rounded, bool(lost))


def rounding(values_ND: np.ndarray) -> Model:
    """Rounds to bfloat16, then centers and divides by one number for all features, those of these rows."""
    known = bfloat16(values_ND)
    mean_D = known.mean(axis=0, dtype=np.float64)
    size = float(np.sqrt(np.square(known, dtype=np.float64).mean())) or 1.0
    return lambda rows_ND: (bfloat16(rows_ND) - mean_D) / size


def bfloat16(values: np.ndarray) -> np.ndarray:
    """Finite numbers rounded to the nearest that bfloat16 has, ties to even; float32.

    >>> bfloat16(np.array([1.0, 1.003, 1.005])).tolist()
    [1.0, 1.0, 1.0078125]
    """
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    even = (bits >> np.uint32(16)) & np.uint32(1)
    return ((bits + np.uint32(0x7FFF) + even) & np.uint32(0xFFFF0000)).view(np.float32)


def _score(head: Head, asked: ProbeRows, *, numeric: bool) -> float:
    known = asked.sample.decided
    outcome, weights = asked.sample.outcome[known], asked.sample.weights[known]
    prediction = head.predict(asked.sample.values[known])
    if numeric:
        return float(np.average(np.abs(prediction - outcome), weights=weights))
    return float(AUROC(outcome, prediction, weights))
