"""The report of an ingest as a page: what happened to the rows, and what deserves a look."""

from __future__ import annotations

import json
from pathlib import Path

from sequela.record.finding import findings_in
from sequela.record.ingest.report import REPORT
from sequela.record.validate import read_parquet
from sequela.serve.pages.page import render

SHOWN = 40  # codes, the most frequent first


def write_ingest_report(folder: Path) -> None:
    """Write `folder`/ingest.html from ingest.json and metadata/codes.parquet in it."""
    report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    codes = read_parquet(folder / "metadata" / "codes.parquet")
    page = render(
        "ingest.html",
        report=report,
        findings=findings_in(report),
        tables=[_table(name, one) for name, one in report["tables"].items() if one["rules"] and one["rows"]],
        empty=[name for name, one in report["tables"].items() if one["rules"] and not one["rows"]],
        others=[
            _table(name, one) for name, one in report["tables"].items() if one["files"] and not one["rules"]
        ],
        moved=[(what, count) for what, count in report["moved"].items() if count],
        units=[
            (code, ", ".join(f"{n:,} {unit}" for unit, n in some.items()))
            for code, some in report["units"].items()
        ],
        codes=codes.sort("events", "code", descending=[True, False]).head(SHOWN).rows(named=True),
    )
    (folder / "ingest.html").write_text(page, encoding="utf-8")


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
