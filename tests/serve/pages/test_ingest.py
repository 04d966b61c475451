"""The page of an ingest shows the numbers and names what a person should look at."""

import json
from pathlib import Path

import polars as pl
import pytest

from sequela.record.finding import Finding, as_values
from sequela.serve.pages.ingest import write_ingest_report

RULE = {"rule": 1, "code": "'LAB//' || x", "rows_in": 1000, "events_out": 900,
        "dropped": {"no value": 60, "duplicate": 40}, "times": ["2020-01-01", "2021-01-01"]}  # fmt: skip
PLAIN = {
    "source": "clinic", "patients": 1234, "patients_by_split": {"held_out": 1, "train": 1233}, "events": 56_789,
    "codes": 2,
    "tables": {"labs": {"files": ["a.csv", "b.csv", "c.csv", "d.csv"], "rows": 1000, "unreadable_times": {},
                        "rules": [RULE], "rows_without_rule": 0},
               "people": {"files": [], "rows": 3, "unreadable_times": {}, "rules": []},
               "triage": {"files": ["t.csv"], "rows": 4321, "unreadable_times": {}, "rules": []}},
    "units": {}, "patients_with": {"two deaths": 0}, "moved": {"at admission -> at discharge": 0}, "findings": [],
}  # fmt: skip


@pytest.fixture
def page(tmp_path: Path):
    def written(**changes: object) -> str:
        (tmp_path / "ingest.json").write_text(json.dumps(PLAIN | changes))
        (tmp_path / "metadata").mkdir(exist_ok=True)
        codes = {
            "code": ["A", "LAB//<b>"],
            "description": [None, "Letter"],
            "events": [3, 5_000],
            "patients": [1, 2],
        }
        pl.DataFrame(codes).write_parquet(tmp_path / "metadata/codes.parquet")
        write_ingest_report(tmp_path)
        return (tmp_path / "ingest.html").read_text()

    return written


def test_a_plain_ingest(page):
    text = page()
    for words in ("56,789 events of 1,234 patients", "Nothing: every row was read", "no value 60, duplicate 40",
                  "a.csv, b.csv, c.csv and 1 more", "<td>2020-01-01</td><td>2021-01-01</td>",
                  "LAB//&lt;b&gt;"):  # fmt: skip
        assert words in text
    assert text.index("LAB//&lt;b&gt;") < text.rindex(">A<"), "the most frequent first"
    assert "people" not in text.split("Patients with")[0], "tables made from others are not shown"
    assert "triage (4,321 rows of t.csv)" in text, "raw tables are, also without rules"


@pytest.mark.parametrize(
    "changes, words",
    [
        (
            {"moved": {"at admission -> at discharge": 7}},
            "<td>at admission -&gt; at discharge</td><td>7</td>",
        ),
        (
            {"findings": as_values([Finding(3, "patients", "no <birth>", "Map it.", 1234)])},
            "<li>3 of 1,234 patients (0.2%): no &lt;birth&gt;. Map it.</li>",
        ),
        ({"units": {"A": {"g": 9, "kg": 1}}}, "9 g, 1 kg"),
        (
            {"tables": {"labs": PLAIN["tables"]["labs"] | {"rows": 0, "rules": [RULE | {"rows_in": 0}]}}},
            "Missing or empty: labs.",
        ),
    ],
)
def test_what_is_shown_only_where_it_is(page, changes, words):
    assert words not in page() and words in page(**changes)
