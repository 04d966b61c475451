"""A source that no code knows becomes a MEDS dataset; every row of it is accounted for; wrong input gets a sentence."""

import datetime as dt
import json
import re
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sequela.errors import InputError
from sequela.record.dataset import read_events
from sequela.record.ingest.run import IngestSettings, ingest, origin_identity
from sequela.workers import Workers


def test_a_fourth_source_needs_only_a_mapping(clinic, balanced, rule_of):
    report = clinic.ingest()
    assert (report["source"], report["patients"], report["events"]) == ("clinic", 3, 13)
    assert balanced(report)
    assert rule_of(report, "visits", "code")["dropped"] == {"no value": 1}
    assert json.loads((clinic.folder / "out/ingest.json").read_text()) == report
    events = clinic.events()
    assert events.filter(pl.col("subject_id") == 1).rows() == [
        (1, None, "GENDER//F", None),
        (1, dt.datetime(1950, 3, 1), "MEDS_BIRTH", None),
        (1, dt.datetime(2020, 1, 5, 8, 30), "LAB//HB", 13.5),
        (1, dt.datetime(2020, 1, 5, 8, 30), "VITAL//HR", 72.0),
        (1, dt.datetime(2020, 6, 1), "FOLLOW_UP//END", None),
    ]
    assert events.filter(pl.col("subject_id") == 2)["code"].to_list()[2:4] == ["VITAL//HR", "LAB//HB"], (
        "by time"
    )
    codes = dict(
        pl.read_parquet(clinic.folder / "out/metadata/codes.parquet").select("code", "description").rows()
    )
    assert codes["LAB//HB"] == "Test hb [g/dL]" and codes["MEDS_BIRTH"] is None


def test_gzipped_files_give_the_same(clinic, new_clinic):
    clinic.ingest()
    other = new_clinic()
    other.ingest_gzipped()
    assert other.events().equals(clinic.events())


def test_events_at_the_same_time_keep_the_order_of_the_mapping(clinic):
    clinic.people = clinic.people.replace("2020-06-01", "2020-01-05 08:30:00")
    clinic.ingest()
    assert clinic.events()["code"].to_list()[:5] == [
        "GENDER//F",
        "MEDS_BIRTH",
        "LAB//HB",
        "VITAL//HR",
        "FOLLOW_UP//END",
    ]


rows = st.tuples(
    st.sampled_from(["1", "2", "9", ""]),
    st.sampled_from(["2020-01-05", "2020-01-06 10:00", "1940-01-01", "2030-01-01"]),
    st.sampled_from(["hb", "hr", "xx", ""]),
    st.sampled_from(["5", "5.0", "-1", "1e9", ""]),
)


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(rows, min_size=1, max_size=30))
def test_every_row_is_accounted_for(clinic, balanced, rows):
    clinic.visits = "pid,seen,test,value\n" + "".join(",".join(row) + "\n" for row in rows)
    report = clinic.ingest()
    assert balanced(report)
    assert clinic.events().height == report["events"]


