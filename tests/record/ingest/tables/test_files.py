"""Raw files are found and read under names in any case; see test_raw.py for their cells."""

import gzip
from pathlib import Path

import duckdb
import polars as pl
import pytest

from sequela.errors import InputError
from sequela.record.ingest.mapping import FileTable
from sequela.record.ingest.tables.files import open_files

COLUMNS = {"person_id": "integer", "value": "text"}


def rows(raw, *files, columns=COLUMNS, **said):
    con = duckdb.connect()
    with open_files(con, raw, "t", FileTable(files, columns, **said)) as found:
        return None if found is None else con.sql(found.sql).fetchall()


def test_capitals_of_files_and_columns(tmp_path):
    (tmp_path / "PERSON.CSV").write_text("Person_ID,b,b,VALUE\n1,x,y,v\n")
    assert rows(tmp_path, "person.csv") == [("1", "v", "PERSON.CSV")]
    pl.DataFrame({"PERSON_ID": [1], "Value": ["v"]}).write_parquet(tmp_path / "Person.Parquet")
    assert rows(tmp_path, "person.parquet") == [(1, "v", "Person.Parquet")]
    (tmp_path / "ZIPPED.CSV.GZ").write_bytes(gzip.compress(b"person_id,value\n3,z\n"))
    assert rows(tmp_path, "zipped.csv.gz") == [("3", "z", "ZIPPED.CSV.GZ")]
    (tmp_path / "person-2.csv").write_text("PERSON_ID,B,B,value\n2,x,y,w\n")
    assert len(rows(tmp_path, "person*.csv")) == 2


def test_two_columns_of_one_name(tmp_path):
    (tmp_path / "t.csv").write_text("person_id,VALUE,Value\n1,x,y\n")
    with pytest.raises(InputError, match="two columns named 'VALUE' and 'Value'"):
        rows(tmp_path, "t.csv")
    assert rows(tmp_path, "t.csv", columns={"Value": "text"})[0][0] == "y", (
        "the one meant is told by its letters"
    )


def test_no_file(tmp_path):
    assert rows(tmp_path, "t.csv", optional=True) is None
    with pytest.raises(InputError, match=r"no file t\.csv"):
        rows(tmp_path, "t.csv")
    with pytest.raises(InputError, match="no folder"):
        rows(tmp_path / "t", "t.csv")


def test_a_file_is_named_by_its_whole_path_below_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    deep = tmp_path / "a/b/a/b"
    deep.mkdir(parents=True)
    (deep / "t.csv").write_text("person_id,value\n1,x\n")
    (tmp_path / "t.csv").write_text("person_id,value\n1,x\n")
    assert rows(Path("a"), "**/t.csv") == [("1", "x", "b/a/b/t.csv")]
    assert rows(Path(), "t.csv") == [("1", "x", "t.csv")]


def test_a_folder_named_as_a_column_is_no_column(tmp_path):
    folder = tmp_path / "value=odd"
    folder.mkdir()
    pl.DataFrame({"person_id": [1], "value": ["v"], "_path": ["p"]}).write_parquet(folder / "t.parquet")
    (folder / "t.csv").write_text("person_id,value\n1,v\n")
    assert rows(tmp_path, "*/t.parquet") == [(1, "v", "value=odd/t.parquet")]
    assert rows(tmp_path, "*/t.csv") == [("1", "v", "value=odd/t.csv")]


WEIRD = ["run[1]", "run*", "r?n", "{run,1}", "it's 5 % #1", "x\ny", 'q"', "back\\slash", "\\*x", "~", "["]


@pytest.mark.parametrize("name", WEIRD)
@pytest.mark.parametrize("form", ["csv", "csv.gz", "parquet"])
def test_a_path_is_no_pattern(tmp_path, name, form):
    for folder, value in (("run1", "neighbor"), (name, "v")):
        path = tmp_path / folder / f"{name}.{form}"
        path.parent.mkdir()
        text = f"person_id,value\n1,{value}\n".encode()
        if form == "parquet":
            pl.DataFrame({"person_id": ["1"], "value": [value]}).write_parquet(path)
        else:
            path.write_bytes(gzip.compress(text) if form == "csv.gz" else text)
    expected = [("1", "v", f"{name}.{form}")]
    assert rows(tmp_path / name, f"*.{form}") == expected
    if "*" not in name:
        assert rows(tmp_path, f"{name}/*.{form}")[0][1] == "v"


def test_parts_packed_and_not_are_one_table(tmp_path):
    for number in range(1, 5):
        text = f"person_id,value\n{number},x\n".encode()
        packed = number % 2 == 0
        (tmp_path / f"t{number}.csv{'.gz' if packed else ''}").write_bytes(gzip.compress(text) if packed else text)
    expected = [("1", "x", "t1.csv"), ("2", "x", "t2.csv.gz"), ("3", "x", "t3.csv"), ("4", "x", "t4.csv.gz")]
    for files in (["t*.csv"], ["t*.csv.gz"], ["t*.csv.gz", "t*.csv"], ["t*"]):
        assert rows(tmp_path, *files) == expected
    (tmp_path / "t3.csv.gz").write_bytes(gzip.compress((tmp_path / "t3.csv").read_bytes()))
    assert rows(tmp_path, "t*") == expected, "a copy is no further part"
    (tmp_path / "t3.csv").write_text("person_id,value\n3,y\n")
    with pytest.raises(InputError, match=r"t3\.csv and .*t3\.csv\.gz differ"):
        rows(tmp_path, "t*")


def test_the_first_pattern_that_matches_is_still_the_one(tmp_path):
    (tmp_path / "new.csv").write_text("person_id,value\n1,x\n")
    (tmp_path / "old.csv").write_text("person_id,value\n2,y\n")
    assert rows(tmp_path, "new.csv", "old.csv") == [("1", "x", "new.csv")]


def test_files_of_several_forms_are_refused(tmp_path):
    (tmp_path / "t1.csv").write_text("person_id,value\n1,x\n")
    pl.DataFrame({"person_id": [2], "value": ["y"]}).write_parquet(tmp_path / "t2.parquet")
    with pytest.raises(InputError, match=r"t1\.csv is CSV and .*t2\.parquet is Parquet"):
        rows(tmp_path, "t*")
