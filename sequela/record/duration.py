"""Converts durations between words and microseconds."""

from __future__ import annotations

import re

from sequela.errors import InputError

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


def parse_duration(text: object, where: str) -> int:
    """A duration such as "5 years" or "1 minute" in microseconds; a year has 365.25 days.

    >>> parse_duration("2 days", "here") == 2 * DAY
    True

    Raises:
        InputError: for anything else; the message starts with `where`.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) +([a-z]+?)s?", str(text).strip())
    if match is None or match[2] not in UNITS:
        raise InputError(
            f"{where} is '{text}': write a number and a unit ({', '.join(UNITS)}), such as '5 years'."
        )
    return round(float(match[1]) * UNITS[match[2]])


def duration_words(length: int) -> str:
    """`length` microseconds in words, in the largest unit of which it is a whole multiple.

    >>> duration_words(90 * MINUTE), duration_words(DAY), duration_words(MINUTE // 4)
    ('90 minutes', '1 day', '0.25 minutes')
    """
    unit = next((name for name in reversed(UNITS) if length % UNITS[name] == 0), "minute")
    count = length / UNITS[unit]
    return f"{count:.10g} {unit}{'' if count == 1 else 's'}"
