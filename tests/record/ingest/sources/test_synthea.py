"""The mapping of Synthea's CSV export, on rows written by hand in its layout, of today and of older versions."""

import datetime as dt
import hashlib
from pathlib import Path

import polars as pl
import pytest

from sequela.record.dataset import read_events
from sequela.record.ingest.run import ingest

# Not real, and not made by Synthea; see its README.
BY_HAND = Path(__file__).parent / "synthea_by_hand"


def number(id: str) -> int:
    return int(hashlib.md5(id.encode()).hexdigest()[:15], 16)


ADA, BEN = number("aaaaaaaa-0000-4000-8000-000000000001"), number("bbbbbbbb-0000-4000-8000-000000000002")


@pytest.fixture(scope="module")
def synthea(tmp_path_factory) -> tuple[dict, pl.DataFrame]:
    out = tmp_path_factory.mktemp("synthea")
    return ingest("synthea", BY_HAND, out), read_events(out)


def told(events: pl.DataFrame, patient: int) -> list[tuple]:
    """(time, code) of a patient's events."""
    return events.filter(pl.col("subject_id") == patient).select("time", "code").rows()


def test_a_timeline(synthea, balanced):
    report, events = synthea
    assert balanced(report)
    assert report["patients"] == 2
    day = dt.datetime
    assert told(events, ADA) == [
        (None, "GENDER//F"),
        (None, "RACE//WHITE"),
        (day(1950, 5, 1), "MEDS_BIRTH"),
        (day(2020, 6, 1, 9), "ENCOUNTER_START//OUTPATIENT"),
        (day(2020, 6, 1, 9, 15), "RXNORM//313782"),
        (day(2020, 6, 1, 9, 15), "SNOMED//15777000"),  # began before the visit in which it was found
        (day(2020, 6, 1, 9, 15), "SNOMED//444814009"),
        (day(2020, 6, 1, 9, 15), "ENCOUNTER_END//OUTPATIENT"),
        (day(2020, 6, 15, 23, 59, 59), "SNOMED//75498004"),  # began after it
        (day(2021, 3, 1, 10), "HOSPITAL_ADMISSION//INPATIENT"),
        (day(2021, 3, 1, 11), "PROCEDURE//SNOMED//399208008"),
        (day(2021, 3, 3, 18), "SNOMED//233604007"),  # of a stay: at its end
        (day(2021, 3, 3, 18), "HOSPITAL_DISCHARGE//UNKNOWN"),
        (day(2021, 3, 4, 23, 59, 59), "MEDS_DEATH"),
        (day(2021, 3, 4, 23, 59, 59), "FOLLOW_UP//END"),  # the death certificate comes later
    ]
    assert told(events, BEN) == [
        (None, "GENDER//M"),
        (None, "RACE//BLACK"),
        (day(1980, 1, 15), "MEDS_BIRTH"),
        (day(2022, 1, 10, 8), "ENCOUNTER_START//WELLNESS"),
        (day(2022, 1, 10, 8), "LOINC//2160-0"),
        (day(2022, 1, 10, 8), "LOINC//72166-2//NEVER SMOKED TOBACCO (FINDING)"),
        (day(2022, 1, 10, 8), "LOINC//8480-6"),
        (day(2022, 1, 10, 8), "CVX//08"),
        (day(2022, 1, 10, 8, 30), "ALLERGY//RXNORM//29046"),
        (day(2022, 1, 10, 8, 30), "ALLERGY//SNOMED//256277009"),
        (day(2022, 1, 10, 8, 30), "ENCOUNTER_END//WELLNESS"),
        (day(2022, 2, 1, 23, 30), "ED_ADMISSION"),
        (day(2022, 2, 1, 23, 59, 59), "SNOMED//44465007"),  # no encounter: the end of its day
        (day(2022, 2, 2, 0, 30), "ED_DISCHARGE"),
        (day(2022, 3, 1, 12), "ENCOUNTER_START//TELEHEALTH"),
        (day(2022, 3, 1, 12, 15), "ENCOUNTER_END//TELEHEALTH"),
        (day(2022, 3, 1, 23, 59, 59), "FOLLOW_UP//END"),
    ]


def test_values_and_words(synthea):
    report, events = synthea
    value = dict(
        events.filter(pl.col("code").str.starts_with("LOINC")).select("code", "numeric_value").rows()
    )
    assert value["LOINC//8480-6"] == 121 and "LOINC//72166-2" not in value
    words = events.filter(pl.col("text_value").is_not_null())
    assert words.select("code", "text_value").rows() == [
        ("LOINC//72166-2//NEVER SMOKED TOBACCO (FINDING)", "Never smoked tobacco (finding)")
    ]
    (observed,) = report["tables"]["observations"]["rules"]
    assert observed["dropped"] == {"score of the simulation": 1}


def without(column: str, name: str) -> str:
    """A table of `BY_HAND` without one column."""
    return pl.read_csv(BY_HAND / f"{name}.csv", infer_schema=False).drop(column).write_csv()


def test_older_versions(synthea, tmp_path):
    """Until 2021 procedures had a DATE, and codes had no SYSTEM; patients and encounters alone are enough."""
    raw = tmp_path / "raw" / "csv"
    raw.mkdir(parents=True)
    for name in ("patients", "encounters"):
        (raw / f"{name}.csv").write_text((BY_HAND / f"{name}.csv").read_text())
    (raw / "conditions.csv").write_text(without("SYSTEM", "conditions"))
    procedures = pl.read_csv(BY_HAND / "procedures.csv", infer_schema=False)
    old = procedures.select(
        pl.col("START").str.slice(0, 10).alias("DATE"), "PATIENT", "ENCOUNTER", "CODE", "DESCRIPTION"
    )
    (raw / "procedures.csv").write_text(old.write_csv())
    ingest("synthea", raw.parent, tmp_path / "out")
    events = read_events(tmp_path / "out")
    (procedure,) = events.filter(pl.col("code").str.starts_with("PROCEDURE"))["time"]
    assert procedure == dt.datetime(2021, 3, 1, 23, 59, 59), "a date is its end"
    kinds = events["code"].str.split("//").list.first()
    assert (kinds == "SNOMED").sum() == (synthea[1]["code"].str.starts_with("SNOMED")).sum() == 5
