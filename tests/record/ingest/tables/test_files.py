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
