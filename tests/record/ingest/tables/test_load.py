"""Raw files: what is read, and the sentence that each damaged or wrong file gets."""

import datetime as dt
import gzip
import re

import duckdb
import polars as pl
import pytest

from sequela.errors import InputError
from sequela.record.ingest.mapping import FileTable
from sequela.record.ingest.tables.load import LoadedTable, load_files, place_of

COLUMNS = {"pid": "integer", "at": "time", "after": "duration", "value": "number", "word": "text"}
HEADER = "pid,at,after,value,word,unused\n"
ROW = "1,2020-01-05 08:30:00,47:30,1.5,yes,x\n"


@pytest.fixture
def load(tmp_path):
    def run(**said):
        run.con = con = duckdb.connect()
        table = FileTable(**({"files": ("t.csv",), "columns": COLUMNS} | said))
        loaded = load_files(con, "t", table, tmp_path)
        return loaded, con.sql("SELECT * FROM t ORDER BY _row").fetchall()

    return run


def refused(load, *words, **said):
    with pytest.raises(InputError) as caught:
        load(**said)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message and "SECRET" not in message


def test_a_good_file(load, tmp_path):
    (tmp_path / "t.csv").write_text(HEADER + ROW + "2,,,,,\n")
    loaded, rows = load()
    assert (loaded.files, loaded.rows, loaded.unreadable) == (("t.csv",), 2, {})
    row, file, unreadable, pid, at, after, value, word = rows[0]
    assert (row, file, unreadable, pid, value, word) == (0, "t.csv", False, 1, 1.5, "yes")
    assert at.isoformat() == "2020-01-05T08:30:00" and after.total_seconds() == 47.5 * 3600
    assert rows[1][3:] == (2, None, None, None, None)


def test_unusual_but_valid_text(load, tmp_path):
    text = '\ufeffword,value\r\n"a, ""b""\r\nc",1e3\r\n\r\nNA,NA\r\nümlaut,-2'
    (tmp_path / "t.csv").write_bytes(text.encode())
    _, rows = load(columns={"word": "text", "value": "number"}, missing=("NA",))
    assert [row[3:] for row in rows] == [('a, "b"\r\nc', 1000.0), (None, None), ("ümlaut", -2.0)]


@pytest.mark.parametrize("delimiter", ["\t", ";", "|"])
def test_another_delimiter(load, tmp_path, delimiter):
    (tmp_path / "t.csv").write_text(f"a{delimiter}b\n1{delimiter}2,5\n")
    for said in ({}, {"delimiter": delimiter}):
        assert load(columns={"b": "text"}, **said)[1][0][3:] == ("2,5",)
    refused(load, "no column 'b'", columns={"b": "text"}, delimiter=",")


def test_quotes_between_tabs_are_characters(load, tmp_path):
    """As in the vocabularies of Athena; where a file does quote, its header does so too, or the table says it."""
    (tmp_path / "t.csv").write_text('a\tb\r\n1\t5" needle\r\n2\t"x" and "\r\n3\ty, z\r\n')
    _, rows = load(columns={"b": "text"})
    assert [row[3] for row in rows] == ['5" needle', '"x" and "', "y, z"]
    refused(load, "t.csv, line 3", columns={"b": "text"}, quote='"')
    (tmp_path / "t.csv").write_text('a\tb\n1\t"x\ty ""z"""\n')
    assert load(columns={"b": "text"}, quote='"')[1][0][3] == 'x\ty "z"'
    refused(load, "line 2 has 3 cells where the header has 2", columns={"b": "text"})
    (tmp_path / "t.csv").write_text('"a"\t"b"\n1\t"x\ty"\n')
    assert load(columns={"b": "text"})[1][0][3] == "x\ty"


def test_parquet(load, tmp_path):
    frame = pl.DataFrame({"pid": [4, 5], "value": [0.5, None], "more": ["x", "y"]})
    frame.write_parquet(tmp_path / "t.parquet")
    _, rows = load(files=("*.parquet",), columns={"pid": "integer", "value": "number"})
    assert [row[3:] for row in rows] == [(4, 0.5), (5, None)]
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    refused(load, "t.parquet", files=("*.parquet",))


