"""CSV as a stream: whatever the pieces, the rows are those of the csv module, in bounded memory."""

import csv
import io
import tracemalloc

import pyarrow as pa
import pytest

from sequela.errors import InputError
from sequela.record.ingest.mapping import FileTable
from sequela.record.ingest.tables import csv_stream
from sequela.record.ingest.tables.csv_stream import CsvBatches, whole_rows

COLUMNS = {"a": "text", "b": "text"}
ROWS = [["1", "x"], ["2", 'say "yes"\nor\r\nno'], ["", "ü, ö"], ["4", "\n\n"], ["", ""]] * 3


def written(rows=ROWS, header=("a", "b"), **said) -> str:
    out = io.StringIO()
    csv.writer(out, **said).writerows([header, *rows])
    return out.getvalue()


def read(*contents: str | bytes, **said) -> list[tuple]:
    parts = [
        (f"{i}.csv", io.BytesIO(content if isinstance(content, bytes) else content.encode()))
        for i, content in enumerate(contents)
    ]
    batches = CsvBatches(parts, FileTable(**({"files": ("*",), "columns": COLUMNS} | said)), "nothing there")
    try:
        return [tuple(row.values()) for row in batches.reader.read_all().to_pylist()]
    except (InputError, pa.ArrowException):
        raise batches.error from None


def refused(*contents, words, **said):
    with pytest.raises(InputError) as caught:
        read(*contents, **said)
    assert words in str(caught.value) and "SECRET" not in str(caught.value)


@pytest.mark.parametrize("block", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_rows_do_not_depend_on_the_pieces(monkeypatch, block, end):
    monkeypatch.setattr(csv_stream, "BLOCK", block)
    content = written(lineterminator=end)
    expected = [(*row, "0.csv") for row in ROWS]
    assert read(content) == expected
    assert read(content, "A,B\n8,9") == [*expected, ("8", "9", "1.csv")]


def test_pieces_end_where_rows_end():
    assert list(whole_rows([b'1,"a\n', b'b"\n2,', b"c"], '"', "x")) == [b'1,"a\nb"\n', b"2,c\n"]
    assert list(whole_rows([b'1\t"a\n', b'b"\n2', b"c"], "", "x")) == [b'1\t"a\n', b'b"\n', b"2c\n"]
    assert list(whole_rows([b"\n"], '"', "x")) == [b"\n"] and list(whole_rows([], '"', "x")) == []


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_quotes_between_tabs_are_characters(monkeypatch, block):
    monkeypatch.setattr(csv_stream, "BLOCK", block)
    content = 'a\tb\n1\t5" needle\n2\t"x" and "\n3\ty, z\n'
    expected = [("1", '5" needle', "0.csv"), ("2", '"x" and "', "0.csv"), ("3", "y, z", "0.csv")]
    assert read(content) == expected
    assert read(content, quote='"') != expected
    assert read("a;b\n1;~x;\ny~~~\n", quote="~") == [("1", "x;\ny~", "0.csv")]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-8-sig", "shift_jis"])
@pytest.mark.parametrize("block", [1, 1 << 20])
def test_encodings(monkeypatch, encoding, block):
    monkeypatch.setattr(csv_stream, "BLOCK", block)
    word = "日本" if encoding == "shift_jis" else "größer"
    content = f"a,b\n1,{word}\n2,{word}".encode(encoding)
    assert read(content, encoding=encoding) == [("1", word, "0.csv"), ("2", word, "0.csv")]


@pytest.mark.parametrize(
    "contents, words",
    [
        ([], "nothing there"),
        ([""], "0.csv is empty"),
        (["a,b\n1,2\n", "\n"], "1.csv is empty"),
        (["a,x\n1,2\n"], "0.csv has no column 'b'"),
        (["a,b\n1,2\n", "b,a\n1,2\n"], "1.csv has other columns than 0.csv"),
        (["a,b\n1,2\n", "a;b\n1;2\n"], "1.csv has other columns than 0.csv"),
        (["a,b\n1,2\n", "a,b\n1,2\nSECRET,4,5\n"], "1.csv, row 2 is ragged"),
        (["a,b\n1,2\n3\n"], "0.csv, row 2 is ragged"),
        (["a,b\n1,2\n", "a,b\n1,2\nSECRET,é\n".encode("latin-1")], "1.csv"),
    ],
)
def test_wrong_content(contents, words):
    refused(*contents, words=words)


def test_a_wrong_encoding_is_named_with_the_line():
    refused(b"a,b\n1,2\n1,\x81\n", words="0.csv, line 1 or later is not cp1252", encoding="cp1252")


def test_an_open_quote_is_no_endless_row(monkeypatch):
    monkeypatch.setattr(csv_stream, "BLOCK", 1000)
    monkeypatch.setattr(csv_stream, "LONGEST", 5000)
    refused('a,b\n1,"SECRET\n' + "2,3\n" * 5000, words="a row that never ends")
    assert len(read('a,b\n1,"x"\n' + "2,3\n" * 5000)) == 5001


def test_memory_is_bounded(monkeypatch):
    """One file of 24 MB is read with a few blocks of 256 KB in memory; reading it whole takes more than that."""
    monkeypatch.setattr(csv_stream, "BLOCK", 1 << 18)
    content = io.BytesIO(b"a,b\n" + (b"1," + b"x" * 97 + b"\n") * 240_000)
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    rows = peak = 0
    for batch in CsvBatches([("x", content)], FileTable(("*",), COLUMNS), "").reader:
        rows += batch.num_rows
        peak = max(peak, pa.total_allocated_bytes() - before)
    python = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == 240_000
    assert python < 4 << 20 and peak < 4 << 20, (python, peak)
