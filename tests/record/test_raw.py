"""Raw files: what is read, and the sentence that each damaged or wrong file gets."""

import gzip
import re

import duckdb
import polars as pl
import pytest

from sequela.record.errors import InputError
from sequela.record.mapping import FileTable
from sequela.record.raw import load_files, place_of

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


def test_another_delimiter(load, tmp_path):
    (tmp_path / "t.csv").write_text("a;b\n1;2,5\n")
    _, rows = load(columns={"b": "text"}, delimiter=";")
    assert rows[0][3:] == ("2,5",)


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
        ((HEADER + ROW).encode() + "1,,,,SECRÉT,\n".encode("latin-1"), ["line 3", "not UTF-8"]),
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
    assert [row[2] for row in read] == [False, True, True, True]


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
