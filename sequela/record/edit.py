"""What if? Events put into histories, taken out, or given another value, before a question is asked.

Only what lies strictly before the prediction time is edited. Removals come first, then replacements, then additions,
each kind in the order in which it was asked for. Codes are those of the events at hand.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from sequela.errors import InputError
from sequela.record.duration import duration_words, parse_duration
from sequela.record.events import NEVER, Events
from sequela.record.schema import BIRTH, DEATH, FOLLOW_UP_END
from sequela.record.timeline import STATIC

AGO = " @ "  # between what and when
GREATEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Addition:
    """An event that is put in, `ago` microseconds before the prediction time; `value` None is none."""

    code: str
    ago: int
    value: float | None = None

    def __post_init__(self) -> None:
        _check(self.code, self.value, self)
        if self.ago <= 0:
            raise InputError(f"{self}: an event is added before the prediction time; write a time above 0.")
        if self.code in (BIRTH, DEATH, FOLLOW_UP_END):
            raise InputError(
                f"{self}: {self.code} cannot be added, it bounds what a history is; add another code."
            )

    def __str__(self) -> str:
        return f"add {self.code}{_equals(self.value)}{AGO}{duration_words(self.ago)}"


@dataclass(frozen=True)
class Removal:
    """Events that are taken out: those of `code`, which may end with * for any rest.

    `within`: only the dated ones of so many microseconds before the prediction time; None: all.
    """

    code: str
    within: int | None = None

    def __post_init__(self) -> None:
        if not self.code.strip("*"):
            raise InputError(
                "--remove names no code: write one, such as 'ATC//C10*'; what is left without it tells nothing."
            )
        if self.within is not None and self.within <= 0:
            raise InputError(f"{self}: write a time above 0, or none to remove all.")

    def __str__(self) -> str:
        return f"remove {self.code}{'' if self.within is None else AGO + duration_words(self.within)}"


@dataclass(frozen=True)
class Replacement:
    """Another `value` for the latest event of `code` that has one, at the same time."""

    code: str
    value: float

    def __post_init__(self) -> None:
        _check(self.code, self.value, self)

    def __str__(self) -> str:
        return f"set {self.code}{_equals(self.value)}"


@dataclass(frozen=True)
class Edits:
    """All that is changed at once. False where nothing is."""

    remove: tuple[Removal, ...] = ()
    replace: tuple[Replacement, ...] = ()
    add: tuple[Addition, ...] = ()

    @staticmethod
    def parse(add: Iterable[str] = (), remove: Iterable[str] = (), set: Iterable[str] = ()) -> Edits:
        """Edits in words.

        Args:
            add: "CODE @ 1 hour" or "CODE = 1.2 @ 30 minutes".
            remove: "CODE", "PREFIX*", or either with "@ 30 days": of the last so long only.
            set: "CODE = 1.2".

        Raises:
            InputError: for anything else.
        """
        return Edits(
            tuple(_removal(text) for text in remove),
            tuple(_replacement(text) for text in set),
            tuple(_addition(text) for text in add),
        )

    def __bool__(self) -> bool:
        return bool(self.in_order)

    @property
    def in_order(self) -> tuple[Removal | Replacement | Addition, ...]:
        """E edits in the order in which they are made."""
        return (*self.remove, *self.replace, *self.add)


NO_EDITS = Edits()


def edited(columns: Events, at: np.ndarray, edits: Edits) -> tuple[Events, np.ndarray]:
    """The events after all edits, and whom each edit concerned.

    Nothing at or after the prediction time changes. An addition is for those who have a dated event (birth is none)
    before it. Of several values at the latest time a replacement leaves one.

    Args:
        columns: N events of P patients.
        at: int64 [P], each patient's prediction time in microseconds, in the order of `columns.starts`.

    Returns:
        The events, and bool [E, P]: whether each edit found something to do.

    Raises:
        InputError: where an addition would lie before the first dated event of a history.
    """
    count = np.diff(np.append(columns.starts, len(columns)))
    owner = np.repeat(np.arange(len(count)), count)
    before = columns.time < at[owner]
    keep, number = np.ones(len(columns), bool), columns.number.copy()
    found = np.zeros((len(edits.in_order), len(count)), bool)
    for place, edit in enumerate(edits.in_order):
        if isinstance(edit, Removal):
            hit = keep & before & _named(columns, edit.code)
            if edit.within is not None:
                hit &= columns.time >= at[owner] - edit.within
            keep &= ~hit
            found[place, owner[hit]] = True
        elif isinstance(edit, Replacement):
            hit = keep & before & _named(columns, edit.code) & ~np.isnan(number) & (columns.time != STATIC)
            latest = np.full(len(count), STATIC)
            np.maximum.at(latest, owner[hit], columns.time[hit])
            rows = np.flatnonzero(hit & (columns.time == latest[owner]))
            patients, first = np.unique(owner[rows], return_index=True)
            keep[rows] = False
            keep[rows[first]] = True
            number[rows[first]] = edit.value
            found[place, patients] = True
        else:
            found[place] = _takes(columns, owner, at, edit)
    kept = replace(columns, number=number).take(keep)
    takers = found[len(edits.in_order) - len(edits.add) :]
    return _with_additions(kept, columns.patient[columns.starts], at, edits.add, takers), found


def _takes(columns: Events, owner: np.ndarray, at: np.ndarray, addition: Addition) -> np.ndarray:
    """Who has a history to add to, bool [P]."""
    dated = (columns.time != STATIC) & ~_named(columns, BIRTH) & ~_named(columns, FOLLOW_UP_END)
    first = np.full(len(at), NEVER)
    np.minimum.at(first, owner[dated], columns.time[dated])
    there = first < at
    early = there & (at - addition.ago < first)
    if early.any():
        raise InputError(
            f"{addition}: {early.sum()} of {there.sum()} histories looked at begin later than that, and nothing is "
            "known of the time before: add it nearer to the prediction time, or ask a task with longer histories."
        )
    return there


def _with_additions(
    columns: Events,
    patients: np.ndarray,
    at: np.ndarray,
    additions: tuple[Addition, ...],
    takers: np.ndarray,
) -> Events:
    """The events with those added, at the same time after those that were there; bool [A, P] says to whom."""
    if not takers.any():
        return columns
    names = tuple(sorted({*columns.names, *(one.code for one in additions)}))
    renamed = np.searchsorted(np.array(names, object), np.array(columns.names, object)).astype(np.int32)
    patient, time = [columns.patient], [columns.time]
    code, number = [renamed[columns.code]], [columns.number]
    for addition, who in zip(additions, takers, strict=True):
        many = int(who.sum())
        patient.append(patients[who])
        time.append(at[who] - addition.ago)
        code.append(np.full(many, names.index(addition.code), np.int32))
        number.append(np.full(many, np.nan if addition.value is None else addition.value, np.float32))
    patient, time = np.concatenate(patient), np.concatenate(time)
    added = len(patient) - len(columns)
    payload = (
        None if column is None else column.extend_constant(None, added) for column in (columns.text, columns.media)
    )
    every = Events(patient, time, np.concatenate(code), np.concatenate(number), names, *payload)
    return every.take(np.lexsort((time, patient)))


def _named(columns: Events, pattern: str) -> np.ndarray:
    """Which events have a code that is `pattern`, in which a trailing * stands for any rest; bool [N]."""
    bare, star = pattern.removesuffix("*"), pattern.endswith("*")
    names = [name.startswith(bare) if star else name == bare for name in columns.names]
    return np.array(names, bool)[columns.code] if names else np.zeros(len(columns), bool)


def _addition(text: str) -> Addition:
    what, at, when = text.rpartition(AGO)
    if not at:
        raise InputError(f"--add '{text}' says no time: write 'CODE @ 1 hour' or 'CODE = 1.2 @ 1 hour'.")
    code, value = _valued(what)
    return Addition(code, parse_duration(when, f"--add '{text}': the time before the prediction"), value)


def _removal(text: str) -> Removal:
    code, at, when = text.rpartition(AGO)
    if not at:
        return Removal(text.strip())
    return Removal(code.strip(), parse_duration(when, f"--remove '{text}': how far back"))


def _replacement(text: str) -> Replacement:
    if AGO in text:
        raise InputError(f"--set '{text}' names a time; it is that of the latest value: leave '@ ...' out.")
    code, value = _valued(text)
    if value is None:
        raise InputError(f"--set '{text}' names no number: write 'CODE = 1.2'.")
    return Replacement(code, value)


def _valued(text: str) -> tuple[str, float | None]:
    """A code, and the number after the last = where there is one; codes themselves may hold the sign."""
    code, equals, value = text.rpartition("=")
    try:
        return (code.strip(), float(value)) if equals else (text.strip(), None)
    except ValueError:
        return text.strip(), None


def _check(code: str, value: float | None, edit: object) -> None:
    if not code or code.endswith("*"):
        raise InputError(f"{edit}: name one whole code; only --remove takes a part of one.")
    if value is not None and not abs(value) <= GREATEST:
        raise InputError(f"{edit}: give a number that can be, in the unit of the code.")


def _equals(value: float | None) -> str:
    return "" if value is None else f" = {value:.10g}"
