"""Rules: which rows make events, why others are dropped, and what is said of a rule that cannot be."""

import datetime as dt

import duckdb
import polars as pl
import pytest

from sequela.errors import InputError
from sequela.record.ingest.mapping import EventRule
from sequela.record.ingest.rule import count_unselected
from sequela.record.ingest.run import ingest
from sequela.record.shards import read_frame, read_shard, shards_of


def refused(clinic, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        clinic.ingest()
    said = str(caught.value)
    assert all(word in said for word in words), said
    assert "\n" not in said and "SECRET" not in said
    assert not (clinic.folder / "out").exists()


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
def test_reasons_to_drop_a_row(clinic, row, reason, balanced, rule_of):
    control = clinic.ingest()
    clinic.visits += row + "\n"
    report = clinic.ingest()
    assert report["events"] == control["events"]
    before = rule_of(control, "visits", "code")["dropped"].get(reason, 0)
    assert rule_of(report, "visits", "code")["dropped"][reason] == before + 1
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


def test_a_rule_may_name_its_own_reasons_and_rows(clinic, balanced, rule_of):
    old = 'code = "code"\ntime = "seen"'
    clinic.mapping = clinic.mapping.replace(
        old, old + '\nwhere = "test <> \'hr\'"\ndrop = { "too old" = "seen < DATE \'2020-01-01\'" }'
    )
    report = clinic.ingest()
    assert rule_of(report, "visits", "code")["dropped"] == {"not selected": 2, "too old": 1}
    assert report["tables"]["visits"]["rows_without_rule"] == 2
    assert balanced(report)


def test_a_rule_may_count_some_of_its_events(clinic, rule_of, balanced):
    control = clinic.ingest()
    assert "counted" not in rule_of(control, "visits", "code")
    counted = '{ "low" = "value < 10", "low or a pulse" = "value < 80", "high" = "value > 999" }'
    clinic.mapping = clinic.mapping.replace('value = "value"', f'value = "value"\ncount = {counted}')
    clinic.visits += "1,2020-01-05 08:30:00,hb,2\n"  # out of range: no event, so it is not counted
    report = clinic.ingest()
    assert rule_of(report, "visits", "code")["counted"] == {"low": 1, "low or a pulse": 2, "high": 0}
    assert report["events"] == control["events"] and balanced(report)


def test_text_and_events_without_value_can_be_kept(clinic):
    clinic.mapping = clinic.mapping.replace(
        'value = "value"', 'value = "value"\nkeep_without_value = true\ntext = "test"'
    )
    clinic.ingest()
    kept = clinic.events().filter(pl.col("code") == "LAB//HB")
    assert kept["numeric_value"].to_list() == [13.5, 9.0, None]
    assert kept["text_value"].to_list() == ["hb", "hb", "hb"]


def with_notes(clinic) -> None:
    """The clinic writes a note, and names an image, at some visits."""
    clinic.mapping = clinic.mapping.replace('value = "number" }', 'value = "number", note = "text", scan = "text" }')
    clinic.mapping = clinic.mapping.replace(
        'value = "value"', 'value = "value"\ntext = "note"\nmedia = "\'scans/\' || scan"'
    )
    header, *rows = clinic.visits.splitlines()
    notes = ["pale,1.png", "pale,1.png", ",", '"tired, said so",', ",2.png"]
    clinic.visits = "\n".join([f"{header},note,scan", *map(",".join, zip(rows, notes, strict=True))]) + "\n"


def test_notes_and_images_are_found_again(clinic, balanced):
    with_notes(clinic)
    clinic.visits += "2,2020-03-01,hb,9,,2.png\n" * 2  # the same result with an image is another event, once
    report = clinic.ingest()
    assert balanced(report)
    columns = ["subject_id", "code", "text_value", "media"]
    expected = [
        (1, "LAB//HB", "pale", "scans/1.png"), (1, "VITAL//HR", "pale", "scans/1.png"),
        (2, "VITAL//HR", "tired, said so", None), (2, "LAB//HB", None, None), (2, "LAB//HB", None, "scans/2.png"),
    ]  # fmt: skip
    kept = clinic.events().filter(pl.col("code").str.contains("^LAB|^VITAL"))
    assert kept.select(columns).rows() == expected
    payloads = [pl.read_parquet(file) for file in (clinic.folder / "out/data").rglob("*.parquet")]
    assert sorted(pl.concat(payloads)["media"].drop_nulls()) == ["scans/1.png", "scans/1.png", "scans/2.png"]
    for shard in shards_of(clinic.folder / "out"):
        events = read_shard(shard)
        assert events.frame().equals(read_frame(shard)) and len(events.media) == len(events)


@pytest.mark.parametrize("cell", ["../../SECRET.png", "a/../SECRET.png"])
def test_a_file_outside_the_dataset_is_refused(clinic, cell):
    with_notes(clinic)
    clinic.ingest()
    clinic.visits = clinic.visits.replace("2.png", "3.png").replace(",13.5,pale,1.png", f",13.5,pale,{cell}")
    refused(clinic, "events 3", "visits.csv, row 1", "'media'", "relative path")


def test_a_few_unreadable_times_are_dropped_and_the_first_is_named(clinic, rule_of):
    clinic.visits += "1,2020-02-02,hr,70\n" * 300 + "1,the next day,hr,70\n1,,hr,70\n"
    report = clinic.ingest()
    dropped = rule_of(report, "visits", "code")["dropped"]
    assert (dropped["unreadable time"], dropped["no time"]) == (1, 1)
    assert report["tables"]["visits"]["unreadable_times"] == {
        "seen": {"rows": 1, "first": "visits.csv, row 306"}
    }


def test_a_time_that_is_empty_is_not_unreadable_because_another_of_its_row_is(clinic, rule_of):
    clinic.people += "".join(f"{patient},F,1970-01-01,2020-06-01\n" for patient in range(100, 400))
    clinic.people += "4,F,,some day\n5,F,1970-31-31,2020-06-01\n"
    report = clinic.ingest()
    assert rule_of(report, "people", "'MEDS_BIRTH'")["dropped"] == {"no time": 1, "unreadable time": 1}
    assert rule_of(report, "people", "'FOLLOW_UP//END'")["dropped"] == {"unreadable time": 1}


def test_many_unreadable_times_are_an_error(clinic):
    clinic.visits = clinic.visits.replace("2020-", "SECRET 2020-")
    refused(clinic, "table 'visits'", "4 of 5 cells", "column 'seen'", "visits.csv, row 1", "missing_times")


def test_many_missing_times_are_an_error_unless_the_mapping_allows_them(clinic, rule_of):
    clinic.people = clinic.people.replace("1950-03-01", "").replace("1960-07-15", "")
    refused(clinic, "events 2", "2 of 3 rows", "(born)", "people.csv, row 1")
    clinic.mapping = clinic.mapping.replace('time = "born"', 'time = "born"\nmissing_times = 0.7')
    report = clinic.ingest()
    assert rule_of(report, "people", "MEDS_BIRTH")["dropped"] == {"no time": 2}


@pytest.mark.parametrize("mrn", ["12_3", "1e3", "0x7B", "1.5"])
def test_an_id_that_only_sql_takes_for_a_whole_number_is_an_error(clinic, mrn):
    """As text, and as the number that a column of numbers makes of it."""
    for kind in ("text", "number") if mrn == "1.5" else ("text",):
        clinic.mapping = clinic.mapping.replace("pid = \"integer\", seen", f'pid = "{kind}", seen')
        clinic.visits = clinic.visits.replace("\n3,", f"\n{mrn},")
        refused(clinic, "events 3", "cannot be converted")


def test_a_time_that_is_text_is_read_with_its_offset(clinic):
    clinic.mapping = clinic.mapping.replace('seen = "time"', 'seen = "text"')
    clinic.visits = clinic.visits.replace("2020-03-01,", "2020-03-01 22:20:52.0000000 -05:00,")
    clinic.ingest()
    assert clinic.events().filter(pl.col("code") == "LAB//HB")["time"].max() == dt.datetime(2020, 3, 2, 3, 20, 52)
    clinic.visits = clinic.visits.replace("22:20:52.0000000 -05:00", "in the morning")
    refused(clinic, "events 3", "try_cast")


STAYS = """
[tables.stays]
files = ["stays.csv"]
columns = { pid = "integer", stay = "integer", opens = "time", closes = "time" }

[tables.bills]
files = ["bills.csv"]
columns = { pid = "integer", stay = "integer", code = "text", billed = "time" }

[[events]]
table = "stays"
code = "'HOSPITAL_ADMISSION'"
time = "opens"

[[events]]
table = "stays"
where = "closes IS NOT NULL"
code = "'HOSPITAL_DISCHARGE'"
time = "closes"

[[events]]
table = "bills"
join = "stays USING (pid, stay)"
code = "bills.code"
time = "CASE WHEN billed = date_trunc('day', billed) THEN billed + INTERVAL 86399 SECOND ELSE billed END"
stay = ["opens", "closes"]
"""


def test_the_stay_that_a_row_names_decides_where_it_belongs(clinic):
    clinic.mapping += STAYS
    clinic.write()
    (clinic.raw / "stays.csv").write_text(
        "pid,stay,opens,closes\n1,1,2020-02-01 08:00,2020-02-20 14:00\n1,2,2020-02-10 08:00,2020-02-10 09:00\n"
        "1,3,2020-02-01 08:00,2020-02-03 08:00\n1,4,2020-03-01 08:00,\n"
    )
    bills = [(1, "ICD10CM//A", "2020-02-01 08:00"), (3, "ICD10CM//B", "2020-02-01 08:00"),
             (1, "ICD10CM//C", "2020-02-05 08:00"), (4, "ICD10CM//D", "2020-03-01 08:00"),
             (1, "CPT4//E", "2020-02-01 08:00"), (1, "CPT4//F", "2020-02-20"),
             ("", "CPT4//G", "2020-02-20")]  # fmt: skip
    (clinic.raw / "bills.csv").write_text("pid,stay,code,billed\n" + "".join(f"1,{s},{c},{t}\n" for s, c, t in bills))
    report = ingest(clinic.folder / "clinic.toml", clinic.raw, clinic.folder / "out")
    when = {code[-1]: time.strftime("%m-%d %H") for code, time in clinic.events().select("code", "time").rows()
            if code.startswith(("ICD", "CPT4"))}  # fmt: skip
    assert when == {"A": "02-20 14", "B": "02-03 08", "C": "02-05 08", "D": "03-01 08", "E": "02-01 08",
                    "F": "02-20 14", "G": "02-20 14"}  # fmt: skip
    assert report["moved"] == {
        "at admission -> at discharge": 2, "not moved: the end of the stay is not known": 1,
        "date without a clock -> end of the stay on that day": 2,
    }  # fmt: skip


def test_a_join_that_multiplies_rows_is_an_error(clinic):
    clinic.mapping = clinic.mapping.replace('["hr", "VITAL//HR"', '["hb", "VITAL//HR"')
    refused(clinic, "events 3", "its join turns 5 rows into 8", "unique")


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


@pytest.fixture
def rows_unread():
    """Rows 0 to 11; words for the first 6 of them, two for row 5; how many rows some rules leave."""
    con = duckdb.connect()
    con.execute("CREATE TABLE t AS SELECT i AS _row, i AS i, 'x' AS word FROM range(12) AS _(i)")
    con.execute("CREATE TABLE w AS SELECT i, i * 10 AS ten FROM range(6) AS _(i) UNION ALL SELECT 5, 99")
    return lambda *said: count_unselected(
        con, "t", tuple(EventRule("t", "'A'", "1", join, where) for join, where in said), "x"
    )


def test_rows_that_no_rule_selects_are_counted_once(rows_unread):
    joined, other = ("w USING (i)",), ("w ON w.i = t.i + 1",)
    assert rows_unread(((), "i < 3")) == 9
    assert rows_unread(((), "i < 3"), ((), "i > 8"), ((), "word = NULL")) == 6
    assert rows_unread((joined, "ten < 30"), (joined, "ten < 20")) == 9
    assert rows_unread((joined, "ten = 99"), (joined, "ten IS NULL")) == 5, (
        "row 5 has two partners, one is read"
    )
    assert rows_unread((joined, "ten = 99"), (joined, "ten = 50")) == 11
    assert rows_unread(((), "i < 2"), (joined, "ten < 30"), (other, "ten < 50")) == 8
    assert rows_unread(((), "i IN (SELECT i FROM w)"), (joined, "ten = 0")) == 6
    assert rows_unread(((), None), (joined, "ten < 30")) == 0


def test_many_joined_rules_of_a_large_table_need_little_memory(tmp_path):
    con = duckdb.connect(str(tmp_path / "t.duckdb"), config={"memory_limit": "70MB", "threads": 1})
    con.execute("CREATE TABLE t AS SELECT i AS _row, i % 100 AS k FROM range(600000) AS _(i)")
    con.execute("CREATE TABLE w AS SELECT i AS k FROM range(100) AS _(i)")
    rules = tuple(EventRule("t", "'A'", "1", ("w USING (k)",), f"k NOT IN ({n}, 99)") for n in range(13))
    assert count_unselected(con, "t", rules, "x") == 6000


ANSWERS = """
name = "answers"
patient = "pid"
[tables.results]
files = "results.csv"
columns = { pid = "integer", day = "time", item = "text", result = "text" }
[[events]]
table = "results"
code = "'OBS//' || item"
time = "day"
value = "try_cast(result AS DOUBLE)"
answer = "result"
description = "item"
"""


def answered(folder, rows: list[tuple[str, str]], keep: bool = True) -> tuple[dict, pl.DataFrame]:
    """Events of one-day patients who gave these answers; ingest's account, and the code and text of each event."""
    lines = [f"{number},2020-01-01,{item},{result}" for number, (item, result) in enumerate(rows, 1)]
    (folder / "results.csv").write_text("\n".join(["pid,day,item,result", *lines]) + "\n")
    (folder / "map.toml").write_text(ANSWERS + ("keep_without_value = true\n" if keep else ""))
    report = ingest(folder / "map.toml", folder, folder / "out")
    events = pl.concat([read_frame(shard) for shard in shards_of(folder / "out")], how="diagonal").sort("subject_id")
    return report, events


def test_a_category_is_part_of_its_code_and_free_text_is_not(tmp_path):
    smoking = ["never", " Former ", "current", "NEVER"]
    notes = [f"fell on day {number}" for number in range(20)]
    rows = [*(("SMOKING", word) for word in smoking), *(("NOTE", note) for note in notes), ("HB", "9.5"), ("HB", "n/a")]
    _, events = answered(tmp_path, rows)
    codes = events["code"].to_list()
    assert codes[:4] == [f"OBS//SMOKING//{word}" for word in ("NEVER", "FORMER", "CURRENT", "NEVER")]
    assert codes[4:24] == ["OBS//NOTE"] * 20 and events["text_value"].to_list()[4:24] == notes
    assert codes[24:] == ["OBS//HB", "OBS//HB//N/A"] and events["numeric_value"].to_list()[24:] == [9.5, None]
    meanings = dict(pl.read_parquet(tmp_path / "out/metadata/codes.parquet").select("code", "description").rows())
    assert meanings["OBS//SMOKING//NEVER"] == "SMOKING: NEVER" and meanings["OBS//NOTE"] == "NOTE"


def test_many_categories_that_come_again_are_categories_and_long_ones_are_text(tmp_path):
    rows = [("GERM", f"germ {number % 9}//x") for number in range(27)] + [("LONG", "a word " * 20)] + [("EMPTY", "")]
    _, events = answered(tmp_path, rows)
    assert events["code"].to_list()[:2] == ["OBS//GERM//GERM 0/X", "OBS//GERM//GERM 1/X"]
    assert events["code"].to_list()[27:] == ["OBS//LONG", "OBS//EMPTY"]


def test_a_row_with_an_answer_needs_no_value(tmp_path, balanced):
    report, events = answered(tmp_path, [("TEST", "positive"), ("TEST", ""), ("TEST", "4")], keep=False)
    assert balanced(report)
    assert events["code"].to_list() == ["OBS//TEST//POSITIVE", "OBS//TEST"]
