"""Names of columns: read from the first line, checked against what is needed."""

import gzip

import pytest

from sequela.record.errors import InputError
from sequela.record.header import match_columns, read_header, split_header
from sequela.record.mapping import FileTable


def test_plain_and_gzipped_files(tmp_path):
    (tmp_path / "a.csv").write_text('\ufeffid,"a, b",c\r\n1,2,3\r\n')
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"id;b\n"))
    assert read_header(tmp_path / "a.csv", ",") == ["id", "a, b", "c"]
    assert read_header(tmp_path / "a.csv.gz", ";") == ["id", "b"]


def test_what_is_no_header(tmp_path):
    (tmp_path / "a.csv.gz").write_text("id,b\n")
    with pytest.raises(InputError, match=r"a\.csv\.gz cannot be read"):
        read_header(tmp_path / "a.csv.gz", ",")
    with pytest.raises(InputError, match="x is empty"):
        split_header(b"\n", ",", "x")


def test_columns_match_without_regard_to_case():
    table = FileTable(
        ("x",), {"value": "text", "Unit": "text", "more": "text"}, optional_columns=frozenset({"more"})
    )
    assert match_columns("x", ["VALUE", "unit", "b", "b"], table) == {
        "value": "VALUE",
        "Unit": "unit",
        "more": None,
    }
    assert match_columns("x", ["VALUE", "value", "unit"], table)["value"] == "value"
    for found in (["VALUE", "Value", "unit"], ["value", "value", "unit"]):
        with pytest.raises(
            InputError, match=r"x has two columns named '(value|VALUE)'"
        ):
            match_columns("x", found, table)


def test_a_missing_column_is_named_with_the_nearest():
    table = FileTable(("x",), {"id": "text", "value": "text"})
    assert match_columns("x", ["id", "value"], table) == {"id": "id", "value": "value"}
    with pytest.raises(
        InputError, match=r"x has no column 'value' \(did you mean 'vale'\?\); it has id, vale"
    ):
        match_columns("x", ["id", "vale"], table)


def test_a_row_that_stands_where_the_header_should_is_not_shown():
    table = FileTable(("x",), {"id": "text", "name": "text"})
    with pytest.raises(InputError, match="x has no column 'id', and none of its 2 columns") as caught:
        match_columns("x", ["17", "names"], table)
    assert "17" not in str(caught.value) and "names'" not in str(caught.value)