def refused(clinic, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        clinic.ingest()
    said = str(caught.value)
    assert all(word in said for word in words), said
    assert "\n" not in said and "SECRET" not in said
    assert not (clinic.folder / "out").exists()


def test_wrong_sql_in_a_table(clinic):
    clinic.mapping = clinic.mapping.replace(
        "[[events]]", '[tables.more]\nsql = "SELECT * FROM nothing"\n\n[[events]]', 1
    )
    refused(clinic, "clinic.toml, table 'more'", "nothing")


def test_wrong_files(clinic, new_clinic):
    clinic.visits = clinic.visits.replace("value", "val", 1)
    refused(clinic, "visits.csv", "no column 'value'")
    clinic.visits = clinic.visits.replace("val", "value", 1).replace("13.5", "SECRET")
    refused(clinic, "visits.csv, row 1", "column 'value'")
    clinic.visits = "pid,seen,test,value\n"
    refused(clinic, "visits.csv", "no rows")
    other = new_clinic(visits=None)
    refused(other, "visits.csv or visits.csv.gz", "table 'visits'")
    cut = new_clinic()
    with pytest.raises(InputError, match=r"visits\.csv\.gz .*again"):
        cut.ingest_gzipped(size=60)


def test_no_event_at_all(clinic):
    clinic.mapping = (
        clinic.mapping.split("[[events]]")[0]
        + '[[events]]\ntable = "people"\nwhere = "false"\ncode = "\'A\'"\n'
    )
    refused(clinic, "none of its rows makes an event")


def test_a_dataset_is_not_written_over_another(clinic):
    clinic.ingest()
    with pytest.raises(InputError, match="out holds a dataset already"):
        ingest(clinic.folder / "clinic.toml", clinic.raw, clinic.folder / "out")
    assert clinic.events().height == 13


def test_unknown_source(tmp_path):
    with pytest.raises(InputError, match="did you mean 'nafld'"):
        ingest("naflt", tmp_path, tmp_path / "out")


def test_progress_reaches_its_total(clinic):
    clinic.write()
    seen = []
    ingest(
        clinic.folder / "clinic.toml",
        clinic.raw,
        clinic.folder / "out",
        progress=lambda done, total, **facts: seen.append((done, total, facts["stage"])),
    )
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert seen[-1][0] == seen[-1][1] and seen[0][2] == "read people"


def test_the_example_of_the_guide_works(tmp_path, balanced):
    guide = (Path(__file__).parents[3] / "docs/how-to/data.md").read_text()
    mapping, people, results = re.findall(r"```(?:toml|csv)\n(.*?)```", guide, re.DOTALL)[:3]
    (tmp_path / "clinic.toml").write_text(mapping)
    (tmp_path / "people.csv").write_text(people)
    (tmp_path / "results-2024.csv").write_text(results)
    report = ingest(tmp_path / "clinic.toml", tmp_path, tmp_path / "out")
    assert balanced(report)
    assert f"{report['patients']} patients, {report['events']} events" in guide
    for rule in (rule for table in report["tables"].values() for rule in table["rules"]):
        for reason, rows in rule["dropped"].items():
            assert f'"{reason}": {rows}' in guide


def test_workers_and_shards_change_only_how_files_are_cut(clinic, tmp_path):
    clinic.people += "".join(f"{patient},F,1950-01-01,2022-01-01\n" for patient in range(10, 60))
    clinic.visits += "".join(f"{patient},2020-01-05,hb,{patient / 4}\n" for patient in range(10, 60)) * 2
    report = clinic.ingest()
    many = tmp_path / "many"
    again = ingest(
        clinic.folder / "clinic.toml",
        clinic.raw,
        many,
        IngestSettings(events_per_shard=40),
        workers=Workers(processes=2),
    )
    assert len(list(many.glob("data/train/*.parquet"))) > 3
    assert again == report
    assert read_events(many).equals(clinic.events())
    for name in ("codes", "subject_splits"):
        made = [pl.read_parquet(out / f"metadata/{name}.parquet") for out in (many, clinic.folder / "out")]
        assert made[0].equals(made[1])
    assert not list(many.glob(".*")), "no scratch is left"


def test_codes_say_how_often_and_in_which_unit(clinic):
    clinic.ingest()
    codes = pl.read_parquet(clinic.folder / "out/metadata/codes.parquet").drop("parent_codes")
    told = {row["code"]: row for row in codes.rows(named=True)}
    assert told["LAB//HB"] == {
        "code": "LAB//HB",
        "description": "Test hb [g/dL]",
        "events": 2,
        "patients": 2,
        "unit": "g/dL",
    }


def test_fractions_that_are_none_are_refused_before_any_work():
    with pytest.raises(InputError, match="three nonnegative shares that sum to 1"):
        IngestSettings(fractions=(0.5, 0.1, 0.1))


def test_little_memory_is_enough(clinic):
    clinic.write()
    report = ingest(clinic.folder / "clinic.toml", clinic.raw, clinic.folder / "out", IngestSettings(memory="50MB"))
    assert report["events"] == 13


def test_a_server_is_read_anew_each_time_and_a_folder_is_known_by_its_content(tmp_path):
    settings, inputs = origin_identity("postgresql://me:SECRET@h/db")
    assert settings["raw"] == "postgresql://me@h/db" and "read_at" in settings and inputs == {}
    assert origin_identity(tmp_path) == ({}, {"raw": tmp_path})


def test_folders_whose_names_are_patterns(clinic, tmp_path):
    clinic.write()
    raw, neighbor, out = tmp_path / "run[1]", tmp_path / "run1", tmp_path / "o*ut's \n[2]"
    clinic.raw.rename(raw)
    neighbor.mkdir()
    for path in raw.iterdir():
        (neighbor / path.name).write_text(path.read_text().replace("2020", "1999"))
    settings = IngestSettings(events_per_shard=4)
    ingest(clinic.folder / "clinic.toml", raw, out, settings)
    clinic.ingest()
    assert read_events(out).equals(clinic.events())


def test_a_result_that_duckdb_cannot_write_to_is_refused(clinic, tmp_path):
    clinic.write()
    for name, sign in (("a\\b", "backslash"), ("a?b", "question mark")):
        with pytest.raises(InputError, match=sign):
            ingest(clinic.folder / "clinic.toml", clinic.raw, tmp_path / name)
