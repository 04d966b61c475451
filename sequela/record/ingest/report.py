"""The ingest report, which accounts for every row of the source."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from sequela.record.finding import FINDINGS, as_values
from sequela.record.ingest.extract import ExtractedTable, Extraction
from sequela.record.ingest.findings import findings_of
from sequela.record.ingest.plausibility import far_dates
from sequela.record.schema import DEATH
from sequela.record.spelling import meaning


@dataclass(frozen=True)
class IngestCounts:
    """Counts of events and patients.

    Attributes:
        events: rule -> number of events written.
        dropped: (rule, reason) -> number of events dropped because of other events of the same patient.
        first, last: rule -> time of the first and last dated event.
        patients: split -> number of patients.
        patients_with: implausible finding -> number of patients with it.
        moved: kind of leak -> number of events moved to another time.
        followed: how far the records of the patients go (see `sequela.record.follow_up`).
        at_opening, with_time: first part of a code -> number of its events where a stay opens, and with any time.
    """

    events: Counter[int] = field(default_factory=Counter)
    dropped: Counter[tuple[int, str]] = field(default_factory=Counter)
    first: dict[int, dt.datetime] = field(default_factory=dict)
    last: dict[int, dt.datetime] = field(default_factory=dict)
    patients: Counter[str] = field(default_factory=Counter)
    patients_with: Counter[str] = field(default_factory=Counter)
    moved: Counter[str] = field(default_factory=Counter)
    at_opening: Counter[str] = field(default_factory=Counter)
    with_time: Counter[str] = field(default_factory=Counter)
    followed: Counter[str] = field(default_factory=Counter)

    def plus(self, other: IngestCounts) -> IngestCounts:
        """The sum of both, which have no patient in common."""
        return IngestCounts(
            _sum(self.events, other.events),
            _sum(self.dropped, other.dropped),
            {rule: min(_both(rule, self.first, other.first)) for rule in self.first | other.first},
            {rule: max(_both(rule, self.last, other.last)) for rule in self.last | other.last},
            _sum(self.patients, other.patients),
            _sum(self.patients_with, other.patients_with),
            _sum(self.moved, other.moved),
            _sum(self.at_opening, other.at_opening),
            _sum(self.with_time, other.with_time),
            _sum(self.followed, other.followed),
        )


def _sum(first: Counter, second: Counter) -> Counter:
    total = Counter(first)
    total.update(second)  # unlike `+`, keeps zeros
    return total


def _both(rule: int, *times: dict[int, dt.datetime]) -> list[dt.datetime]:
    return [by_rule[rule] for by_rule in times if rule in by_rule]


REPORT = "ingest.json"  # in the dataset's folder
MOST_CODES = 100  # listed with several units


def report_of(
    extraction: Extraction,
    counts: IngestCounts,
    codes: pl.DataFrame,
    units: pl.DataFrame,
    years: pl.DataFrame,
) -> dict:
    """The report as plain values, ready for JSON.

    Args:
        codes: rows (code, events, patients, unit).
        units: rows (code, unit, events).
        years: rows (code, year, events) of the events with a time but births.
    """
    report = {
        "source": extraction.name,
        "own_mapping": extraction.own_mapping,
        "patients": counts.patients.total(),
        "patients_by_split": {split: counts.patients[split] for split in sorted(counts.patients)},
        "events": counts.events.total(),
        "codes": codes.height,
        "tables": {name: _table(read, counts) for name, read in extraction.tables.items()},
        "units": _units(units),
        "patients_with": dict(counts.patients_with),
        "far_dates": far_dates(years),
        "deaths": codes.filter(meaning(DEATH))["patients"].sum(),
        "follow_up": dict(counts.followed),
        "moved": dict(_sum(counts.moved, extraction.moved)),
        "at_admission": {head: [counts.at_opening[head], counts.with_time[head]] for head in sorted(counts.at_opening)},
        "quarantined": sum(aside["rows"] for read in extraction.tables.values()
                           for aside in read.facts.get("quarantined", {}).values()),
    }  # fmt: skip
    return report | {FINDINGS: as_values(findings_of(report))}


def _table(read: ExtractedTable, counts: IngestCounts) -> dict:
    rules = []
    for rule in read.rules:
        late = {reason: counts.dropped[rule.number, reason] for number, reason in sorted(counts.dropped)
                if number == rule.number}  # fmt: skip
        first, last = counts.first.get(rule.number), counts.last.get(rule.number)
        rules.append(
            {
                "rule": rule.number,
                "code": rule.code,
                "rows_in": rule.rows_in,
                "events_out": counts.events[rule.number],
                "dropped": rule.dropped | late,
                **({"counted": rule.counted} if rule.counted else {}),
                "times": [first.date().isoformat(), last.date().isoformat()] if first and last else None,
            }
        )
    source = {"files": list(read.files), "rows": read.rows}
    return source | {"unreadable_times": {}, "rules": rules} | read.facts


def write_report(report: dict, out: Path) -> None:
    """Write the report to the dataset's folder `out`."""
    (out / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _units(units: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Codes with more than one unit, most events first: code -> unit -> events."""
    several = units.filter(pl.len().over("code") > 1)
    most = (
        several.group_by("code").agg(pl.col("events").sum()).sort("events", "code", descending=[True, False])
    )
    result: dict[str, dict[str, int]] = {code: {} for code in most["code"].head(MOST_CODES)}
    for code, unit, events in several.sort("code", "events", "unit", descending=[False, True, False]).rows():
        if code in result:
            result[code][unit] = events
    return result
