"""Spans of time: read, said again, and refused."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sequela.errors import InputError
from sequela.record.duration import (
    DAY,
    MINUTE,
    UNITS,
    duration_words,
    months_in,
    parse_duration,
    reached,
    reached_of,
    whole_years,
)


@pytest.mark.parametrize(
    ("text", "length"),
    [("1 minute", MINUTE), ("36 hours", 1.5 * DAY), ("0.5 day", DAY / 2), ("2 weeks", 14 * DAY)],
)
def test_durations(text, length):
    assert parse_duration(text, "here") == length
    assert parse_duration(duration_words(length), "here") == length


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("many", [1, 2, 11])
def test_whole_numbers_of_a_unit_are_said_so_that_they_are_read_the_same(unit, many):
    assert parse_duration(duration_words(many * UNITS[unit]), "here") == many * UNITS[unit]


@pytest.mark.parametrize(
    "text", ["", "5", "years", "-1 day", "5years", "1 fortnight", "\u0663 days", "1e3 days", "1,5 days", None]
)
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(InputError, match="here is"):
        parse_duration(text, "here")


def moment(text: str) -> int:
    return int(np.datetime64(text, "us").astype(np.int64))


days = st.dates(datetime(1880, 1, 1).date(), datetime(2200, 1, 1).date())


@given(days, st.integers(0, 45_000), st.integers(0, 86_399))
def test_an_age_is_that_of_the_last_birthday(born, days, second):
    """A naive count; within a day before the birthday, years of 365.25 days may be ahead by some hours."""
    now = datetime(born.year, born.month, born.day) + timedelta(days=days, seconds=second)
    birthdays = now.year - born.year - ((now.month, now.day) < (born.month, born.day))
    got = whole_years(np.array([moment(born.isoformat())]), np.array([moment(now.isoformat())]))[0]
    tomorrow = now + timedelta(days=1)
    assert birthdays <= got <= tomorrow.year - born.year - ((tomorrow.month, tomorrow.day) < (born.month, born.day))
    if second == 0:
        assert got == birthdays


@pytest.mark.parametrize(
    ("start", "length", "needed"),
    [
        ("2010-01-01", "5 years", "2015-01-01"),  # 1826 days
        ("2011-01-01T00:01", "5 years", "2016-01-01"),
        ("2008-01-01", "5 years", "2012-12-31T06"),  # 1827 days: a year of 365.25 days is over before
        ("2098-06-01", "5 years", "2103-06-01"),  # 1825 days: 2100 has no February 29
        ("2012-02-29T12", "1 year", "2013-02-28"),
        ("2011-08-31", "6 months", "2012-02-29"),
        ("2011-09-01T13:30", "6 months", "2012-03-01"),  # 182 days, and half a day more
        ("2010-01-01T08", "30 days", "2010-01-31T08"),  # no months: exactly
        ("2010-01-01T08", "1826 days", "2015-01-01T08"),
    ],
)
def test_a_record_that_lasts_so_many_calendar_months_is_long_enough(start, length, needed):
    at, span = moment(start), parse_duration(length, "here")
    assert np.datetime64(reached(at, span), "us") == np.datetime64(needed, "us")
    column = pl.DataFrame({"at": pl.Series([at]).cast(pl.Datetime("us"))}).select(reached_of(pl.col("at"), span))
    assert column.to_series().to_physical().to_list() == [reached(at, span)]


def test_only_whole_months_are_months():
    spans = ["1 month", "1.5 years", "1461 days", "1 day", "365 days", "1 week", "0.5 months"]
    assert [months_in(parse_duration(span, "here")) for span in spans] == [1, 18, 48, None, None, None, None]


@pytest.mark.parametrize("text", ["400000 years", "12001 months", "9" * 400 + " days"])
def test_what_is_longer_than_any_record_is_refused_and_shown_in_part(text):
    with pytest.raises(InputError, match=r"longer than 1,000 years") as error:
        parse_duration(text, "here")
    assert len(str(error.value)) < 200
    assert parse_duration("1000 years", "here") == 1000 * UNITS["year"]
