"""A source that no code knows becomes a MEDS dataset; every row of it is accounted for; wrong input gets a sentence."""

import datetime as dt
import json

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sequela.record.errors import InputError
from sequela.record.ingest import ingest


def accounts(report: dict) -> list[dict]:
    return [rule for table in report["tables"].values() for rule in table["rules"]]


def balanced(report: dict) -> bool:
    rules = accounts(report)
    return sum(rule["events_out"] for rule in rules) == report["events"] and all(
        rule["rows_in"] == rule["events_out"] + sum(rule["dropped"].values()) for rule in rules
    )


def test_a_fourth_source_needs_only_a_mapping(clinic):
    report = clinic.ingest()
    assert (report["source"], report["patients"], report["events"]) == ("clinic", 3, 13)
    assert balanced(report)
    assert clinic.rule(report, "visits", "code")["dropped"] == {"no value": 1}
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


@pytest.mark.parametrize(
    "row, reason",
    [
        (",2020-01-01,hb,9", "no patient"),
        ("1,2020-01-01,other,9", "no code"),
        ("1,2020-01-01,hb,", "no value"),
        ("1,2020-01-01,hb,nan", "no value"),
        ("1,2020-01-01,hb,2.9", "out of range"),
        ("1,2020-01-01,hb,25.1", "out of range"),
        ("1,2020-01-05 08:30:00,hb,13.5", "duplicate"),
        ("1,1950-02-28,hb,9", "before birth"),
        ("1,2020-06-02,hb,9", "after follow-up end"),
    ],
)
def test_reasons_to_drop_a_row(clinic, row, reason):
    control = clinic.ingest()
    clinic.visits += row + "\n"
    report = clinic.ingest()
    assert report["events"] == control["events"]
    before = clinic.rule(control, "visits", "code")["dropped"].get(reason, 0)
    assert clinic.rule(report, "visits", "code")["dropped"][reason] == before + 1
    assert balanced(report)


@pytest.mark.parametrize(
    "row",
    [
        "1,2020-01-01,hb,3",
        "1,2020-01-01,hb,25",
        "1,2020-06-01,hb,9",
        "1,1950-03-01,hb,9",
        "1,2020-01-05 08:30,hb,13",
    ],
)
def test_rows_at_the_edge_are_kept(clinic, row):
    control = clinic.ingest()
    clinic.visits += row + "\n"
    assert clinic.ingest()["events"] == control["events"] + 1


def test_a_rule_may_name_its_own_reasons_and_rows(clinic):
    old = 'code = "code"\ntime = "seen"'
    clinic.mapping = clinic.mapping.replace(
        old, old + '\nwhere = "test <> \'hr\'"\ndrop = { "too old" = "seen < DATE \'2020-01-01\'" }'
    )
    report = clinic.ingest()
    assert clinic.rule(report, "visits", "code")["dropped"] == {"not selected": 2, "too old": 1}
    assert report["tables"]["visits"]["rows_without_rule"] == 2
    assert balanced(report)


def test_text_and_events_without_value_can_be_kept(clinic):
    clinic.mapping = clinic.mapping.replace(
        'value = "value"', 'value = "value"\nkeep_without_value = true\ntext = "test"'
    )
    clinic.ingest()
    kept = clinic.events().filter(pl.col("code") == "LAB//HB")
    assert kept["numeric_value"].to_list() == [13.5, 9.0, None]
    assert kept["text_value"].to_list() == ["hb", "hb", "hb"]


rows = st.tuples(
    st.sampled_from(["1", "2", "9", ""]),
    st.sampled_from(["2020-01-05", "2020-01-06 10:00", "1940-01-01", "2030-01-01"]),
    st.sampled_from(["hb", "hr", "xx", ""]),
    st.sampled_from(["5", "5.0", "-1", "1e9", ""]),
)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(rows, min_size=1, max_size=30))
def test_every_row_is_accounted_for(clinic, rows):
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


def test_a_few_unreadable_times_are_dropped_and_the_first_is_named(clinic):
    clinic.visits += "1,2020-02-02,hr,70\n" * 300 + "1,the next day,hr,70\n1,,hr,70\n"
    report = clinic.ingest()
    dropped = clinic.rule(report, "visits", "code")["dropped"]
    assert (dropped["unreadable time"], dropped["no time"]) == (1, 1)
    assert report["tables"]["visits"]["unreadable_times"] == {
        "seen": {"rows": 1, "first": "visits.csv, row 306"}
    }


def test_many_unreadable_times_are_an_error(clinic):
    clinic.visits = clinic.visits.replace("2020-", "SECRET 2020-")
    refused(clinic, "events 3", "4 of 5 rows", "column 'seen'", "visits.csv, row 1", "missing_times")


def test_many_missing_times_are_an_error_unless_the_mapping_allows_them(clinic):
    clinic.people = clinic.people.replace("1950-03-01", "").replace("1960-07-15", "")
    refused(clinic, "events 2", "2 of 3 rows", "(born)", "people.csv, row 1")
    clinic.mapping = clinic.mapping.replace('time = "born"', 'time = "born"\nmissing_times = 0.7')
    report = clinic.ingest()
    assert clinic.rule(report, "people", "MEDS_BIRTH")["dropped"] == {"no time": 2}


def test_a_join_that_multiplies_rows_is_an_error(clinic):
    clinic.mapping = clinic.mapping.replace('["hr", "VITAL//HR"', '["hb", "VITAL//HR"')
    refused(clinic, "events 3", "its join makes 8 rows of 5", "unique")


@pytest.mark.parametrize(
    "old, new, words",
    [
        ('time = "born"', 'time = "bron"', ["events 2", "bron"]),
        ('time = "born"', 'time = "born +"', ["events 2", "time = 'born +'", "double quotes"]),
        ('time = "born"', 'time = "sex::TIMESTAMP"', ["events 2", "try_cast"]),
        ('patient = "pid"', "patient = \"pid || 'A'\"", ["events 1", "try_cast"]),
        (
            "code = \"'GENDER//' || sex\"",
            "code = \"(SELECT content FROM read_text('/etc/hostname'))\"",
            ["events 1"],
        ),
    ],
)
def test_wrong_sql_in_a_mapping(clinic, old, new, words):
    assert old in clinic.mapping
    clinic.mapping = clinic.mapping.replace(old, new)
    clinic.people = clinic.people.replace("F", "SECRET")
    refused(clinic, "clinic.toml", *words)


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
    refused(clinic, "no row of it makes an event")


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
