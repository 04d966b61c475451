"""From rows to the events of a record, in plain Python: what ingest has to agree with."""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

STAYS = {
    "HOSPITAL_ADMISSION": "HOSPITAL_DISCHARGE",
    "ED_ADMISSION": "ED_DISCHARGE",
    "ICU_ADMISSION": "ICU_DISCHARGE",
    "ENCOUNTER_START": "ENCOUNTER_END",
}
LATE = ("ICD9CM", "ICD10CM", "DRG", "DIAGNOSIS", "HOSPITAL_DISCHARGE")


@dataclass(frozen=True)
class Event:
    """One event; `rule` is the number of the rule that made it, `named` whether its row names its stay."""

    patient: int
    time: dt.datetime | None
    code: str
    number: float | None = None
    rule: int = 0
    named: bool = False

    @property
    def head(self) -> str:
        return self.code.split("/")[0]


def plain(code: str) -> str:
    """A code in the one spelling in which codes are compared: of ICD without dots, of sex in one letter."""
    head, slashes, rest = code.partition("//")
    if head.startswith("ICD"):
        return head + slashes + rest.replace(".", "").upper()
    return "GENDER//F" if code == "GENDER//female" else code


def is_a(code: str, what: str) -> bool:
    """Whether a code is birth, death or the end of follow-up, perhaps with more behind it."""
    return code == what or code.startswith(f"{what}//")


def single(number: float | None) -> float | None:
    """In single precision; None if it does not fit or is no number."""
    if number is None or math.isnan(number) or abs(number) > 3.4028234e38:
        return None
    return float(np.float32(number))


def finish(events: list[Event], late: frozenset[int] = frozenset()) -> tuple[list[Event], Counter]:
    """The events that stay, in order, and how many of each rule were dropped, by (rule, reason).

    Args:
        late: rules whose events are known only at the end of a stay, whatever their code.
    """
    kept, dropped = [], Counter()
    for patient in sorted({event.patient for event in events}):
        row = cap_days(move_leaks([event for event in events if event.patient == patient], late))
        row.sort(key=_order)
        births = [e.time for e in row if e.code == "MEDS_BIRTH" and e.time]
        ends = [e.time for e in row if e.code == "FOLLOW_UP//END" and e.time]
        seen = set()
        for event in row:
            same = (event.time, event.code, event.number)
            reason = None
            if same in seen:
                reason = "duplicate"
            elif event.time and births and event.time < min(births):
                reason = "before birth"
            elif event.time and ends and event.time > max(ends):
                reason = "after follow-up end"
            seen.add(same)
            if reason:
                dropped[event.rule, reason] += 1
            else:
                kept.append(event)
    return kept, dropped


def _order(event: Event) -> tuple:
    undated = event.time is not None
    number = (event.number is not None, event.number or 0.0)
    return undated, event.time or dt.datetime.min, event.rule, event.code, number


def move_leaks(events: list[Event], late: frozenset[int]) -> list[Event]:
    """One patient's events, with those that are known only at the end of a stay moved there from its opening."""
    stays = _stays(events)
    watched = [e for e in events if e.time and (e.head in LATE or e.rule in late)]
    opening = {stay.begin for stay in stays}
    sure = {(e.head, e.time) for e in watched if e.time not in opening}
    out = []
    for event in events:
        opened = [stay for stay in stays if stay.begin == event.time]
        if event.named or event not in watched or not opened:
            out.append(event)
            continue
        if _closes(events, event.time):
            around = [stay for stay in stays if stay.begin <= event.time < stay.end]
            if event.head in STAYS.values() or any((event.head, stay.end) in sure for stay in around):
                out.append(event)
                continue
        out.append(replace(event, time=max(stay.end for stay in opened)))
    return out


@dataclass(frozen=True)
class Stay:
    """A stay whose end is known."""

    begin: dt.datetime
    end: dt.datetime


def _kind(code: str) -> tuple[str, bool] | None:
    """The kind of stay that a code opens (True) or closes (False)."""
    head, *rest = code.split("//")
    for opens, closes in STAYS.items():
        if head in (opens, closes):
            kind = f"{opens}//{rest[0] if rest else ''}" if opens == "ENCOUNTER_START" else opens
            return kind, head == opens
    return None


