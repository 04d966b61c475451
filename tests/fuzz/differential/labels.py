"""Questions and their answers, event by event: what cohorts and labels have to agree with."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from random import Random

from sequela.record.duration import UNITS
from sequela.task.task import Task
from tests.fuzz.differential.events import Event, plain, single

MICROSECOND = dt.timedelta(microseconds=1)
Question = tuple[int, dt.datetime]


@dataclass(frozen=True)
class Answer:
    """The label of a question (None: not known), what decided it, and after how many days."""

    label: float | None
    decided: str
    days: float


def random_task(rng: Random, events: list[Event]) -> Task:
    """A task about codes that occur, with horizons and offsets that are gaps between events."""
    codes = sorted({event.code for event in events})
    times = sorted({event.time for event in events if event.time})
    gaps = [(b - a) // MICROSECOND for a in times for b in times if b > a] or [1]

    def pattern() -> str:
        code = rng.choice(codes)
        head = rng.randint(1, len(code))
        return f"{code[:head]}*" if rng.random() < 0.3 else code

    kind = rng.choice(["binary", "binary", "time", "count", "value"])
    at_least = rng.choice([1, 1, 2]) if kind in ("binary", "time") else 1
    fields = {
        "name": "fuzz",
        "title": "A random question",
        "dataset": "fuzz",
        "kind": kind,
        "after": pattern(),
        "offset": rng.choice([0, 0, rng.choice(gaps)]),
        "exclude": tuple(pattern() for _ in range(rng.choice([0, 0, 1]))),
        "outcome": tuple(pattern() for _ in range(rng.choice([1, 2]))),
        "ends": tuple(pattern() for _ in range(rng.choice([0, 1, 2]))),
        "horizon": rng.choice([None, rng.choice(gaps), rng.choice(gaps), UNITS["year"]]),
        "at_least": at_least,
        "occurrence": rng.choice(["first", "all"]),
        "above": rng.choice([None, None, None, 1.0]),
        "below": rng.choice([None, None, None, 12.5]),
    }
    return Task.of(fields)


def matches(code: str, patterns: tuple[str, ...]) -> bool:
    """Whether a code is one of the patterns, or begins like one that ends with a star; a death is every death."""
    spelled = plain(code)
    return any(
        spelled.startswith(plain(pattern[:-1]))
        if pattern.endswith("*")
        else spelled == plain(pattern) or (pattern == "MEDS_DEATH" and spelled.startswith("MEDS_DEATH//"))
        for pattern in patterns
    )


def questions(task: Task, events: list[Event]) -> list[Question]:
    """Who is asked, and when; sorted."""
    out = set()
    offset = dt.timedelta(microseconds=task.cohort.offset)
    for patient in {event.patient for event in events}:
        record = [event for event in events if event.patient == patient]
        triggers = sorted(e.time for e in record if e.time and matches(e.code, (task.cohort.after,)))
        if task.cohort.occurrence == "first":
            triggers = triggers[:1]
        for trigger in triggers:
            history = [e for e in record if e.time is None or e.time < trigger + offset]
            if not any(matches(e.code, (*task.cohort.exclude, "MEDS_DEATH")) for e in history):
                out.add((patient, trigger + offset))
    return sorted(out)


def answer(task: Task, events: list[Event], question: Question) -> Answer:
    """What the record says about a question."""
    patient, at = question
    record = [e for e in events if e.patient == patient and e.time]
    stated = [e.time for e in record if e.code == "FOLLOW_UP//END"]
    end = max(stated) if stated else max(e.time for e in record)
    horizon = None if task.horizon is None else at + dt.timedelta(microseconds=task.horizon)
    inside = [e for e in record if e.time >= at and (horizon is None or e.time <= horizon)]
    closing = min((e.time for e in inside if matches(e.code, task.ends)), default=None)
    counted = [e for e in inside if matches(e.code, task.outcome) and (closing is None or e.time <= closing)]
    counted = [
        e for e in counted if admits(task, e.number) and (task.kind != "value" or e.number is not None)
    ]

    def days(time: dt.datetime) -> float:
        return (time - at) / dt.timedelta(days=1)

    if task.kind != "count" and len(counted) >= task.event.at_least:
        decisive = counted[task.event.at_least - 1]
        labels = {"binary": 1.0, "time": days(decisive.time), "value": decisive.number}
        return Answer(labels[task.kind], "outcome", days(decisive.time))
    negative = {"binary": 0.0, "count": float(len(counted))}.get(task.kind)
    if closing is not None:
        return Answer(negative, "end", days(closing))
    if horizon is not None and end >= min(horizon, over(task.horizon, at)):
        return Answer(negative, "horizon", days(horizon))
    return Answer(None, "censored", days(max(end, at)))


def over(horizon: int, at: dt.datetime) -> dt.datetime:
    """The calendar day on which a horizon of a year is over; never for any other horizon."""
    if horizon != UNITS["year"]:
        return dt.datetime.max
    leap = (at.month, at.day) == (2, 29)
    return dt.datetime(at.year + 1, at.month, 28 if leap else at.day)


def admits(task: Task, number: float | None) -> bool:
    """Whether an event with this number counts."""
    above, below = single(task.event.above), single(task.event.below)
    if above is None and below is None:
        return True
    return number is not None and (above is None or number > above) and (below is None or number < below)
