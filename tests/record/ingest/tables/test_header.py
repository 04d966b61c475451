"""Names of columns, and what stands between them: read from the first line, checked against what is needed."""

import gzip

import pytest

from sequela.errors import InputError
from sequela.record.ingest.mapping import FileTable
from sequela.record.ingest.tables.header import Header, match_columns, read_header, split_header

TABLE = FileTable(("x",), {"id": "text"})


def test_plain_and_gzipped_files(tmp_path):
    (tmp_path / "a.csv").write_text('\ufeffid,"a, b",c\r\n1,2,3\r\n')
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"id;b\n"))
    assert read_header(tmp_path / "a.csv", TABLE) == Header(("id", "a, b", "c"), ",", '"')
    assert read_header(tmp_path / "a.csv.gz", TABLE) == Header(("id", "b"), ";", '"')


@pytest.mark.parametrize(
    "line, names, delimiter, quote",
    [
        ("id\tvalue", ("id", "value"), "\t", ""),
        ('"id"\t"value"', ("id", "value"), "\t", '"'),
        ("ID|Value", ("ID", "Value"), "|", '"'),
        ("id;a, b, c, d, e;value", ("id", "a, b, c, d, e", "value"), ";", '"'),
        ('"id","value;b;c;d"', ("id", "value;b;c;d"), ",", '"'),
        ("id", ("id",), ",", '"'),
        ("x;y", ("x", "y"), ";", '"'),
    ],
)
def test_the_delimiter_is_the_one_that_yields_the_wanted_columns(line, names, delimiter, quote):
    table = FileTable(("x",), {"id": "text", "value": "text"})
    assert split_header(line.encode(), table, "x") == Header(names, delimiter, quote)


def test_what_the_table_says_stands():
    said = FileTable(("x",), {"id": "text"}, delimiter=",", quote="'")
    assert split_header(b"'id,';id", said, "x") == Header(("id,;id",), ",", "'")
    assert split_header(b'id\t"b"', FileTable(("x",), {"id": "text"}, quote=""), "x").names == ("id", '"b"')
    assert split_header(b"id\tb", FileTable(("x",), {"id": "text"}, quote='"'), "x").quote == '"'


def test_headers_that_are_the_same():
    header = Header(("id", "b"), ",", '"')
    assert header.same(Header(("ID", "B"), ",", '"'))
    for other in (Header(("b", "id"), ",", '"'), Header(("id", "b"), ";", '"'), Header(("id", "b"), ",", "")):
        assert not header.same(other)


def test_what_is_no_header(tmp_path):
    (tmp_path / "a.csv.gz").write_text("id,b\n")
    with pytest.raises(InputError, match=r"a\.csv\.gz cannot be read"):
        read_header(tmp_path / "a.csv.gz", TABLE)
    with pytest.raises(InputError, match="x is empty"):
        split_header(b"\n", TABLE, "x")
    with pytest.raises(InputError, match="x: its lines end with a carriage return alone"):
        split_header(b"id,b\r1,2\r3,4", TABLE, "x")


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
