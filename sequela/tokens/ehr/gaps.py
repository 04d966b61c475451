"""The gaps between training events: counted per interval class in bounded memory, mergeable over shards.

Gaps that the end of follow-up cut off are counted beside the completed ones. Without them long gaps would be too rare
within a class: the longer a gap, the less likely it is over before follow-up is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sequela.tokens.ehr.bins import ValueCounts

PARTS = ("code", "cell", "count", "level")  # of `ValueCounts`


@dataclass(frozen=True, eq=False)
class GapCounts:
    """The remainders of gaps (see `clock.Intervals.encode`) in I classes of intervals.

    Attributes:
        total: int64 [I], minutes of the completed ones together.
        rests: how often each number of minutes occurs; exact while a class has at most `bins.CELLS` distinct ones.
        cut: the same of gaps that the end of follow-up cut off: of each is known that it is longer.
        longest: how often a gap lasted for a whole longest interval.
    """

    total: np.ndarray
    rests: ValueCounts
    cut: ValueCounts
    longest: int

    @staticmethod
    def of(
        completed: tuple[np.ndarray, np.ndarray], cut: tuple[np.ndarray, np.ndarray], longest: int, classes: int
    ) -> GapCounts:
        """Count remainders: the classes [N] and minutes [N] of the completed and of the cut ones; class -1 is none."""
        interval, rest = completed
        known = interval >= 0
        total = np.bincount(interval[known], weights=rest[known], minlength=classes)  # exact below 2 ** 53
        return GapCounts(
            total.astype(np.int64), _counted(*completed, classes), _counted(*cut, classes), int(longest)
        )

    @staticmethod
    def merge(parts: list[GapCounts]) -> GapCounts:
        """The counts of all parts together, the same to the bit in any order and grouping."""
        classes = np.arange(len(parts[0].total))
        rests, cut = (
            ValueCounts.merge(counts, [classes] * len(parts), len(classes))
            for counts in ([part.rests for part in parts], [part.cut for part in parts])
        )
        total = sum(part.total for part in parts)
        return GapCounts(total, rests, cut, sum(part.longest for part in parts))

    @property
    def number(self) -> np.ndarray:
        """How many completed gaps there are of each class, int64 [I]."""
        return _number(self.rests)

    def quantiles(self, at: np.ndarray) -> np.ndarray:
        """The quantiles `at` [Q], between 0 and 1, of each class that has a gap, in minutes, float64 [I, Q]; else NaN.

        They are those of a Kaplan-Meier estimate S over all classes, given that a gap ends in the class: one in [a, b)
        is t at most with probability (S(a-) - S(t)) / (S(a-) - S(b-)). Where no gap was cut off, they are the quantiles
        of the completed gaps. Each is a gap that occurred, never one in between, so that whole days stay whole.

        >>> completed = np.array([0, 0, 0, -1]), np.array([10, 20, 30, 0])
        >>> none = np.zeros(0, int), np.zeros(0, int)
        >>> GapCounts.of(completed, none, 0, 2).quantiles(np.array([0.25, 0.5, 0.75])).tolist()
        [[10.0, 20.0, 30.0], [nan, nan, nan]]
        """
        out = np.full((len(self.total), len(at)), np.nan)
        minutes, bounds = self.rests.numbers(), self.rests.bounds()
        after = np.cumsum((self.number + _number(self.cut))[::-1])[::-1]
        after = np.append(after[1:], 0) + self.longest  # how many are beyond each class
        for row in np.flatnonzero(np.diff(bounds)):
            inside = slice(bounds[row], bounds[row + 1])
            upto = np.cumsum(self.rests.count[inside] * self._weights(row, int(after[row])))
            out[row] = minutes[inside][np.searchsorted(upto, at * upto[-1])]
        return out

    def _weights(self, row: int, after: int) -> np.ndarray:
        """How many gaps each completed one of class `row` stands for, by its cell; of `after` it is known to be beyond.

        Each gap that was cut off is shared out among all that are known to be longer (Efron 1967), which is the
        Kaplan-Meier estimate. What was cut off before the class is shared by all of it alike.
        """
        (minutes, many), (ends, lost) = (_cells(counts, row) for counts in (self.rests, self.cut))
        longer = after + _beyond(minutes, many, ends) + _beyond(ends, lost, ends)
        shares = np.append(1.0, np.cumprod(1 + lost / np.maximum(longer, 1)))  # with none longer, none takes a share
        return shares[np.searchsorted(ends, minutes, side="left")]

    def save(self, path: Path) -> None:
        """Write the counts to one file."""
        arrays = {"total": self.total, "longest": np.array(self.longest)}
        for name, counts in (("rests", self.rests), ("cut", self.cut)):
            arrays |= {f"{name}_{part}": getattr(counts, part) for part in PARTS}
        with path.open("wb") as file:
            np.savez(file, **arrays)

    @staticmethod
    def load(path: Path) -> GapCounts:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as data:
            rests, cut = (ValueCounts(*(data[f"{name}_{part}"] for part in PARTS)) for name in ("rests", "cut"))
            return GapCounts(data["total"], rests, cut, int(data["longest"]))


def _counted(interval: np.ndarray, rest: np.ndarray, classes: int) -> ValueCounts:
    known = interval >= 0
    return ValueCounts.of(interval[known].astype(np.int32), rest[known].astype(np.float32), classes)


def _number(counts: ValueCounts) -> np.ndarray:
    """How many there are of each class, int64 [I]."""
    return np.bincount(counts.code, weights=counts.count, minlength=len(counts.level)).astype(np.int64)


def _cells(counts: ValueCounts, row: int) -> tuple[np.ndarray, np.ndarray]:
    """The minutes of the cells of one class, rising, and how often each occurs."""
    inside = slice(*np.searchsorted(counts.code, [row, row + 1]))
    return counts.numbers()[inside], counts.count[inside]


def _beyond(minutes: np.ndarray, many: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """How many of the gaps counted are longer than each `limit` [N]."""
    upto = np.append(0, np.cumsum(many))
    return upto[-1] - upto[np.searchsorted(minutes, limit, side="right")]
