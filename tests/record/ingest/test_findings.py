"""What in a report deserves a look, and what any export has."""

import pytest

from sequela.record.ingest.findings import findings_of

RULE = {"rule": 1, "rows_in": 2000, "events_out": 900, "dropped": {"not selected": 1000, "no value": 60}}
LABS = {"rows": 2000, "unreadable_times": {}, "rules": [RULE], "rows_without_rule": 150}
PLAIN = {
    "own_mapping": True, "patients": 1234, "events": 50_000, "codes": 20, "deaths": 3, "tables": {"labs": LABS},
    "units": {"A": {"g": 900, "kg": 90}}, "patients_with": {"no birth": 0, "events after death": 9},
    "moved": {"at admission -> at discharge": 7, "not moved: another stay closes then": 9},
}  # fmt: skip


def words(**changes: object) -> list[str]:
    return [finding.words for finding in findings_of(PLAIN | changes)]


def labs(rule: dict | None = None, **changes: object) -> dict:
    return {"tables": {"labs": LABS | {"rules": [RULE | (rule or {})]} | changes}}


def test_what_any_export_has_is_not_said():
    assert words() == []
    assert words(**labs({"dropped": {"not selected": 1000, "copy of hdl": 900, "duplicate": 300}})) == []
    assert words(patients=4, deaths=0) == [], "four people may all be alive"


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"patients_with": {"no birth": 3}}, "3 of 1,234 patients (0.2%): no birth, so no age. "),
        ({"patients_with": {"no sex": 1}}, "1 of 1,234 patients (0.1%): no sex that can be read. "),
        ({"patients_with": {"no split": 2}}, "2 of 1,234 patients (0.2%): no split in the source"),
        ({"patients_with": {"two deaths": 3}}, "3 of 1,234 patients (0.2%): two deaths. "),
        ({"deaths": 0}, "1,234 of 1,234 patients (100%): no death. "),
        (
            {"moved": {"not moved: another stay closes then": 60}},
            "60 of 50,000 events (0.1%): known only at the end",
        ),
        (
            {"units": {"A": {"g": 900, "kg": 190}}},
            "1 of 20 codes (5.0%): values in more than one unit, such as A. ",
        ),
        (labs(rows_without_rule=300), "Table labs: 300 of 2,000 rows (15%): no rule takes them. "),
        (
            labs(unreadable_times={"t": {"rows": 2, "first": "a.csv, row 5"}}),
            "Table labs, column t: 2 of 2,000 rows (0.1%): not a time, the first in a.csv, row 5. ",
        ),
        (
            labs(quarantined={"not JSON": {"rows": 2, "first": ["x, line 4"]}}),
            "Table labs: 2 rows: set aside (not JSON), the first in x, line 4. ",
        ),
        (
            labs({"dropped": {"not selected": 1000, "no code": 200}}),
            "Table labs, rule 1: 200 of 1,000 rows (20%): dropped: no code. ",
        ),
        (
            labs({"dropped": {"not selected": 1000, "outside the years 1 to 9999": 1}}),
            "Table labs, rule 1: 1 of 1,000 rows (0.1%): dropped: outside the years 1 to 9999. ",
        ),
        (
            labs({"counted": {"encounter not in the export": 9, "stands at its release": 99}}),
            "Table labs, rule 1: 9 of 900 events (1.0%): encounter not in the export. ",
        ),
        (labs(two_spellings={"pid": 2}), "Table labs, column pid: 2 numbers: written with leading zeros and without"),
        (
            {"moved": {"not moved: the end of the stay is not known": 60}},
            "60 of 50,000 events (0.1%): known only at the end of a stay, dated at its beginning",
        ),
        (
            {"at_admission": {"ICD10PCS": [30, 200], "LAB": [900, 9000], "VITAL": [50, 50]}},
            "30 of 200 ICD10PCS events (15%): dated in the minute a stay opens, and not moved. ",
        ),
        ({"at_admission": {"BILL": [19, 20], "NOTE": [9, 9]}}, "19 of 20 BILL events (95%): dated in the minute"),
        (
            {"far_dates": {"events": 2, "codes": {"VISIT//X": 2}, "most": [2001, 2019]}},
            "2 of 50,000 events (under 0.1%): far from the years 2001 to 2019, in which most events lie (VISIT//X). ",
        ),
        ({"patients_with": {"older than 120 years": 1}}, "1 of 1,234 patients (0.1%): older than 120 years at some"),
        (labs({"events_out": 0}), "Table labs, rule 1: 2,000 rows: none makes an event. "),
    ],
)
def test_what_deserves_a_look(changes, sentence):
    (said,) = words(**changes)
    assert said.startswith(sentence), said


def test_rules_of_a_shipped_mapping_may_select_nothing():
    nothing = labs({"dropped": {"not selected": 2000}, "events_out": 0}, rows_without_rule=2000)
    assert words(**nothing, own_mapping=False) == []
    assert len(words(**nothing)) == 2