def test_optional_columns_may_be_absent(load, tmp_path):
    said = {"columns": {"pid": "integer", "extra": "number"}, "optional_columns": frozenset({"extra"})}
    (tmp_path / "t.csv").write_text("pid\n7\n")
    assert load(**said)[1][0][3:] == (7, None)
    (tmp_path / "t.csv").write_text("extra,pid\n2.5,7\n")
    assert load(**said)[1][0][3:] == (7, 2.5)
    pl.DataFrame({"pid": [7]}).write_parquet(tmp_path / "a.parquet")
    assert load(files=("*.parquet",), **said)[1][0][3:] == (7, None)
    pl.DataFrame({"pid": [8], "extra": [0.5]}).write_parquet(tmp_path / "b.parquet")
    assert [row[3:] for row in load(files=("*.parquet",), **said)[1]] == [(7, None), (8, 0.5)]
    (tmp_path / "t.csv").write_text("extra\n2.5\n")
    refused(load, "t.csv", "no column 'pid'", **said)


def test_several_files_and_their_row_numbers(load, tmp_path):
    for name, values in (("b.csv", [30, 40]), ("a.csv", [10, 20, 25])):
        (tmp_path / name).write_text("value\n" + "".join(f"{value}\n" for value in values))
    loaded, rows = load(files=("nothing*.csv", "?.csv"), columns={"value": "number"})
    assert loaded.files == ("a.csv", "b.csv")
    assert [row[-1] for row in rows] == [10, 20, 25, 30, 40]
    assert [place_of(load.con, "t", row) for row in (0, 2, 3)] == [
        "a.csv, row 1",
        "a.csv, row 3",
        "b.csv, row 1",
    ]


def test_the_first_pattern_that_matches_is_used(load, tmp_path):
    (tmp_path / "t.csv").write_text("value\n1\n")
    (tmp_path / "t.old").write_text("value\n2\n")
    _, rows = load(files=("t.csv", "t.old"), columns={"value": "number"})
    assert [row[-1] for row in rows] == [1]


def test_no_folder_and_no_file(load, tmp_path):
    refused(load, str(tmp_path), "no file t.csv or t.csv.gz (table 't')", files=("t.csv", "t.csv.gz"))
    with pytest.raises(InputError, match="no folder"):
        load_files(duckdb.connect(), "t", FileTable(("t.csv",), COLUMNS), tmp_path / "gone")


def test_an_optional_table_may_be_absent(load):
    loaded, rows = load(optional=True)
    assert (loaded.rows, rows) == (0, [])
    assert {column for column, *_ in load.con.sql("DESCRIBE t").fetchall()} > set(COLUMNS)


