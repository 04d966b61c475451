"""Spans of time: read, said again, and refused."""

import pytest

from sequela.errors import InputError
from sequela.record.duration import DAY, MINUTE, UNITS, duration_words, parse_duration


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


@pytest.mark.parametrize("text", ["", "5", "years", "-1 day", "5years", "1 fortnight", None])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(InputError, match="here is"):
        parse_duration(text, "here")
