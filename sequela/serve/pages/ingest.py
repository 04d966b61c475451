"""The report of an ingest as a page: what happened to the rows, and what deserves a look."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from sequela.record.ingest.leakage import KEPT
from sequela.record.ingest.report import REPORT
from sequela.serve.pages.page import render

MANY = 0.1  # share of a rule's rows dropped for one reason that deserves a look
SHOWN = 40  # codes, the most frequent first
# What a mapping leaves out on purpose, and what happens in any export
EXPECTED = ("not selected", "duplicate", "no value")


def write_ingest_report(folder: Path) -> None:
    """Write `folder`/ingest.html from ingest.json and metadata/codes.parquet in it."""
    report = json.loads((folder / REPORT).read_text())
    codes = pl.read_parquet(folder / "metadata" / "codes.parquet")
    page = render(
        "ingest.html",
        report=report,
        notes=_notes(report),
        tables=[_table(name, one) for name, one in report["tables"].items() if one["rules"] and one["rows"]],
        empty=[name for name, one in report["tables"].items() if one["rules"] and not one["rows"]],
        others=[
            _table(name, one) for name, one in report["tables"].items() if one["files"] and not one["rules"]
        ],
        units=[
            (code, ", ".join(f"{n:,} {unit}" for unit, n in some.items()))
            for code, some in report["units"].items()
        ],
        codes=codes.sort("events", "code", descending=[True, False]).head(SHOWN).rows(named=True),
    )
    (folder / "ingest.html").write_text(page)


def _notes(report: dict) -> list[str]:
    """What deserves a look, in sentences."""
    notes = []
    for name, table in report["tables"].items():
        notes += _notes_on_table(name, table)
    for what, count in report["moved"].items():
        if count and what == KEPT:
            notes.append(
                f"{count:,} events known only at the end of a stay are dated where one stay begins and another ends; "
                "they were not moved, since the one that begins has such codes at its end."
            )
        elif count:
            notes.append(
                f"{count:,} events known only at the end of a stay were dated at its beginning; they were moved "
                f"({what}). Fix the source if you can: it may date other things too early as well."
            )
    for what, count in report["patients_with"].items():
        if count:
            notes.append(f"{count:,} of {report['patients']:,} patients: {what}.")
    if report["units"]:
        notes.append(
            f"{len(report['units'])} codes have values in more than one unit; convert the values, or split the codes."
        )
    return notes


def _notes_on_table(name: str, table: dict) -> list[str]:
    notes = []
    if table.get("rows_without_rule"):
        share = table["rows_without_rule"] / table["rows"]
        notes.append(f"Table {name}: {table['rows_without_rule']:,} rows ({share:.1%}) match no rule.")
    for column, bad in table["unreadable_times"].items():
        notes.append(
            f"Table {name}, column {column}: {bad['rows']:,} cells are not a time, the first in {bad['first']}."
        )
    for reason, aside in table.get("quarantined", {}).items():
        notes.append(
            f"Table {name}: {aside['rows']:,} rows set aside ({reason}), the first in {aside['first'][0]}."
        )
    for rule in table["rules"]:
        for reason, rows in rule["dropped"].items():
            if reason not in EXPECTED and rows > MANY * rule["rows_in"]:
                notes.append(
                    f"Table {name}, rule {rule['rule']}: {rows / rule['rows_in']:.0%} of its rows dropped: {reason}."
                )
        if rule["rows_in"] and not rule["events_out"]:
            notes.append(f"Table {name}, rule {rule['rule']}: it produces no events.")
    return notes


def _table(name: str, table: dict) -> dict:
    """What the page shows of one table."""
    files = table["files"]
    shown = ", ".join(files[:3]) + (f" and {len(files) - 3:,} more" if len(files) > 3 else "")
    rules = [
        {
            "number": rule["rule"],
            "code": rule["code"],
            "rows": rule["rows_in"],
            "events": rule["events_out"],
            "dropped": ", ".join(f"{reason} {rows:,}" for reason, rows in rule["dropped"].items()),
            "times": rule["times"] or ["", ""],
        }
        for rule in table["rules"]
    ]
    return {"name": name, "files": shown, "rows": table["rows"], "rules": rules}
