"""The bundled cohort: what ingest makes of the public data, with the counts that are known from elsewhere."""

import datetime as dt

import polars as pl
import pytest

from sequela.record.cohort import nafld
from sequela.record.dataset import read_events
from sequela.record.ingest.run import ingest
from sequela.record.timeline import timelines

DAY_0 = dt.datetime(2000, 1, 1)


@pytest.fixture(scope="module")
def cohort() -> pl.DataFrame:
    return read_events(nafld())


def test_the_bundled_cohort_is_what_ingest_makes_of_the_public_data(
    shared_data, tmp_path, cohort, balanced, rule_of
):
    report = ingest("nafld", shared_data / "ehr/nafld", tmp_path)
    assert balanced(report)
    assert read_events(tmp_path).equals(cohort)
    for name in ("metadata/codes.parquet", "metadata/subject_splits.parquet"):
        assert pl.read_parquet(tmp_path / name).equals(pl.read_parquet(nafld() / name))
    for name in ("metadata/dataset.json", "ingest.json"):
        assert (tmp_path / name).read_text() == (nafld() / name).read_text()
    dropped = rule_of(report, "tests", "code")["dropped"]
    assert (dropped["copy of hdl"], dropped["copy of sbp"], dropped["out of range"]) == (161_258, 33_430, 8)
    assert rule_of(report, "diagnoses", "code")["dropped"] == {"after follow-up end": 13}


def test_the_bundled_cohort_has_the_known_counts(cohort):
    count = dict(cohort["code"].value_counts().rows())
    assert cohort.height == 334_676 and cohort["subject_id"].n_unique() == 17_549
    everyone = ("MEDS_BIRTH", "COHORT//ENTRY", "FOLLOW_UP//END")
    assert [count[code] for code in everyone] == [17_549] * 3
    assert count["GENDER//F"] + count["GENDER//M"] == 17_549
    assert count["MEDS_DEATH"] == 1_364
    # People with a first diagnosis after day 0, as counted from the public files by other means
    first = (
        cohort.filter(pl.col("code").str.starts_with("DIAGNOSIS//"))
        .group_by("subject_id", "code")
        .agg(pl.col("time").min())
    )
    new = dict(first.filter(pl.col("time") > DAY_0)["code"].value_counts().rows())
    assert new["DIAGNOSIS//HYPERTENSION"] == 2_074
    assert new["DIAGNOSIS//DIABETES"] == 1_058


def test_nothing_follows_the_end_of_follow_up(cohort):
    for timeline in timelines(cohort):
        assert timeline.time[-1] == timeline.end
        assert timeline.code[-1] == "FOLLOW_UP//END"


def test_the_bundled_folder_is_small_and_licensed():
    files = [path for path in nafld().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2_000_000
    assert "LIBRARY GENERAL PUBLIC LICENSE" in (nafld() / "LICENSE").read_text()
    assert {"README.md", "CITATION", "LICENSE"} <= {path.name for path in files}
