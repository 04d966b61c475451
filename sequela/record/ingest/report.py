"""The account of every row: what `ingest` returns, and what it writes to ingest.json."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import dataclass, field

import polars as pl

from sequela.record.ingest.extract import Gathered, Read


@dataclass(frozen=True)
class Account:
    """Counts of events and patients.

    Attributes:
        events: how many events were written, by rule.
        dropped: (rule, reason) -> how many were not, because of other events of the same patient.
        first, last: the times of the first and the last dated event, by rule.
        patients: how many patients, by split.
        patients_with: what is odd -> how many patients have it.
        moved: what -> how many events were moved to another time.
    """

    events: Counter[int] = field(default_factory=Counter)
    dropped: Counter[tuple[int, str]] = field(default_factory=Counter)
    first: dict[int, dt.datetime] = field(default_factory=dict)
    last: dict[int, dt.datetime] = field(default_factory=dict)
    patients: Counter[str] = field(default_factory=Counter)
    patients_with: Counter[str] = field(default_factory=Counter)
    moved: Counter[str] = field(default_factory=Counter)

    def plus(self, other: Account) -> Account:
        """Both together; no patient is in both."""
        return Account(
            _sum(self.events, other.events),
            _sum(self.dropped, other.dropped),
            {rule: min(_both(rule, self.first, other.first)) for rule in self.first | other.first},
            {rule: max(_both(rule, self.last, other.last)) for rule in self.last | other.last},
            _sum(self.patients, other.patients),
            _sum(self.patients_with, other.patients_with),
            _sum(self.moved, other.moved),
        )


def _sum(one: Counter, other: Counter) -> Counter:
    total = Counter(one)
    total.update(other)  # unlike `+`, keeps what was counted and found to be none
    return total


def _both(rule: int, *times: dict[int, dt.datetime]) -> list[dt.datetime]:
    return [some[rule] for some in times if rule in some]


MOST_CODES = 100


def report_of(gathered: Gathered, account: Account, codes: pl.DataFrame, units: pl.DataFrame) -> dict:
    """The report; plain values, ready for JSON.

    Args:
        codes: rows (code, events, patients, unit).
        units: rows (code, unit, events).
    """
    return {
        "source": gathered.name,
        "patients": account.patients.total(),
        "patients_by_split": {split: account.patients[split] for split in sorted(account.patients)},
        "events": account.events.total(),
        "codes": codes.height,
        "tables": {name: _table(read, account) for name, read in gathered.tables.items()},
        "units": _units(units),
        "patients_with": dict(account.patients_with),
        "moved": dict(account.moved),
        "quarantined": sum(aside["rows"] for read in gathered.tables.values()
                           for aside in read.facts.get("quarantined", {}).values()),
    }  # fmt: skip


def _table(read: Read, account: Account) -> dict:
    rules = []
    for rule in read.rules:
        late = {reason: account.dropped[rule.number, reason] for number, reason in sorted(account.dropped)
                if number == rule.number}  # fmt: skip
        first, last = account.first.get(rule.number), account.last.get(rule.number)
        rules.append(
            {
                "rule": rule.number,
                "code": rule.code,
                "rows_in": rule.rows_in,
                "events_out": account.events[rule.number],
                "dropped": rule.dropped | late,
                **({"counted": rule.counted} if rule.counted else {}),
                "times": [first.date().isoformat(), last.date().isoformat()] if first and last else None,
            }
        )
    own = {"files": list(read.files), "rows": read.rows}
    return own | {"unreadable_times": {}, "rules": rules} | read.facts


def _units(units: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Codes with more than one unit, those with the most events first: code -> unit -> events."""
    several = units.filter(pl.len().over("code") > 1)
    most = (
        several.group_by("code").agg(pl.col("events").sum()).sort("events", "code", descending=[True, False])
    )
    told: dict[str, dict[str, int]] = {code: {} for code in most["code"].head(MOST_CODES)}
    for code, unit, events in several.sort("code", "events", "unit", descending=[False, True, False]).rows():
        if code in told:
            told[code][unit] = events
    return told
