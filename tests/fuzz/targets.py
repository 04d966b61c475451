"""What is fuzzed: each target takes any bytes, and ends in a result or in an InputError whose message is one line.

Everything else that a target raises is a defect. `tests/fuzz/test_fuzz.py` feeds them with hypothesis,
`tests/fuzz/coverage.py` with atheris, which looks for inputs that reach new code.
"""

from __future__ import annotations

import atexit
import gzip
import io
import tarfile
import tempfile
from functools import cache
from pathlib import Path

import duckdb

from sequela.errors import InputError
from sequela.record.ingest.mapping import FileTable
from sequela.record.ingest.mapping_file import load_mapping
from sequela.record.ingest.tables.cells import add_macros
from sequela.record.ingest.tables.database import raw_origin
from sequela.record.ingest.tables.load import load_files, place_of

COLUMNS = {
    "a": "integer",
    "b": "number",
    "c": "time",
    "d": "time %d.%m.%Y | %m/%d/%y %I:%M %p %z",
    "e": "duration",
    "f": "quantity",
    "g": "text",
}
HEADER = ",".join(COLUMNS).encode() + b"\n"
ENCODINGS = ("utf-8", "latin-1", "cp1252", "utf-16", "shift_jis", "utf-7")
DELIMITERS = (None, ";", "\t", "|")


@cache
def folder() -> Path:
    """A folder for the files of this process."""
    made = tempfile.TemporaryDirectory(prefix="sequela-fuzz-")
    atexit.register(made.cleanup)
    return Path(made.name)


@cache
def connection() -> duckdb.DuckDBPyConnection:
    """One connection for all runs: a new one takes longer than a run."""
    atexit.register(connection.cache_clear)
    return duckdb.connect()


def judge(work, *arguments) -> object:
    """What `work` returns, or the InputError that it raises, whose message must be for people."""
    try:
        return work(*arguments)
    except InputError as error:
        assert str(error) and "\n" not in str(error), repr(str(error))
        return error


def load(name: str, content: bytes, **said) -> object:
    """Load one file with `content` as a table, if it can be, and ask where its last row stands."""
    (folder() / name).write_bytes(content)
    connection().execute("DROP TABLE IF EXISTS t")
    table = FileTable(**({"files": (name,), "columns": COLUMNS} | said))

    def work() -> object:
        loaded = load_files(connection(), "t", table, folder())
        if loaded.rows:
            place_of(connection(), "t", loaded.rows - 1)
        return loaded, connection().sql("SELECT * FROM t").fetchall()

    return judge(work)


def fuzz_csv(data: bytes) -> object:
    """A CSV file; the first byte says in which form it comes."""
    choice, content = (data[0], data[1:]) if data else (0, b"")
    said = {"encoding": ENCODINGS[choice % 6], "delimiter": DELIMITERS[choice // 6 % 4], "missing": ("NA",)}
    content = (HEADER if choice // 24 % 2 else b"") + content
    if choice // 48 % 2:
        return load("t.csv.gz", gzip.compress(content)[: -1 if choice > 192 else None], **said)
    return load("t.csv", content, **said)


def fuzz_gzip(data: bytes) -> object:
    """Anything that is called a gzipped file."""
    return load("t.csv.gz", data)


def fuzz_archive(data: bytes) -> object:
    """Anything that is called a tar archive."""
    return load("t.tar", data)


def fuzz_parquet(data: bytes) -> object:
    """Anything that is called a Parquet file."""
    return load("t.parquet", data)


def fuzz_cell(data: bytes) -> object:
    """One cell, read as everything that a cell can be."""
    cell = data.decode("utf-8", "replace").replace("\0", "")
    add_macros(connection(), "America/New_York")
    sql = "SELECT number_in($1), comparator_in($1), unit_in($1), time_in($1)"
    return connection().execute(sql, [cell]).fetchall()[0]


def fuzz_mapping(data: bytes) -> object:
    """A mapping file."""
    (folder() / "m.toml").write_bytes(data)
    return judge(load_mapping, folder() / "m.toml")


def fuzz_uri(data: bytes) -> object:
    """What a user calls RAW, after `postgresql://`."""
    place = judge(raw_origin, "postgresql://" + data.decode("utf-8", "replace"))
    return place if isinstance(place, InputError) else str(place)


def tar(body: bytes) -> bytes:
    """A tar archive with one file of `body`."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("t.txt")
        info.size = len(body)
        archive.addfile(info, io.BytesIO(body))
    return out.getvalue()


ROWS = HEADER + b'1,2.5,2020-01-05 08:30:00,05.01.2020,1:00,>5 mg,"x, ""y"""\nNA,,2020-01-05T08:30Z,,,1-2,\n'
MAPPING = b"""name = "x"
patient = "pid"
timezone = "Europe/Berlin"
[tables.people]
files = ["x.csv"]
columns = { pid = "integer", at = "time %d.%m.%Y" }
encoding = "latin-1"
[tables.words]
columns = ["a"]
rows = [["b"]]
[tables.more]
sql = "SELECT 1"
[[events]]
table = "people"
code = "'A'"
value = "1"
range = [0, 1]
drop = { "b" = "c" }
"""
# Where the search for new inputs begins
SEEDS = {
    "csv": [bytes([choice]) + ROWS for choice in (0, 24, 26, 48, 73)] + [b"\x18" + ROWS.split(b"\n")[1]],
    "gzip": [gzip.compress(ROWS, mtime=0)],
    "archive": [tar(ROWS), gzip.compress(tar(ROWS), mtime=0)],
    "parquet": [b"PAR1\0\0PAR1"],
    "cell": [b">= 1,234.5 mg/dL", b"2+", b"+++", b"2020-01-05T08:30:00.25+02:00", b"2020-01-05 08:30:00"],
    "mapping": [MAPPING],
    "uri": [b"me:word@host:5432/db?schema=a,b&sslmode=require", b"[::1]:5432,b:1/db", b"/db?host=/run"],
}
TARGETS = {
    name.removeprefix("fuzz_"): target for name, target in list(globals().items()) if name.startswith("fuzz_")
}
