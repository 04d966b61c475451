"""The report adds up, and names what people should look at."""

import datetime as dt
from collections import Counter
from pathlib import Path

import polars as pl

from sequela.record.finding import findings_in
from sequela.record.ingest.extract import ExtractedRule, ExtractedTable, Extraction
from sequela.record.ingest.report import IngestCounts, report_of
from sequela.record.ingest.spill import Spill

UNITS = {"code": pl.String, "unit": pl.String, "events": pl.UInt32}


def test_the_report_of_two_parts():
    day = dt.datetime(2020, 1, 1)
    one = IngestCounts(Counter({1: 3}), Counter({(1, "duplicate"): 1}), {1: day}, {1: day}, Counter({"train": 2}),
                  Counter({"two births": 0}), Counter({"a -> b": 1}),
                  Counter({"LAB": 1}), Counter({"LAB": 2, "A": 9}))  # fmt: skip
    later = day + dt.timedelta(days=40)
    two = IngestCounts(Counter({1: 1, 2: 1}), Counter({(1, "duplicate"): 1}), {1: later}, {1: later},
                  Counter({"train": 1}), Counter({"two births": 0}), Counter({"a -> b": 2}),
                  Counter(), Counter({"LAB": 3}))  # fmt: skip
    rules = (ExtractedRule(1, "'A'", 8, {"no time": 2}), ExtractedRule(2, "'B'", 8, {"not selected": 7}))
    aside = {"quarantined": {"not JSON": {"rows": 2, "first": ["u"]}, "not UTF-8": {"rows": 1, "first": ["u"]}}}
    read = {"t": ExtractedTable(("t.csv",), 8, rules, {"rows_without_rule": 0}), "u": ExtractedTable((), 2, (), aside)}
    extraction = Extraction(Spill(Path(), 2), read, {}, 7, frozenset(), "clinic", {}, moved=Counter({"c": 9}))
    codes = pl.DataFrame({"code": ["A", "B", "MEDS_DEATH"], "patients": [3, 1, 2]})
    units = pl.DataFrame([("A", "g", 3), ("A", "kg", 1), ("B", "g", 1)], UNITS, orient="row")
    years = pl.DataFrame({"code": ["A", "A", "B"], "year": [2019, 2020, 2020], "events": [2, 2, 1]})
    report = report_of(extraction, one.plus(two), codes, units, years)
    assert [finding.words for finding in findings_in(report)] == [
        "Table t, rule 1: 2 of 8 rows (25%): dropped: no time. Check the rule and a few of these rows.",
        "Table u: 2 rows: set aside (not JSON), the first in u. Mend or remove them in the source.",
        "Table u: 1 row: set aside (not UTF-8), the first in u. Mend or remove them in the source.",
    ]
    del report["findings"]
    assert report == {
        "source": "clinic",
        "own_mapping": False,
        "patients": 3,
        "patients_by_split": {"train": 3},
        "events": 5,
        "codes": 3,
        "tables": {
            "t": {
                "files": ["t.csv"],
                "rows": 8,
                "unreadable_times": {},
                "rules": [
                    {"rule": 1, "code": "'A'", "rows_in": 8, "events_out": 4,
                     "dropped": {"no time": 2, "duplicate": 2}, "times": ["2020-01-01", "2020-02-10"]},
                    {"rule": 2, "code": "'B'", "rows_in": 8, "events_out": 1, "dropped": {"not selected": 7},
                     "times": None},
                ],
                "rows_without_rule": 0,
            },
            "u": {"files": [], "rows": 2, "unreadable_times": {}, "rules": []} | aside,
        },
        "units": {"A": {"g": 3, "kg": 1}},
        "patients_with": {"two births": 0},
        "deaths": 2,
        "far_dates": {"events": 0, "codes": {}, "most": [2019, 2020]},
        "follow_up": {},
        "moved": {"a -> b": 3, "c": 9},
        "at_admission": {"LAB": [1, 5]},
        "quarantined": 3,
    }  # fmt: skip


def test_at_most_a_hundred_codes_with_several_units_are_told():
    rows = [(f"C{number}", unit, number + 1) for number in range(150) for unit in ("g", "kg")]
    extraction = Extraction(Spill(Path(), 1), {}, {}, 0, False, "clinic", {})
    codes = pl.DataFrame({"code": [], "patients": []})
    years = pl.DataFrame(schema={"code": pl.String, "year": pl.Int32, "events": pl.UInt32})
    told = report_of(extraction, IngestCounts(), codes, pl.DataFrame(rows, UNITS, orient="row"), years)
    assert len(told["units"]) == 100 and next(iter(told["units"])) == "C149"
