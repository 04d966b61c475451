"""What deserves a look in a dataset that was tokenized, and what does not."""

import numpy as np
import polars as pl
import pytest

from sequela.record.events import Events
from sequela.tokens.ehr.findings import findings_of, persons
from sequela.tokens.ehr.settings import TokenSettings
from sequela.tokens.maps.code_map import CodeMap

MAPS = (CodeMap("mine", (("ICD9CM//25000", "ICD10CM//E119"), ("LAB//OLD//*", "LAB//*"))),)
COUNTS = {"patients": 100, "no birth": 0, "no sex": 0, "deaths": 5}
ROW = {"events": 100, "events_mapped": 91, "unmapped": ["ICD9CM//1", "ICD9CM//2"]}
INDEX = {
    "maps": {"mine": {"ICD9CM": ROW, "LAB": {"events": 100, "events_mapped": 0, "unmapped": ["LAB//HB"]}}},
    "patients_without_split": 0,
    "years": (2010, 2024),
    "patients_with_far_dates": 0,
    "splits": {"train": {"events": 850, "dropped_events": {"A": 50, "B": 100}}},
}


def words(index: dict | None = None, **counts: int) -> list[str]:
    findings = findings_of({**INDEX, **(index or {})}, {**COUNTS, **counts}, TokenSettings(), MAPS)
    return [finding.words for finding in findings]


def test_clean_data_have_none():
    assert words() == [], "a map of patterns need not know every code"
    assert words(patients=4, deaths=0) == [], "four people may all be alive"


@pytest.mark.parametrize(
    "index, counts, sentence",
    [
        ({}, {"no birth": 1}, "1 of 100 patients (1.0%): no birth, so no age. "),
        ({}, {"no sex": 2}, "2 of 100 patients (2.0%): no sex that can be read. "),
        ({}, {"deaths": 0}, "100 of 100 patients (100%): no death. "),
        (
            {"patients_with_far_dates": 3},
            {},
            "3 of 100 patients (3.0%): a date far from the years of the data, 2010 to 2024. ",
        ),
        ({"patients_without_split": 7}, {}, "7 of 100 patients (7.0%): in none of the splits"),
        (
            {"maps": {"mine": {"ICD9CM": ROW | {"events_mapped": 80}}}},
            {},
            "Codes ICD9CM: 20 of 100 events (20%): a code that the map mine does not translate, such as ICD9CM//1",
        ),
        (
            {"splits": {"train": {"events": 700, "dropped_events": {"A": 100, "B": 200}}}},
            {},
            "Training patients: 300 of 1,000 events (30%): no token, since fewer than 10 training patients have the "
            "code (2 codes such as B, A). ",
        ),
    ],
)
def test_what_deserves_a_look(index, counts, sentence):
    (said,) = words(index, **counts)
    assert said.startswith(sentence), said


def test_persons_are_counted():
    rows = [
        (1, None, "GENDER//F"),
        (1, 0, "MEDS_BIRTH"),
        (1, 9, "MEDS_DEATH"),
        (2, 3, "LAB"),
        (3, None, "GENDER//M"),
    ]
    frame = pl.DataFrame(
        [(patient, time, code, None) for patient, time, code in rows],
        {"subject_id": pl.Int64, "time": pl.Int64, "code": pl.String, "numeric_value": pl.Float32},
        orient="row",
    ).with_columns(pl.col("time").cast(pl.Datetime("us")))
    assert persons(Events.of(frame)) == {"patients": 3, "no birth": 2, "no sex": 1, "deaths": 1}
    empty = Events(np.zeros(0, int), np.zeros(0, int), np.zeros(0, int), np.zeros(0), ())
    assert persons(empty) == {"patients": 0, "no birth": 0, "no sex": 0, "deaths": 0}


def test_persons_are_known_in_any_spelling():
    codes = ("GENDER//1", "GENDER//UNKNOWN", "Gender/8507", "MEDS_BIRTH//REPORTED", "MEDS_DEATH//HOME", "MEDS_DEATHBED")
    columns = Events(
        np.arange(6), np.zeros(6, np.int64), np.arange(6, dtype=np.int32), np.full(6, np.nan, np.float32), codes
    )
    assert persons(columns) == {"patients": 6, "no birth": 5, "no sex": 5, "deaths": 1}