@pytest.mark.parametrize(
    "content, words",
    [
        ("", ["t.csv is empty"]),
        (HEADER, ["no rows", "'t'"]),
        (HEADER.replace("value", "valu") + ROW, ["no column 'value'", "did you mean 'valu'", "pid, at"]),
        (HEADER.replace("unused", "pid") + ROW, ["two columns named 'pid'"]),
        (HEADER + ROW + ROW.replace("1.5", "SECRET"), ["t.csv, row 2", "'value'", "a number", "1 such"]),
        (HEADER + ROW.replace("1,2020", "1.5,2020"), ["t.csv, row 1", "'pid'", "a whole number"]),
        (HEADER + ROW + "1,2\n", ["t.csv, line 3", "has 2 cells where the header has 6"]),
        (HEADER + ROW + ROW.replace("x", "SECRET,y"), ["line 3", "has 7 cells where the header has 6"]),
        (HEADER + ROW.replace("yes", '"SECRET'), ["line 2", "open quote"]),
        ((HEADER + ROW).encode() + "1,,,,SECRÉT,\n".encode("latin-1"), ["line 3", "not UTF-8", "`encoding`"]),
        ("é\n".encode("latin-1"), ["not UTF-8", "first line"]),
    ],
)
def test_wrong_files(load, tmp_path, content, words):
    (tmp_path / "t.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(load, *words)


def test_files_with_different_columns(load, tmp_path):
    (tmp_path / "a.csv").write_text("pid,value\n1,2\n")
    (tmp_path / "b.csv").write_text("value,pid\n1,2\n")
    refused(load, "b.csv", "a.csv", "same header", files=("?.csv",), columns={"pid": "integer"})


def test_unreadable_times_are_marked_and_counted(load, tmp_path):
    rows = [
        ROW,
        ROW.replace("2020-01-05", "5 January"),
        ROW.replace("47:30", "soon"),
        ROW.replace("47:30", "90"),
    ]
    (tmp_path / "t.csv").write_text(HEADER + "".join(rows))
    loaded, read = load()
    assert loaded.unreadable == {"at": (1, "t.csv, row 2"), "after": (2, "t.csv, row 3")}
    assert [row[2] for row in read] == [0, 1 << loaded.times.index("at"), *[1 << loaded.times.index("after")] * 2]


def test_which_unreadable_cells_an_expression_reads():
    table = LoadedTable((), 1, {}, times=("born", "died", "last seen", *(f"t{n}" for n in range(80))))
    assert table.unreadable_in("coalesce(DIED, born)") == "(_unreadable & 3) <> 0"
    assert table.unreadable_in("born + INTERVAL 1 DAY") == "(_unreadable & 1) <> 0"
    assert table.unreadable_in("borne") == "_unreadable <> 0"
    assert table.unreadable_in("t70") == table.unreadable_in("t79") == f"(_unreadable & {1 << 62}) <> 0"


def test_truncated_gzip(load, tmp_path):
    packed = gzip.compress(
        (HEADER + "".join(re.sub("1.5", str(i * 7919 % 997), ROW) for i in range(5000))).encode()
    )
    (tmp_path / "t.csv.gz").write_bytes(packed)
    assert load(files=("t.csv.gz",))[0].rows == 5000
    for size in (5, len(packed) // 2, len(packed) - 4):
        (tmp_path / "t.csv.gz").write_bytes(packed[:size])
        refused(load, "t.csv.gz", "again", files=("t.csv.gz",))
    (tmp_path / "t.csv.gz").write_text(HEADER + ROW)
    refused(load, "t.csv.gz", files=("t.csv.gz",))


def test_an_encoding(load, tmp_path):
    text = "word,value\nMüller,1\n“€”,2\n"
    columns = {"word": "text", "value": "number"}
    (tmp_path / "t.csv").write_bytes(text.encode("cp1252"))
    (tmp_path / "u.csv.gz").write_bytes(gzip.compress(text.encode("utf-16")))
    assert [row[3:] for row in load(columns=columns, encoding="cp1252")[1]] == [("Müller", 1.0), ("“€”", 2.0)]
    assert load(columns=columns, encoding="utf-16", files=("u.csv.gz",))[1][1][1:] == ("u.csv.gz", False, "“€”", 2.0)
    refused(load, "t.csv, line 2", "not UTF-8", "`encoding`", columns=columns)
    refused(load, "not shift_jis", columns=columns, encoding="shift_jis")
    refused(load, "t.csv, row 1", "'word'", "a number", columns={"word": "number"}, encoding="cp1252")
    refused(load, "no column 'no'", columns={"no": "text"}, encoding="cp1252")


def test_a_stream_that_breaks_off(load, tmp_path):
    packed = gzip.compress("".join(f"{i * 7919 % 9973},é\n" for i in range(20000)).encode("latin-1"))
    (tmp_path / "t.csv.gz").write_bytes(packed[: len(packed) // 2])
    refused(load, "t.csv.gz", "damaged or incomplete", files=("t.csv.gz",), columns={"0": "text"}, encoding="latin-1")


def test_times_of_several_zones(load, tmp_path):
    """With offsets to the mapping's zone, without as they stand; a wrong zone must give other times."""
    rows = ["2020-01-05T08:30:00Z", "2020-01-05 08:30:00+01:00", "2020-07-05 08:30-0500", "2020-07-05 08:30:00", ""]
    (tmp_path / "t.csv").write_text("at\n" + "".join(f'"{row}"\n' for row in rows))
    said = {"columns": {"at": "time"}}
    loaded, read = load(**said, timezone="Europe/Berlin")
    assert [str(row[3]) for row in read] == [
        "2020-01-05 09:30:00", "2020-01-05 08:30:00", "2020-07-05 15:30:00", "2020-07-05 08:30:00", "None"
    ]  # fmt: skip
    assert loaded.facts == {"times_with_offset": {"at": 3}} and loaded.unreadable == {}
    assert [str(row[3]) for row in load(**said)[1]][:3] == [
        "2020-01-05 08:30:00", "2020-01-05 07:30:00", "2020-07-05 13:30:00"
    ]  # fmt: skip


def test_times_in_formats(load, tmp_path):
    (tmp_path / "t.csv").write_text("at\n03/14/2020 08:30\n03/04/2020\n2020-03-14\n14/03/2020\n03/14/20\n")
    american = {"at": "time %m/%d/%Y %H:%M | %m/%d/%Y"}
    loaded, read = load(columns=american)
    assert [str(row[3]) for row in read] == ["2020-03-14 08:30:00", "2020-03-04 00:00:00", "None", "None", "None"]
    assert loaded.unreadable["at"][0] == 3 and loaded.unreadable["at"][1].startswith("t.csv, row 3 (cells like these")
    assert [str(row[3]) for row in load(columns={"at": "time %d/%m/%Y"})[1]][1] == "2020-04-03 00:00:00"
    (tmp_path / "t.csv").write_text("at\n05.01.2020 08:30 +0200\n")
    zoned, read = load(columns={"at": "time %d.%m.%Y %H:%M %z"}, timezone="Europe/Berlin")
    assert (str(read[0][3]), zoned.facts) == ("2020-01-05 07:30:00", {"times_with_offset": {"at": 1}})


@pytest.mark.parametrize(
    "cells, words",
    [
        (["03/14/2020", "03/04/2020"], ['"time %m/%d/%Y")']),
        (["14/03/2020", "03/04/2020"], ['"time %d/%m/%Y")']),
        (["03/04/2020"], ['"time %m/%d/%Y" or "time %d/%m/%Y"']),
        (["03/14/2020 08:30 PM"], ['"time %m/%d/%Y %I:%M %p"']),
        (["14.03.2020 08:30", "01.02.2020 10:00"], ['"time %d.%m.%Y %H:%M"']),
        (["14-MAR-2020"], ['"time %d-%b-%Y"']),
        (["20200314"], ['"time %Y%m%d"']),
        (["20200314083000"], ['"time %Y%m%d%H%M%S"']),
    ],
)
def test_the_likely_format_of_unreadable_times_is_named(load, tmp_path, cells, words):
    (tmp_path / "t.csv").write_text("at\n2020-01-01\n" + "".join(f"{cell}\n" for cell in cells))
    loaded, _ = load(columns={"at": "time"})
    count, where = loaded.unreadable["at"]
    assert count == len(cells) and where.startswith("t.csv, row 2") and all(word in where for word in words), where
    (tmp_path / "t.csv").write_text("at\n2020-01-01\nsoon\n")
    assert load(columns={"at": "time"})[0].unreadable == {"at": (1, "t.csv, row 2")}


def test_in_a_column_of_decimal_commas_a_thousand_may_be_one(load, tmp_path):
    cells = ["1.5", "1,250", "2,345.6", "1.250", ">1,234 U/L", "7"]
    (tmp_path / "t.csv").write_text("value\n" + "".join(f'"{cell}"\n' for cell in cells))
    said = {"columns": {"value": "quantity"}}
    assert [row[3] for row in load(**said)[1]] == [1.5, 1250, 2345.6, 1.25, 1234, 7]
    (tmp_path / "t.csv").write_text("value\n" + "".join(f'"{cell}"\n' for cell in [*cells, "1,5", "1.000,5"]))
    loaded, rows = load(**said)
    assert [row[3] for row in rows] == [1.5, None, None, None, None, 7, None, None]
    assert loaded.facts["comparators"]["value"] == {"no number": 6, "comparator": 1, "unit": 1, "decimal comma": 2}


def test_days_that_stand_for_no_time_are_empty_and_counted(load, tmp_path):
    (tmp_path / "t.csv").write_text("at\n2020-01-05\n2099-12-31\n2099-12-31 00:00:00Z\nsoon\n")
    said = {"columns": {"at": "time"}}
    loaded, rows = load(**said, sentinels=("2099-12-31",), timezone="America/New_York")
    assert [row[3] is not None for row in rows] == [True, False, False, False]
    assert loaded.facts["sentinels"] == {"at": 2} and loaded.unreadable == {"at": (1, "t.csv, row 4")}
    loaded, rows = load(**said)
    assert [row[3] is not None for row in rows] == [True, True, True, False] and "sentinels" not in loaded.facts


def test_a_number_that_is_written_in_two_ways_is_counted(load, tmp_path):
    said = {"columns": {"pid": "integer"}}
    (tmp_path / "t.csv").write_text("pid\n0123\n0124\n+1234\n1234\n77.0\n77\n")
    assert load(**said)[0].facts == {}, "padded throughout"
    (tmp_path / "t.csv").write_text("pid\n0123\n123\n00123\n124\n0125\n")
    assert load(**said)[0].facts == {"two_spellings": {"pid": 1}}


@pytest.mark.parametrize("cell", ["12_3", "1.23E+11", "0x1F", "1e3"])
def test_an_id_that_only_sql_would_read_is_an_error(load, tmp_path, cell):
    (tmp_path / "t.csv").write_text(f"pid\n123\n{cell}\n")
    refused(load, "t.csv, row 2", "'pid'", "a whole number", columns={"pid": "integer"})


def test_quantities(load, tmp_path):
    cells = ["7.35", ">100", '"1,234"', "<0.2 mg/dL", "5 mg", "2+", "+++", "3-5", "120/80", "positive", ""]
    (tmp_path / "t.csv").write_text("value\n" + "".join(f"{cell}\n" for cell in [*cells[:-1], '""']))
    loaded, read = load(columns={"value": "quantity"})
    assert [row[3] for row in read] == [7.35, 100, 1234, 0.2, 5, 2, 3, None, None, None, None]
    assert loaded.facts == {"comparators": {"value": {"no number": 3, "comparator": 2, "unit": 2}}}
    refused(load, "t.csv, row 2", "a number", columns={"value": "number"})
    (tmp_path / "t.csv").write_text("value\n1\n2.5\n")
    assert load(columns={"value": "quantity"})[0].facts == {}


def test_parquet_cells_keep_their_types(load, tmp_path):
    at = dt.datetime(2020, 7, 1, 12, tzinfo=dt.UTC)
    frame = pl.DataFrame({"N": [2**53 + 1, None], "x": [0.5, None], "at": [at, None], "day": [at.date(), None]})
    frame = frame.with_columns(n2=pl.Series([1.5, 2.0]))
    frame.write_parquet(tmp_path / "t.parquet")
    columns = {"n": "integer", "X": "quantity", "at": "time", "day": "time"}
    loaded, rows = load(files=("*.parquet",), columns=columns, timezone="Asia/Tokyo")
    assert rows[0][3:] == (2**53 + 1, 0.5, dt.datetime(2020, 7, 1, 21), dt.datetime(2020, 7, 1))
    assert rows[1][3:] == (None,) * 4 and loaded.facts == {"times_with_offset": {"at": 1}}
    assert load(files=("*.parquet",), columns={"x": "number"}, missing=("0.5",))[1][0][3] is None
    refused(load, "t.parquet, row 1", "a whole number", files=("*.parquet",), columns={"n2": "integer"})


@pytest.mark.parametrize("ends", [("\n", "\r\n"), ("\r\n", "\n"), ("\r\n", "\r"), ("\n", "\r"), ("\n", "\r\r\n")])
@pytest.mark.parametrize("packed", [False, True])
def test_one_file_with_several_line_ends_loses_no_row(load, tmp_path, ends, packed):
    first, second = ends
    text = HEADER.replace("\n", first) + ROW.replace("\n", first) + 3 * ROW.replace("\n", second) + ROW
    content = text.encode()
    name = "t.csv.gz" if packed else "t.csv"
    (tmp_path / name).write_bytes(gzip.compress(content) if packed else content)
    loaded, rows = load()
    assert loaded.rows == len(rows) == 5 and {row[1:6] for row in rows} == {rows[0][1:6]}


def test_a_ragged_row_among_several_line_ends_is_still_an_error(load, tmp_path):
    (tmp_path / "t.csv").write_bytes((HEADER + ROW + ROW.replace("\n", "\r\n") + "1,2\n").encode())
    with pytest.raises(InputError, match="row 3 is ragged"):
        load()
