"""Time as tokens: intervals for elapsed time, and the age band and calendar period that a patient carries along.

A gap of g minutes becomes floor(g / longest) tokens of the longest interval, each saying that nothing happened for that
long, and one token for the class of the remainder. The censored end of a record becomes longest-interval tokens only,
rounded to the nearest whole number: a patient lost within an interval counts as half at risk in it, the actuarial
assumption of the life table. Rounding down would inflate every simulated risk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sequela.record.timeline import STATIC

TIME_PREFIX = "TIME//"
UNITS = (("mo", 43200), ("w", 10080), ("d", 1440), ("h", 60), ("min", 1))


def spoken(minutes: int) -> str:
    """Minutes in words, in the largest unit that divides them.

    >>> spoken(120), spoken(10080), spoken(43200), spoken(90)
    ('2h', '1w', '1mo', '90min')
    """
    name, size = next((name, size) for name, size in UNITS if minutes % size == 0)
    return f"{minutes // size}{name}"


@dataclass(frozen=True)
class Intervals:
    """I classes of time intervals.

    Attributes:
        edges: int64 [I], lower edges in minutes.
        means: int64 [I], the minutes that a token of each class stands for: the mean training gap of the class in whole
            minutes, and exactly the edge for the longest class. Whole minutes keep clocks exact, so that "at the
            horizon" and "past the horizon" never blur.
    """

    edges: np.ndarray
    means: np.ndarray

    @staticmethod
    def guess(edges: tuple[int, ...]) -> Intervals:
        """Classes that stand for their midpoints, before there are training gaps."""
        lower = np.asarray(edges, np.int64)
        return Intervals(lower, (lower + np.append(lower[1:], lower[-1])) // 2)

    def counted(self, interval: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """Classes [N] (-1: none) and remainders [N] in minutes -> int64 [I, 2]: sum and number of each class."""
        known = interval >= 0
        number = np.bincount(interval[known], minlength=len(self.edges))
        total = np.bincount(
            interval[known], weights=rest[known], minlength=len(self.edges)
        )  # exact below 2 ** 53
        return np.stack([total.astype(np.int64), number], 1)

    def timed(self, gaps: np.ndarray) -> Intervals:
        """The same classes with the means of the training gaps (see `counted`), where there are any."""
        total, number = gaps.T
        means = np.where(number > 0, np.rint(total / np.maximum(number, 1)).astype(np.int64), self.means)
        means[-1] = self.edges[-1]
        return Intervals(self.edges, means)

    @property
    def names(self) -> list[str]:
        """The token name of each class."""
        words = [spoken(int(edge)) for edge in self.edges]
        return [f"{TIME_PREFIX}{low}-{high}" for low, high in zip(words, words[1:], strict=False)] + [
            f"{TIME_PREFIX}{words[-1]}"
        ]

    def encode(self, minutes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gaps [N] in minutes -> how often the longest token is repeated [N], class of the remainder [N] (-1: none).

        >>> day, month = 1440, 43200
        >>> intervals = Intervals.guess((5, day, month))
        >>> intervals.names
        ['TIME//5min-1d', 'TIME//1d-1mo', 'TIME//1mo']
        >>> [part.tolist() for part in intervals.encode(np.array([3, 7, 2 * month + day]))]
        [[0, 0, 2], [-1, 0, 1]]
        """
        repeats, rest = np.divmod(minutes, self.edges[-1])
        return repeats.astype(np.int64), np.searchsorted(self.edges, rest, side="right") - 1

    def tail(self, minutes: np.ndarray) -> np.ndarray:
        """Censored time [N] in minutes -> number of longest tokens [N], to the nearest.

        >>> Intervals.guess((5, 100)).tail(np.array([49, 50, 149, 151])).tolist()
        [0, 1, 1, 2]
        """
        return np.floor(minutes / self.edges[-1] + 0.5).astype(np.int64)

    def upper(self) -> np.ndarray:
        """Upper edges [I] in minutes; infinite for the longest class, which stands for at least its edge."""
        return np.append(self.edges[1:], np.inf)


AGE_PREFIX, PERIOD_PREFIX = "AGE//", "YEAR//"
MAX_AGE = 120
FIRST_YEAR, LAST_YEAR = 1900, 2100  # a date beyond these years is an error, or was shifted to hide it
YEAR = 365.25 * 86400e6  # microseconds


def age_names(width: int) -> list[str]:
    """The token names of the age bands of `width` years.

    >>> age_names(60)
    ['AGE//0-59', 'AGE//60-119']
    """
    return [f"{AGE_PREFIX}{low}-{low + width - 1}" for low in range(0, MAX_AGE, width)]


def age_band(age: np.ndarray, width: int) -> np.ndarray:
    """Ages [N] in microseconds -> rows [N] of `age_names`.

    >>> age_band(np.array([0, 59.9, 60, 130]) * YEAR, 60).tolist()
    [0, 0, 1, 1]
    """
    years = np.clip(age * (1 / YEAR), 0, MAX_AGE - 1)
    return years.astype(np.int64) // width


def period_names(width: int, first: int, last: int) -> list[str]:
    """The token names of the calendar periods of `width` years between two moments (microseconds); none for width 0.

    >>> period_names(5, 1_000_000_000_000_000, 1_300_000_000_000_000)
    ['YEAR//2000-2004', 'YEAR//2005-2009', 'YEAR//2010-2014']
    """
    if width == 0 or first == STATIC:
        return []
    low, high = (max(year_of(moment), FIRST_YEAR) // width for moment in (first, last))
    return [f"{PERIOD_PREFIX}{row * width}-{row * width + width - 1}" for row in range(low, high + 1)]


def period_edges(names: list[str]) -> np.ndarray:
    """The microsecond at which each of the named periods begins, except the first.

    >>> period_edges(["YEAR//1970-1970", "YEAR//1971-1971"]).tolist() == [365 * 86400 * 10**6]
    True
    """
    years = [int(name.removeprefix(PERIOD_PREFIX).split("-")[0]) for name in names[1:]]
    return np.array([np.datetime64(f"{year:04d}", "us").astype(np.int64) for year in years], np.int64)


def year_of(moment: int) -> int:
    """The calendar year of a microsecond since 1970.

    >>> year_of(0), year_of(-1)
    (1970, 1969)
    """
    return int(np.datetime64(moment, "us").astype("datetime64[Y]").astype(np.int64)) + 1970
