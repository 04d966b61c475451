"""Durations: in words and microseconds, and how many months or years have passed on the calendar.

A year is 365.25 days wherever a length must be the same for everyone; where people count birthdays, the calendar is.
"""

from __future__ import annotations

import re

import numpy as np
import polars as pl

from sequela.errors import InputError

LAST_YEAR_OF_DATA = 2300  # no calendar has got there, nor those that were shifted to hide their dates
SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
UNITS = {  # microseconds; mean month and year, so that a horizon has the same length for everyone
    "minute": MINUTE,
    "hour": HOUR,
    "day": DAY,
    "week": 7 * DAY,
    "month": round(365.25 / 12 * DAY),
    "year": round(365.25 * DAY),
}
LONGEST = 1000 * UNITS["year"]  # longer than any record; not far beyond it a date no longer fits its column
SHOWN = 60  # letters of a text in a message


def parse_duration(text: object, where: str) -> int:
    """A duration such as "5 years" or "1 minute" in microseconds; a year has 365.25 days.

    >>> parse_duration("2 days", "here") == 2 * DAY
    True

    Raises:
        InputError: for anything else, and for more than LONGEST; the message starts with `where`.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) +([a-z]+?)s?", str(text).strip(), re.ASCII)
    if match is None or match[2] not in UNITS:
        raise InputError(
            f"{where} is '{str(text)[:SHOWN]}': write a number and a unit ({', '.join(UNITS)}), such as '5 years'."
        )
    length = float(match[1]) * UNITS[match[2]]
    if length > LONGEST:
        raise InputError(
            f"{where} is '{str(text)[:SHOWN]}', longer than {LONGEST // UNITS['year']:,} years: correct it."
        )
    return round(length)


def duration_words(length: int) -> str:
    """`length` microseconds in words, in the largest unit of which it is a whole multiple.

    >>> duration_words(90 * MINUTE), duration_words(DAY), duration_words(MINUTE // 4)
    ('90 minutes', '1 day', '0.25 minutes')
    """
    unit = next((name for name in reversed(UNITS) if length % UNITS[name] == 0), "minute")
    count = length / UNITS[unit]
    return f"{count:.10g} {unit}{'' if count == 1 else 's'}"


def whole_years(born: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Ages in whole years [N] at `time` [N] of people born at `born` [N], microseconds; never fewer at a later time.

    Counted in birthdays, whatever the hour (at midnight, only of those born at midnight); who was born on February 29
    has it on March 1 in other years. A birth that was computed from an age in whole years, as so many times 365.25
    days, gives back that age.

    >>> moments = np.array(["2000-03-01T12", "2025-02-28", "2025-03-01T01"], "datetime64[us]").astype(np.int64)
    >>> whole_years(moments[[0, 0]], moments[1:]).tolist()
    [24, 25]
    """
    passed = (time - born) * (1 / UNITS["year"])
    years = passed.astype(np.int64)
    near = np.flatnonzero(passed - years > 1 - 3 * DAY / UNITS["year"])  # only here may the calendar be ahead
    clocked = born[near] % DAY != 0
    birth, now = (
        moment.astype("datetime64[us]").astype("datetime64[D]") for moment in (born[near], time[near] - clocked)
    )
    first_of_birth, first_of_now = birth.astype("datetime64[M]"), now.astype("datetime64[M]")
    months = (first_of_now - first_of_birth).astype(np.int64)
    months -= now - first_of_now < birth - first_of_birth
    years[near] = np.maximum(years[near], months // 12)
    return years


def months_in(length: int) -> int | None:
    """How many months a duration in microseconds was given as; None for one that is not a whole number of months.

    >>> months_in(5 * UNITS["year"]), months_in(1826 * DAY)
    (60, None)
    """
    months, rest = divmod(length, UNITS["month"])
    return months if months and not rest else None


def reached(at: int, length: int) -> int:
    """How far a record must reach that is to be complete for `length` after `at`; all in microseconds.

    Exactly so far, except that months and years are over on the day on which so many have passed on the calendar:
    a study that follows everybody for five years ends after 1826 or 1827 days, of which a year of 365.25 days, the same
    for everyone, would leave some a few hours short.

    >>> moment = lambda text: int(np.datetime64(text, "us").astype(np.int64))
    >>> reached(moment("2010-01-01T08"), 5 * UNITS["year"]) == moment("2015-01-01")
    True
    """
    months = months_in(length)
    if months is None:
        return at + length
    month = np.datetime64(at, "us").astype("datetime64[M]")
    before = np.datetime64(at, "us").astype("datetime64[D]") - month  # days of the month
    over = month + np.timedelta64(months, "M")
    last = (over + 1).astype("datetime64[D]") - over - 1
    return min(at + length, int((over + min(before, last)).astype("datetime64[us]").astype(np.int64)))


def reached_of(at: pl.Expr, length: int) -> pl.Expr:
    """`reached` for a column of times."""
    exact, months = at + pl.duration(microseconds=length), months_in(length)
    if months is None:
        return exact
    return pl.min_horizontal(exact, at.dt.offset_by(f"{months}mo").dt.truncate("1d"))
