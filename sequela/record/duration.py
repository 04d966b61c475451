"""Spans of time in words, in microseconds."""

from __future__ import annotations

import re

from sequela.errors import InputError

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
UNITS = {  # microseconds; a month and a year are means, so that a horizon is the same length for everyone
    "minute": MINUTE,
    "hour": HOUR,
    "day": DAY,
    "week": 7 * DAY,
    "month": round(365.25 / 12 * DAY),
    "year": round(365.25 * DAY),
}


def parse_duration(text: object, where: str) -> int:
    """Microseconds of a duration such as "5 years" or "1 minute"; a year has 365.25 days.

    >>> parse_duration("2 days", "here") == 2 * DAY
    True

    Raises:
        InputError: naming `where`, for anything else.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) +([a-z]+?)s?", str(text).strip())
    if found is None or found[2] not in UNITS:
        raise InputError(
            f"{where} is '{text}': write a number and a unit ({', '.join(UNITS)}), such as '5 years'."
        )
    return round(float(found[1]) * UNITS[found[2]])


def duration_words(length: int) -> str:
    """A duration of so many microseconds in the largest unit of which it is a whole number.

    >>> duration_words(90 * MINUTE), duration_words(DAY), duration_words(MINUTE // 4)
    ('90 minutes', '1 day', '0.25 minutes')
    """
    unit = next((name for name in reversed(UNITS) if length % UNITS[name] == 0), "minute")
    many = length / UNITS[unit]
    return f"{many:.10g} {unit}{'' if many == 1 else 's'}"
