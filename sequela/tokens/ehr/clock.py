"""Time as tokens: intervals for elapsed time, and the age band and calendar period that a patient carries along.

A gap of g minutes becomes floor(g / longest) tokens of the longest interval, each saying that nothing happened for that
long, and one token for the class of the remainder. The censored end of a record becomes longest-interval tokens only,
and the minutes that remain have no token: which class would have held them is not known (see `Encoded.rest`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sequela.record.duration import LAST_YEAR_OF_DATA
from sequela.tokens.ehr.gaps import GapCounts

TIME_PREFIX = "TIME//"
UNITS = (("mo", 43200), ("w", 10080), ("d", 1440), ("h", 60), ("min", 1))


def _middles(many: int) -> np.ndarray:
    """The middles of so many equal parts of the stretch from 0 to 1."""
    return (np.arange(many) + 0.5) / many


def spoken(minutes: int) -> str:
    """Minutes in words, in the largest unit that divides them.

    >>> spoken(120), spoken(10080), spoken(43200), spoken(90)
    ('2h', '1w', '1mo', '90min')
    """
    name, size = next((name, size) for name, size in UNITS if minutes % size == 0)
    return f"{minutes // size}{name}"


QUANTILES = 256  # of the gaps of a class: a risk is off by less than one in so many of the gaps of one class


@dataclass(frozen=True)
class Intervals:
    """I classes of time intervals.

    Attributes:
        edges: int64 [I], lower edges in minutes.
        means: int64 [I], the one number of minutes that stands for each class where there can be only one: the mean
            of the completed training gaps of the class in whole minutes, and exactly the edge for the longest class.
            A token of a record stands for a completed gap: what became of those cut off is another question, that of
            `quantiles`. Whole minutes keep clocks exact, so that "at the horizon" and "past the horizon" never blur.
        quantiles: int64 [I, Q], evenly spaced quantiles of how long gaps of each class are, rising, estimated from
            completed training gaps and those that the end of follow-up cut off; exactly the edge for the longest class.
            Means alone would make a risk over time a staircase.
    """

    edges: np.ndarray
    means: np.ndarray
    quantiles: np.ndarray

    @staticmethod
    def guess(edges: tuple[int, ...]) -> Intervals:
        """Classes in which all gaps are equally likely, before there are training gaps."""
        lower = np.asarray(edges, np.int64)
        upper = np.append(lower[1:], lower[-1])
        within = np.floor((upper - lower)[:, None] * _middles(QUANTILES))
        return Intervals(lower, (lower + upper) // 2, lower[:, None] + within.astype(np.int64))

    @staticmethod
    def constant(edges: np.ndarray, means: np.ndarray) -> Intervals:
        """Classes of which each stands for one number of minutes, as in version 0.1."""
        return Intervals(edges, means, means[:, None])

    def count(self, gaps: np.ndarray, cut: np.ndarray) -> GapCounts:
        """Count the gaps [N] between events, in minutes, and those [P] that the end of follow-up cut off."""
        (repeats, interval), (before, within) = self.encode(gaps), self.encode(cut)
        longest, classes = self.edges[-1], len(self.edges)
        completed, ended = (interval, gaps % longest), (within, cut % longest)
        return GapCounts.of(completed, ended, repeats.sum() + before.sum(), classes)

    def timed(self, gaps: GapCounts) -> Intervals:
        """The same classes with the means and quantiles of the training gaps, where there are any."""
        number = gaps.number
        means = np.where(
            number > 0, np.rint(gaps.total / np.maximum(number, 1)).astype(np.int64), self.means
        )
        means[-1] = self.edges[-1]
        seen = gaps.quantiles(_middles(self.quantiles.shape[1]))
        quantiles = np.where(np.isnan(seen), self.quantiles, np.rint(seen)).astype(np.int64)
        # A cell of `ValueCounts` can reach beyond an edge
        upper = np.append(self.edges[1:] - 1, self.edges[-1])
        quantiles = np.clip(quantiles, self.edges[:, None], upper[:, None])
        quantiles[-1] = self.edges[-1]
        return Intervals(self.edges, means, quantiles)

    def survival(self, rest: np.ndarray) -> np.ndarray:
        """The share of the gaps of each class that are longer than `rest` [N] minutes, float64 [N, I].

        >>> Intervals.guess((10, 20)).survival(np.array([0, 15, 19, 20])).tolist()
        [[1.0, 1.0], [0.3984375, 1.0], [0.0, 1.0], [0.0, 0.0]]
        """
        shorter = [np.searchsorted(row, rest, side="right") for row in self.quantiles]
        return 1 - np.stack(shorter, 1) / self.quantiles.shape[1]

    def minutes(self, interval: np.ndarray, uniform: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """Gaps [N] of the classes `interval` [N], drawn by uniform numbers [N] in [0, 1), int64 [N] minutes.

        Each is longer than its `rest` [N] minutes, unless no gap of its class is: then it is the longest.
        """
        classes, many = self.quantiles.shape
        apart = np.maximum(self.quantiles.max(), rest.max(initial=0)) + 1  # all classes in one rising row
        row = (self.quantiles + apart * np.arange(classes)[:, None]).ravel()
        known = np.maximum(rest, 0)
        shorter = np.searchsorted(row, known + apart * interval, side="right") - many * interval
        shorter = np.minimum(shorter, many - 1)
        return self.quantiles[interval, shorter + (uniform * (many - shorter)).astype(np.int64)]

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

    def upper(self) -> np.ndarray:
        """Upper edges [I] in minutes; infinite for the longest class, which stands for at least its edge."""
        return np.append(self.edges[1:], np.inf)


AGE_PREFIX, PERIOD_PREFIX = "AGE//", "YEAR//"
MAX_AGE = 120
FIRST_YEAR, LAST_YEAR = 1900, 2100  # data beyond these years were shifted to hide their dates
YEARS = 9999
FAR = 20  # years without data, behind which a date stands apart
YEAR_MINUTES = 525_960


def age_names(width: int) -> list[str]:
    """The token names of the age bands of `width` years.

    >>> age_names(60)
    ['AGE//0-59', 'AGE//60-119']
    """
    return [f"{AGE_PREFIX}{low}-{low + width - 1}" for low in range(0, MAX_AGE, width)]


def age_band(years: np.ndarray, width: int) -> np.ndarray:
    """Ages [N] in whole years -> rows [N] of `age_names`.

    >>> age_band(np.array([0, 59, 60, 130]), 60).tolist()
    [0, 0, 1, 1]
    """
    return np.clip(years, 0, MAX_AGE - 1) // width


def period_width(calendar_years: int) -> int:
    """For how many years patients are counted together to find the years of the data (see `bulk`)."""
    return calendar_years or 1


def bulk(periods: np.ndarray, width: int, least: int) -> tuple[int, int] | None:
    """The first and the last year of the data, whatever a few dates far from all others say; None if there is no bulk.

    A period belongs to the data if `least` patients, and one in a thousand of the fullest period, have an event in it.
    Stretches with more than `FAR` years between them stand apart: an unknown date is often written as 1900 or 9999.
    Those with less than half the patients of the fullest are none of the data, nor are years after 2300, beside others.

    Args:
        periods: int64 [P], patients with an event in each period of `width` years since the year 0.

    >>> patients = np.zeros(YEARS + 1, np.int64)
    >>> patients[[1900, 2001, 2004, 2099]] = 50, 90, 80, 30
    >>> bulk(patients, 1, 10)
    (2001, 2004)
    """
    held = np.flatnonzero(periods >= max(least, periods.max(initial=0) / 1000, 1))
    if not len(held):
        return None
    held = held[held * width <= max(LAST_YEAR_OF_DATA, held[0] * width)]
    apart = np.flatnonzero(np.diff(held) * width > FAR) + 1
    stretches = np.split(held, apart)
    sizes = [int(periods[stretch].sum()) for stretch in stretches]
    data = [stretch for stretch, size in zip(stretches, sizes, strict=True) if 2 * size >= max(sizes)]
    return int(data[0][0]) * width, int(data[-1][-1]) * width + width - 1


def period_names(width: int, years: tuple[int, int] | None) -> list[str]:
    """The token names of the calendar periods of `width` years, from that of the first of `years` to that of the last.

    None for width 0, and none for years so late that they must have been shifted.

    >>> period_names(5, (2001, 2011)), period_names(5, (2150, 2180))
    (['YEAR//2000-2004', 'YEAR//2005-2009', 'YEAR//2010-2014'], [])
    """
    if width == 0 or years is None or years[1] // width * width > LAST_YEAR:
        return []
    low, high = (max(year, FIRST_YEAR) // width for year in years)
    return [f"{PERIOD_PREFIX}{row * width}-{row * width + width - 1}" for row in range(low, high + 1)]


def period_edges(names: list[str]) -> np.ndarray:
    """The microsecond at which each of the named periods begins, except the first.

    >>> period_edges(["YEAR//1970-1970", "YEAR//1971-1971"]).tolist() == [365 * 86400 * 10**6]
    True
    """
    years = [int(name.removeprefix(PERIOD_PREFIX).split("-")[0]) for name in names[1:]]
    return np.array([np.datetime64(f"{year:04d}", "us").astype(np.int64) for year in years], np.int64)


def years_of(time: np.ndarray) -> np.ndarray:
    """The calendar years [N] of microseconds since 1970, from 0 to `YEARS`.

    >>> years_of(np.array([0, -1])).tolist()
    [1970, 1969]
    """
    years = time.astype("datetime64[us]").astype("datetime64[Y]").astype(np.int64) + 1970
    return np.clip(years, 0, YEARS)
