"""What-if edits of histories: add events, remove events, or replace a value.

Only events strictly before the prediction time are edited. Removals come first, then replacements, then additions,
each in the given order. Codes are those of the given events, before any tokenization, in any spelling (see
`sequela.record.spelling`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from sequela.errors import InputError
from sequela.record.duration import duration_words, parse_duration
from sequela.record.events import NEVER, Events
from sequela.record.schema import BIRTH, EXTENDED, FOLLOW_UP_END, means
from sequela.record.spelling import matches_code, spelled
from sequela.record.timeline import STATIC

AGO = " @ "  # separates what from when
GREATEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Addition:
    """An event to add, `ago` microseconds before the prediction time; `value` None for no value."""

    code: str
    ago: int
    value: float | None = None

    def __post_init__(self) -> None:
        _check(self.code, self.value, self)
        if self.ago <= 0:
            raise InputError(f"{self}: an event must be added before the prediction time; write a time above 0.")
        if any(means(self.code, event) for event in EXTENDED):
            raise InputError(
                f"{self}: {self.code} cannot be added, because it delimits histories; add another code."
            )

    def __str__(self) -> str:
        return f"add {self.code}{_equals(self.value)}{AGO}{duration_words(self.ago)}"


@dataclass(frozen=True)
class Removal:
    """Events to remove: those of `code`, which may end with the wildcard *.

    `within`: only dated events at most so many microseconds before the prediction time; None for all.
    """

    code: str
    within: int | None = None

    def __post_init__(self) -> None:
        if not self.code.strip("*"):
            raise InputError(
                "`remove` names no code: write one, such as 'ATC//C10*'; removing everything would leave no history."
            )
        if self.within is not None and self.within <= 0:
            raise InputError(f"{self}: write a time above 0, or none to remove all.")

    def __str__(self) -> str:
        return f"remove {self.code}{'' if self.within is None else AGO + duration_words(self.within)}"


@dataclass(frozen=True)
class Replacement:
    """A new `value` for the latest event of `code` that has a value."""

    code: str
    value: float

    def __post_init__(self) -> None:
        _check(self.code, self.value, self)

    def __str__(self) -> str:
        return f"set {self.code}{_equals(self.value)}"


@dataclass(frozen=True)
class Edits:
    """A set of edits to make together; false if there are none."""

    remove: tuple[Removal, ...] = ()
    replace: tuple[Replacement, ...] = ()
    add: tuple[Addition, ...] = ()

    @staticmethod
    def parse(add: Iterable[str] = (), remove: Iterable[str] = (), set: Iterable[str] = ()) -> Edits:
        """Edits from text.

        Args:
            add: "CODE @ 1 hour" or "CODE = 1.2 @ 30 minutes".
            remove: "CODE" or "PREFIX*"; followed by "@ 30 days", only events of the last 30 days.
            set: "CODE = 1.2".

        Raises:
            InputError: for anything else.
        """
        return Edits(
            tuple(dict.fromkeys(_removal(text) for text in remove)),  # once is enough; an event may be added twice
            tuple(dict.fromkeys(_replacement(text) for text in set)),
            tuple(_addition(text) for text in add),
        )

    def __bool__(self) -> bool:
        return bool(self.in_order)

    @property
    def in_order(self) -> tuple[Removal | Replacement | Addition, ...]:
        """The E edits in the order in which they are applied."""
        return (*self.remove, *self.replace, *self.add)


NO_EDITS = Edits()


def edited(events: Events, at: np.ndarray, edits: Edits) -> tuple[Events, np.ndarray]:
    """The events after all edits, and which patients each edit changed.

    Nothing at or after the prediction time changes. An addition applies to patients with a dated event other than birth
    before the prediction time. If the latest time has several values, a replacement leaves one.

    Args:
        events: N events of P patients.
        at: int64 [P], each patient's prediction time in microseconds, in the order of `events.starts`.

    Returns:
        The events, and bool [E, P]: whether each edit applied to each patient.

    Raises:
        InputError: if an addition would come before the first dated event of a history.
    """
    count = np.diff(np.append(events.starts, len(events)))
    owner = np.repeat(np.arange(len(count)), count)
    before = events.time < at[owner]
    keep, number = np.ones(len(events), bool), events.number.copy()
    applied = np.zeros((len(edits.in_order), len(count)), bool)
    for number_of_edit, edit in enumerate(edits.in_order):
        if isinstance(edit, Removal):
            hit = keep & before & _named(events, edit.code)
            if edit.within is not None:
                hit &= events.time >= at[owner] - edit.within
            keep &= ~hit
            applied[number_of_edit, owner[hit]] = True
        elif isinstance(edit, Replacement):
            hit = keep & before & _named(events, edit.code) & ~np.isnan(number) & (events.time != STATIC)
            latest = np.full(len(count), STATIC)
            np.maximum.at(latest, owner[hit], events.time[hit])
            rows = np.flatnonzero(hit & (events.time == latest[owner]))
            patients, first = np.unique(owner[rows], return_index=True)
            keep[rows] = False
            keep[rows[first]] = True
            number[rows[first]] = edit.value
            applied[number_of_edit, patients] = True
        else:
            applied[number_of_edit] = _takers(events, owner, at, edit)
    kept = replace(events, number=number).take(keep)
    takers = applied[len(edits.in_order) - len(edits.add) :]
    return _with_additions(kept, events.patient[events.starts], at, edits.add, takers), applied


def _takers(events: Events, owner: np.ndarray, at: np.ndarray, addition: Addition) -> np.ndarray:
    """Which patients have a history to add to, bool [P]."""
    silent = events.called(lambda code: means(code, BIRTH) or means(code, FOLLOW_UP_END))
    dated = (events.time != STATIC) & ~silent
    first = np.full(len(at), NEVER)
    np.minimum.at(first, owner[dated], events.time[dated])
    there = first < at
    early = there & (at - addition.ago < first)
    if early.any():
        raise InputError(
            f"{addition}: {early.sum()} of {there.sum()} histories start later than that, and nothing "
            "is known about the time before: add it closer to the prediction time, or use a task with longer histories."
        )
    return there


def _with_additions(
    events: Events,
    patients: np.ndarray,
    at: np.ndarray,
    additions: tuple[Addition, ...],
    takers: np.ndarray,
) -> Events:
    """The events with the additions, each after existing events of the same time; `takers` is bool [A, P]."""
    if not takers.any():
        return events
    names = tuple(sorted({*events.names, *(spelled(addition.code) for addition in additions)}))
    renamed = np.searchsorted(np.array(names, object), np.array(events.names, object)).astype(np.int32)
    patient, time = [events.patient], [events.time]
    code, number = [renamed[events.code]], [events.number]
    for addition, who in zip(additions, takers, strict=True):
        count = int(who.sum())
        patient.append(patients[who])
        time.append(at[who] - addition.ago)
        code.append(np.full(count, names.index(spelled(addition.code)), np.int32))
        number.append(np.full(count, np.nan if addition.value is None else addition.value, np.float32))
    patient, time = np.concatenate(patient), np.concatenate(time)
    added = len(patient) - len(events)
    payload = (
        None if column is None else column.extend_constant(None, added) for column in (events.text, events.media)
    )
    every = Events(patient, time, np.concatenate(code), np.concatenate(number), names, *payload)
    return every.take(np.lexsort((time, patient)))


def _named(events: Events, pattern: str) -> np.ndarray:
    """Which events have a code that matches `pattern`, which may end with the wildcard *; bool [N]."""
    return events.called(lambda code: matches_code(code, (pattern,)))


def _addition(text: str) -> Addition:
    what, at, when = text.rpartition(AGO)
    if not at:
        raise InputError(f"`add` '{text}' has no time: write 'CODE @ 1 hour' or 'CODE = 1.2 @ 1 hour'.")
    code, value = _valued(what)
    return Addition(code, parse_duration(when, f"`add` '{text}': the time before the prediction"), value)


def _removal(text: str) -> Removal:
    code, at, when = text.rpartition(AGO)
    if not at:
        return Removal(text.strip())
    return Removal(code.strip(), parse_duration(when, f"`remove` '{text}': how far back"))


def _replacement(text: str) -> Replacement:
    if AGO in text:
        raise InputError(f"`set` '{text}' names a time, but always changes the latest value: leave out '@ ...'.")
    code, value = _valued(text)
    if value is None:
        raise InputError(f"`set` '{text}' has no number: write 'CODE = 1.2'.")
    return Replacement(code, value)


def _valued(text: str) -> tuple[str, float | None]:
    """The code and the number after the last "=", if any; codes may contain "=" too."""
    code, equals, value = text.rpartition("=")
    try:
        return (code.strip(), float(value)) if equals else (text.strip(), None)
    except ValueError:
        return text.strip(), None


def _check(code: str, value: float | None, edit: object) -> None:
    if not code or code.endswith("*"):
        raise InputError(f"{edit}: name one whole code; only `remove` accepts a prefix.")
    if value is not None and not abs(value) <= GREATEST:
        raise InputError(f"{edit}: give a finite number within float32, in the unit of the code.")


def _equals(value: float | None) -> str:
    return "" if value is None else f" = {value:.10g}"
