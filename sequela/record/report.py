"""The account of every row: what `ingest` returns, and what it writes to ingest.json."""

from __future__ import annotations

import polars as pl

from sequela.record.account import Account
from sequela.record.gather import Gathered, Read

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
