"""Until when anybody was followed, and whether that depends on the outcome.

A survivor whose record stops with the last visit, beside deaths that are known from a registry: then a death is all
that is ever known to follow a long silence, and every risk is too high. What shows it is silence: whose record is known
to go on without an event, and who dies after one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from sequela.record.duration import DAY
from sequela.record.events import Events
from sequela.record.finding import ENOUGH, Finding
from sequela.record.schema import BIRTH, DEATH, FOLLOW_UP_END, means
from sequela.record.timeline import STATIC

MANY = 0.1  # share of patients that deserves a look
SILENCE = DAY  # a death so much later than the last event before it comes after a silence
DO = "Say with FOLLOW_UP//END until when a death, or whatever you ask about, would have been known of each patient."


def follow_up(events: Events) -> dict[str, int]:
    """How many patients there are and how far their records go: "dead" and "others"; of the dead "late", after more
    than a day without an event; of the others "stated", with an end of follow-up, and "silent", with one more than a
    day after their last event."""
    patients = len(events.starts)
    dated = events.time != STATIC
    death, end = (events.called(lambda code, what=what: means(code, what)) & dated for what in (DEATH, FOLLOW_UP_END))
    other = dated & ~death & ~end & ~events.called(lambda code: means(code, BIRTH))
    owner = np.repeat(np.arange(patients), np.diff(np.append(events.starts, len(events))))

    def latest(rows: np.ndarray) -> np.ndarray:
        found = np.full(patients, STATIC)
        np.maximum.at(found, owner[rows], events.time[rows])
        return found

    died, ended, last = latest(death), latest(end), latest(other)
    before = latest(other & (events.time <= died[owner]))
    dead, known = died != STATIC, last != STATIC
    stated = ~dead & (ended != STATIC)
    late = dead & (before != STATIC) & (died > np.where(dead, before, 0) + SILENCE)
    silent = stated & known & (ended > np.where(known, last, 0) + SILENCE)
    counted = {"dead": dead, "others": ~dead, "late": late, "stated": stated, "silent": silent}
    return {name: int(rows.sum()) for name, rows in counted.items()}


def follow_up_findings(counts: Mapping[str, int], things: str) -> Iterator[Finding]:
    """What deserves a look in counts of `follow_up`; `things` is what these patients are, in the plural."""
    dead, others = counts.get("dead", 0), counts.get("others", 0)
    if dead + others < ENOUGH or not others:
        return
    late, silent = counts["late"] / max(dead, 1), counts["silent"] / others
    if late > MANY and silent < late / 2:
        what = (
            f"a record that does not go on beyond the last event, while {counts['late']:,} of {dead:,} deaths come "
            "after more than a day without one: where only deaths are known to follow a silence, every risk is too high"
        )
        yield Finding(others - counts["silent"], f"{things} who do not die", what, DO, others)
    elif counts["stated"] < (1 - MANY) * others:
        what = "no stated end of follow-up, so their record ends with the last event"
        yield Finding(others - counts["stated"], f"{things} who do not die", what, DO, others)
