"""The mapping of MIMIC-IV, on the public demo's raw tables."""

import polars as pl
import pytest

from sequela.record.ingest import ingest
from sequela.record.store import read_events


@pytest.fixture(scope="module")
def mimic(shared_data, tmp_path_factory) -> tuple[dict, pl.DataFrame]:
    out = tmp_path_factory.mktemp("mimic")
    return ingest("mimic4", shared_data / "ehr/mimic4demo_partial", out), read_events(out)


def test_mimic_counts(mimic, balanced):
    report, events = mimic
    assert balanced(report)
    assert (report["patients"], report["events"]) == (100, 116_969)
    head = events["code"].str.split("//").list.first().alias("head")
    count = dict(head.value_counts().rows())
    assert count["HOSPITAL_ADMISSION"] == count["HOSPITAL_DISCHARGE"] == 275
    assert count["ICD9CM"] + count["ICD10CM"] == 4_506
    assert count["MEDS_DEATH"] == 31 and count["LAB"] == 107_727 - 189
    assert not events["code"].str.contains(r"^ICD\d+CM//.*\.").any(), "codes without the dot"


def test_mimic_diagnoses_stand_at_a_discharge(mimic):
    _, events = mimic
    ends = events.filter(pl.col("code").str.starts_with("HOSPITAL_DISCHARGE//")).select("subject_id", "time")
    diagnoses = events.filter(pl.col("code").str.starts_with("ICD"))
    assert diagnoses.join(ends, on=["subject_id", "time"], how="anti").is_empty()


def test_mimic_death_is_last(mimic):
    _, events = mimic
    deaths = events.filter(pl.col("code") == "MEDS_DEATH").select("subject_id", death="time")
    assert events.join(deaths, on="subject_id").filter(pl.col("time") > pl.col("death")).is_empty()
