"""Cells of raw tables: the text that stands in a file, and what it means. The meaning is chosen first, so that nothing
has to be parsed to know it."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Cell:
    """One cell: its `text`, its `value` (None: no value), and whether it should have been a time but is none."""

    text: str
    value: Any = None
    unreadable: bool = False


EMPTY = Cell("")


def time_cell(rng: Random, moment: dt.datetime | None, zone: str) -> Cell:
    """A cell for `moment`, a local time of `zone`, in any of the spellings that the documentation names."""
    if moment is None:
        if rng.random() < 0.5:
            return EMPTY
        words = ("soon", "2023-02-30", "0000-00-00", "05.13.2020", "2020-01-05 25:00:00", "20")
        return Cell(rng.choice(words), None, unreadable=True)
    forms = [f"{moment:%Y-%m-%d}T{moment:%H:%M:%S}", f"{moment:%Y-%m-%d %H:%M:%S}"]
    if moment.microsecond:
        forms = [f"{form}.{moment.microsecond:06d}" for form in forms]
    elif moment.second == 0:
        forms.append(f"{moment:%Y-%m-%d %H:%M}")
        if moment.hour == moment.minute == 0:
            forms.append(f"{moment:%Y-%m-%d}")
    if rng.random() < 0.2:
        return _with_offset(rng, moment, zone)
    return Cell(rng.choice(forms), moment)


def _with_offset(rng: Random, moment: dt.datetime, zone: str) -> Cell:
    """The same moment, told as an instant: where clocks are set back, only the instant says which one it is."""
    instant = moment.replace(tzinfo=ZoneInfo(zone)).astimezone(dt.UTC)
    value = instant.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    minutes, spelled = rng.choice([(0, "Z"), (0, "+00:00"), (120, "+02:00"), (-330, "-05:30")])
    shown = (instant + dt.timedelta(minutes=minutes)).replace(tzinfo=None)
    return Cell(f"{shown.isoformat(sep=rng.choice('T '))}{spelled}", value)


def quantity_cell(rng: Random) -> Cell:
    """A number among signs, units and words, or a cell that holds none."""
    number = rng.choice([0.0, 0.2, 1.0, 5.0, 7.35, 12.5, 99.0, 1234.0, 1e-3, 3e5])
    plain = f"{number:.10g}"
    forms = [
        (plain, number),
        (f"-{plain}", -number),
        (f">{plain}", number),
        (f"<= {plain} mg/dL", number),
        (f"{plain} mg", number),
        ("1,234", 1234.0),
        ("2+", 2.0),
        ("+++", 3.0),
        ("1e3", 1000.0),
        ("3-5", None),
        ("120/80", None),
        ("negative", None),
        ("1,5", None),
        ("n/a", None),
        ("", None),
        ("nan", None),
    ]
    text, value = rng.choice(forms)
    return Cell(text, value)


def text_cell(rng: Random, words: tuple[str, ...], empty: float = 0.1) -> Cell:
    """One of `words`, or nothing."""
    if rng.random() < empty:
        return rng.choice([EMPTY, Cell("n/a")])
    word = rng.choice(words)
    return Cell(word, word)
