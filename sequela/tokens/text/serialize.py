"""A record as text: what opens it, then a paragraph for each day, oldest first.

The layout is that of SMB-Structure's checkpoints (arXiv 2601.22128) in its mode by date:

    Birth: 1985-03-15
    GENDER//F


    [2024-01-05]
    ICD10CM//C3490

    [2024-01-10]
    LAB//CREATININE: 1.1, 1.23

A day has one line for each code, in the order of `CATEGORIES` and in each of them of their first events; a line has the
latest values of the day. The newest day is last, so that the last token of a causal model has seen all of them.

Shape letters: N events, P patients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache

import numpy as np

from sequela.record.duration import DAY
from sequela.record.events import NEVER, Events, births
from sequela.record.schema import BIRTH, FOLLOW_UP_END, means
from sequela.record.timeline import STATIC
from sequela.tokens.ehr.code import family
from sequela.tokens.text.settings import TextSettings

# The order of a day, each with the families of codes in it
CATEGORIES = {
    "demographics": ("demographic",),
    "conditions": ("diagnosis",),
    "observations": ("encounter", "department", "complaint", "billing", "other"),
    "measurements": ("lab", "vital"),
    "procedures": ("procedure",),
    "drugs": ("medication",),
    "death": ("death",),
    "notes": (),
}
_RANK = {kind: rank for rank, families in enumerate(CATEGORIES.values()) for kind in families}
EPOCH = date(1970, 1, 1)
SMALLEST = 1e-6  # below it, a number is written with an exponent


@dataclass(frozen=True)
class PatientText:
    """A patient's record.

    Attributes:
        days: where in `text` each day begins; what is before the first opens the record.
    """

    text: str
    days: tuple[int, ...]


def serialize(events: Events, settings: TextSettings) -> list[PatientText]:
    """The record of each of the P patients; empty where nothing of it can be written.

    Args:
        events: sorted, with what may be known and nothing else.
    """
    stops = np.append(events.starts[1:], len(events))[: len(events.starts)]
    born = births(events)
    return [
        _record(events, int(start), int(stop), int(birth), settings)
        for start, stop, birth in zip(events.starts, stops, born, strict=True)
    ]


def _record(events: Events, start: int, stop: int, birth: int, settings: TextSettings) -> PatientText:
    opening: dict[str, list[str]] = {}
    days: dict[int, dict[str, list[str]]] = {}
    texts = [None] * (stop - start) if events.text is None else events.text[start:stop].to_list()
    for row in range(start, stop):
        code, at = events.names[events.code[row]], int(events.time[row])
        if means(code, FOLLOW_UP_END):
            continue
        if means(code, BIRTH) and at != STATIC:
            if settings.text_days == "date" and at == birth:
                opening[f"Birth: {_date(at // DAY)}"] = []
            continue
        number = float(events.number[row])
        value = texts[row - start] if math.isnan(number) else written(number, settings.text_numbers)
        lines = opening if at == STATIC else days.setdefault(at // DAY, {})
        lines.setdefault(code, []).extend([value] * bool(value))
    return _joined(opening, days, birth, settings)


def _joined(
    opening: dict[str, list[str]], days: dict[int, dict[str, list[str]]], birth: int, settings: TextSettings
) -> PatientText:
    first = min(days, default=0)
    parts, begins = ["\n".join(_lines(opening, settings.text_values))] * bool(opening), []
    length = len(parts[0]) + 2 if parts else 0
    paragraphs = []
    for day in sorted(days):
        heading = str(_date(day)) if settings.text_days == "date" else _age(day, first, birth)
        begins.append(length + 1)
        paragraphs.append("\n".join(["", f"[{heading}]", *_lines(days[day], settings.text_values)]))
        length += len(paragraphs[-1]) + 1
    parts += ["\n".join(paragraphs)] * bool(paragraphs)
    return PatientText("\n\n".join(parts), tuple(begins))


def _lines(codes: dict[str, list[str]], most: int) -> list[str]:
    """A line for each code."""
    ordered = sorted(codes, key=category)  # stable: of one category, the order of their first events
    found = (f"{code}: {', '.join(codes[code][-most:])}" if codes[code] else code for code in ordered)
    return list(dict.fromkeys(found))


@lru_cache(maxsize=1 << 17)
def category(code: str) -> int:
    """The place of a code in the order of a day.

    >>> names = list(CATEGORIES)
    >>> [names[category(code)] for code in ("ICD10CM//C3490", "LOINC:2160-0", "RxNorm:583214", "NOTE//RADIOLOGY")]
    ['conditions', 'measurements', 'drugs', 'notes']
    """
    head = code.replace(":", "/", 1)
    if head.upper().startswith("BIRTH:"):
        return 0
    if family(head) == "other" and head.upper().startswith("NOTE"):
        return list(CATEGORIES).index("notes")
    return _RANK[family(head)]


def written(number: float, how: str) -> str:
    """A number as text; see `TextSettings.text_numbers`. Digits before the point are never rounded away.

    >>> [written(x, "significant") for x in (0.004, 1.234, 12.5, 1985.0, 123456.0, 0.0, -0.0417, 2e-9)]
    ['0.004', '1.23', '12.5', '1985', '123456', '0', '-0.0417', '2e-09']
    >>> [written(x, "two_decimals") for x in (0.004, 1.234, 12.5)]
    ['0.00', '1.23', '12.50']
    """
    if how == "two_decimals":
        return f"{number:.2f}"
    if number == 0:
        return "0"
    if abs(number) < SMALLEST:
        return f"{number:.3g}"
    decimals = max(0, 2 - math.floor(math.log10(abs(number))))
    fixed = f"{number:.{decimals}f}"
    return fixed.rstrip("0").rstrip(".") if decimals else fixed


def _date(day: int) -> date:
    """The date of a day, counted from 1970 on."""
    return EPOCH + timedelta(days=day)


def _age(day: int, first: int, birth: int) -> str:
    """A day by the age in years, if birth is known, and by how many days after the first one it is."""
    since = f"day {day - first}"
    if birth == NEVER:
        return since
    born, now = _date(birth // DAY), _date(day)
    years = now.year - born.year - ((now.month, now.day) < (born.month, born.day))
    return f"age {years}, {since}"