def _walk(events: list[Event]) -> dict[str, list[tuple[dt.datetime, int, int, bool, bool]]]:
    """For each kind of stay, its moments: when, how many open and close, and whether one is open before and after."""
    moments: dict[str, dict[dt.datetime, list[int]]] = {}
    for event in events:
        kind = _kind(event.code)
        if kind and event.time:
            counts = moments.setdefault(kind[0], {}).setdefault(event.time, [0, 0])
            counts[0 if kind[1] else 1] += 1
    out: dict[str, list] = {}
    for kind, by_time in moments.items():
        state = False
        for time in sorted(by_time):
            opens, closes = by_time[time]
            before = state
            state = opens > closes if opens != closes else before
            out.setdefault(kind, []).append((time, opens, closes, before, state))
    return out


def _stays(events: list[Event]) -> list[Stay]:
    """Every stay that opens, and when it closes: next, or with all others if several of its kind are open together."""
    out = []
    for steps in _walk(events).values():
        balances, level = [], 0
        for _, opens, closes, _, _ in steps:
            level += opens - closes
            balances.append(level)
        for place, (time, opens, closes, _, after) in enumerate(steps):
            if not opens or not after:
                continue
            if steps[place + 1 :] and steps[place + 1][2] and opens - closes <= 1:
                out.append(Stay(time, steps[place + 1][0]))
                continue
            none_left = [
                later
                for later in range(place, len(steps))
                if balances[later] == min(0, *balances[: later + 1])
            ]
            if none_left:
                out.append(Stay(time, steps[none_left[0]][0]))
    return out


def _last_end(walk: dict, time: dt.datetime) -> dt.datetime | None:
    """When the stay ended that is the last thing that opened or closed on that day, if none is open."""
    last = {kind: [step for step in steps if step[0] <= time][-1:] for kind, steps in walk.items()}
    states = {kind: steps[0] for kind, steps in last.items() if steps}
    if not states or any(step[4] for step in states.values()):
        return None
    latest = max(step[0] for step in states.values())
    closed = [step[0] for kind, step in states.items() if step[2] and not kind.startswith("ENCOUNTER_START")]
    return latest if latest in closed and latest.date() == time.date() and latest < time else None


def _in_house(event: Event, events: list[Event]) -> Event:
    """A death that is dated by the day alone, where a stay ends on that day whose code says DIED."""
    if not event.time or event.time.time() != dt.time(23, 59, 59) or not is_a(event.code, "MEDS_DEATH"):
        return event
    end = _last_end(_walk(events), event.time)
    died = [e for e in events if e.time == end and _kind(e.code) and e.code.partition("//")[2] == "DIED"]
    return replace(event, time=end) if end and died else event


def cap_days(events: list[Event]) -> list[Event]:
    """One patient's events, with those at the last second of a day moved to what ended on that day.

    That is the record, or a stay in hospital after which nothing opens or closes any more on that day. A death moves
    only if the stay says that the patient died, and moves first.
    """
    events = [_in_house(event, events) for event in events]
    deaths = [e.time for e in events if e.time and is_a(e.code, "MEDS_DEATH")]
    ends = [e.time for e in events if e.time and is_a(e.code, "FOLLOW_UP//END")]
    over = [time for time in (min(deaths, default=None), max(ends, default=None)) if time]
    walk = _walk(events)
    out = []
    for event in events:
        time = event.time
        if not time or time.time() != dt.time(23, 59, 59) or is_a(event.code, "MEDS_BIRTH"):
            out.append(event)
            continue
        moves = [end for end in [min(over, default=None)] if end and end.date() == time.date() and end < time]
        bound = _kind(event.code) or is_a(event.code, "MEDS_DEATH") or is_a(event.code, "FOLLOW_UP//END")
        end = _last_end(walk, time)
        if end and not event.named and not bound:
            moves.append(end)
        out.append(replace(event, time=min(moves)) if moves else event)
    return out


def _closes(events: list[Event], time: dt.datetime) -> bool:
    """Whether a stay that was open before closes at `time`."""
    return any(step[0] == time and step[2] and step[3] for steps in _walk(events).values() for step in steps)
