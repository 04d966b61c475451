"""The gaps between training events: counted per interval class in bounded memory, mergeable over shards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sequela.tokens.ehr.bins import ValueCounts


@dataclass(frozen=True, eq=False)
class GapCounts:
    """The remainders of gaps (see `clock.Intervals.encode`) in I classes of intervals.

    Attributes:
        total: int64 [I], minutes of all of them together.
        rests: how often each number of minutes occurs; exact while a class has at most `bins.CELLS` distinct ones.
    """

    total: np.ndarray
    rests: ValueCounts

    @staticmethod
    def of(interval: np.ndarray, rest: np.ndarray, classes: int) -> GapCounts:
        """Count the remainders `rest` [N], in minutes, of the classes `interval` [N], of which -1 is none."""
        known = interval >= 0
        interval, rest = interval[known], rest[known]
        total = np.bincount(interval, weights=rest, minlength=classes)  # exact below 2 ** 53
        return GapCounts(
            total.astype(np.int64),
            ValueCounts.of(interval.astype(np.int32), rest.astype(np.float32), classes),
        )

    @staticmethod
    def merge(parts: list[GapCounts]) -> GapCounts:
        """The counts of all parts together, the same to the bit in any order and grouping."""
        classes = np.arange(len(parts[0].total))
        rests = ValueCounts.merge([part.rests for part in parts], [classes] * len(parts), len(classes))
        return GapCounts(sum(part.total for part in parts), rests)

    @property
    def number(self) -> np.ndarray:
        """How many gaps there are of each class, int64 [I]."""
        counted = np.bincount(self.rests.code, weights=self.rests.count, minlength=len(self.total))
        return counted.astype(np.int64)

    def quantiles(self, at: np.ndarray) -> np.ndarray:
        """The quantiles `at` [Q], between 0 and 1, of each class that has a gap, in minutes, float64 [I, Q]; else NaN.

        Each is a gap that occurred, never one in between, so that whole days stay whole.

        >>> counts = GapCounts.of(np.array([0, 0, 0, -1]), np.array([10, 20, 30, 0]), 2)
        >>> counts.quantiles(np.array([0.25, 0.5, 0.75])).tolist()
        [[10.0, 20.0, 30.0], [nan, nan, nan]]
        """
        out = np.full((len(self.total), len(at)), np.nan)
        minutes, bounds = self.rests.numbers(), self.rests.bounds()
        for row in np.flatnonzero(np.diff(bounds)):
            inside = slice(bounds[row], bounds[row + 1])
            upto = np.cumsum(self.rests.count[inside])
            out[row] = minutes[inside][np.searchsorted(upto, at * upto[-1])]
        return out

    def save(self, path: Path) -> None:
        """Write the counts to one file."""
        rests = self.rests
        with path.open("wb") as file:
            np.savez(
                file, total=self.total, code=rests.code, cell=rests.cell, count=rests.count, level=rests.level
            )

    @staticmethod
    def load(path: Path) -> GapCounts:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as data:
            rests = ValueCounts(data["code"], data["cell"], data["count"], data["level"])
            return GapCounts(data["total"], rests)
