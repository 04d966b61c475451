"""Age bands and calendar periods: what a patient carries through time."""

from __future__ import annotations

import numpy as np

from sequela.record.timeline import STATIC

AGE_PREFIX, PERIOD_PREFIX = "AGE//", "YEAR//"
MAX_AGE = 120
FIRST_YEAR, LAST_YEAR = 1900, 2100  # beyond these years a date is a mistake, or was shifted to hide it
YEAR = 365.25 * 86400e6  # microseconds


def age_names(width: int) -> list[str]:
    """One token name for each age band of `width` years.

    >>> age_names(60)
    ['AGE//0-59', 'AGE//60-119']
    """
    return [f"{AGE_PREFIX}{low}-{low + width - 1}" for low in range(0, MAX_AGE, width)]


def age_band(age: np.ndarray, width: int) -> np.ndarray:
    """Ages [N] in microseconds -> rows [N] of `age_names`."""
    years = np.clip(age * (1 / YEAR), 0, MAX_AGE - 1)
    return years.astype(np.int64) // width


def period_names(width: int, first: int, last: int) -> list[str]:
    """One token name for each calendar period of `width` years between two moments; none for `width` 0.

    >>> period_names(5, 1_000_000_000_000_000, 1_300_000_000_000_000)
    ['YEAR//2000-2004', 'YEAR//2005-2009', 'YEAR//2010-2014']
    """
    if width == 0 or first == STATIC:
        return []
    low, high = (max(year_of(moment), FIRST_YEAR) // width for moment in (first, last))
    return [f"{PERIOD_PREFIX}{row * width}-{row * width + width - 1}" for row in range(low, high + 1)]


def period_edges(names: list[str]) -> np.ndarray:
    """The microsecond at which each of the named periods but the first begins."""
    years = [int(name.removeprefix(PERIOD_PREFIX).split("-")[0]) for name in names[1:]]
    return np.array([np.datetime64(f"{year:04d}", "us").astype(np.int64) for year in years], np.int64)


def year_of(moment: int) -> int:
    """The calendar year of a microsecond."""
    return int(np.datetime64(moment, "us").astype("datetime64[Y]").astype(np.int64)) + 1970
