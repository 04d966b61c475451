"""Raw files into DuckDB tables, with every cell checked against the type that the mapping declares.

A loaded table has the declared columns and three more: `_row` (from 0, the row's place in the table), `_file` (the
file it came from, below the raw folder) and `_unreadable` (True where a cell that should hold a time does not).
"""

from __future__ import annotations

import csv
import fnmatch
import gzip
import io
import lzma
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import polars as pl

from sequela.record.errors import InputError
from sequela.record.mapping import FileTable, RowTable, nearest

# How each declared type is read from text. A duration is "HH:MM" or "HH:MM:SS"; hours may exceed 24.
READERS = {
    "integer": "CASE WHEN TRY_CAST({0} AS DOUBLE) = TRY_CAST({0} AS BIGINT) THEN TRY_CAST({0} AS BIGINT) END",
    "number": "TRY_CAST({0} AS DOUBLE)",
    "time": "TRY_CAST({0} AS TIMESTAMP)",
    "duration": "CASE WHEN contains({0}, ':') THEN TRY_CAST({0} AS INTERVAL) END",
    "text": "{0}",
}
MEANING = {"integer": "a whole number", "number": "a number"}
TIMES = ("time", "duration")
TARS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")


@dataclass(frozen=True)
class Loaded:
    """What was read for one table; `unreadable` is column -> (cells that are no time, where the first one is)."""

    files: tuple[str, ...]
    rows: int
    unreadable: dict[str, tuple[int, str]]


def quoted(name: str) -> str:
    """`name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: object) -> str:
    """`value` (a text, number, boolean or None) as an SQL literal."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return "NULL" if value is None else str(value)


def load_rows(con: duckdb.DuckDBPyConnection, name: str, table: RowTable) -> None:
    """Create the table `name` from rows written in the mapping."""
    rows = ", ".join("(" + ", ".join(literal(cell) for cell in row) + ")" for row in table.rows)
    names = ", ".join(quoted(column) for column in table.columns)
    con.execute(f"CREATE TABLE {quoted(name)} AS SELECT * FROM (VALUES {rows}) AS _rows({names})")


def load_files(con: duckdb.DuckDBPyConnection, name: str, table: FileTable, raw: Path) -> Loaded:
    """Create the table `name` from the files below the folder `raw`.

    Raises:
        InputError: where a file is missing, damaged, empty, lacks a column or holds text where a number should be.
    """
    paths = _matching(name, table, raw)
    if not paths:
        _create_empty(con, name, table)
        return Loaded((), 0, {})
    if _is_tar(paths[0]):
        con.register("_members", _read_tars(paths, table, raw))
        source = "_members"
    else:
        source = f"({_scan(paths, table)})"
    try:
        _create_typed(con, name, table, source, raw)
    except duckdb.Error as error:
        raise _damaged(error, paths) from error
    con.unregister("_members")
    unreadable = _check_cells(con, name, table)
    rows = con.execute(f"SELECT count(*) FROM {quoted(name)}").fetchall()[0][0]
    if rows == 0 and not table.optional:
        raise InputError(f"{paths[0]} has a header but no rows: export the table '{name}' again.")
    return Loaded(tuple(str(path.relative_to(raw)) for path in paths), rows, unreadable)


def place_of(con: duckdb.DuckDBPyConnection, name: str, row: int) -> str:
    """Where row `_row` of a loaded table stands: "FILE, row N" (the header not counted, the first row is 1)."""
    sql = f"SELECT _file, $row - (SELECT min(_row) FROM {quoted(name)} WHERE _file = t._file) + 1 "
    file, number = con.execute(sql + f"FROM {quoted(name)} AS t WHERE _row = $row", {"row": row}).fetchall()[
        0
    ]
    return f"{file}, row {number}"


def _matching(name: str, table: FileTable, raw: Path) -> list[Path]:
    if not raw.is_dir():
        raise InputError(f"there is no folder {raw}: give the folder that holds the raw files.")
    for pattern in table.files:
        paths = sorted(path for path in raw.glob(pattern) if path.is_file())
        if paths:
            return paths
    if table.optional:
        return []
    raise InputError(
        f"{raw} has no file {' or '.join(table.files)} (table '{name}'): put it there, or give its folder."
    )


def _is_tar(path: Path) -> bool:
    return path.name.endswith(TARS)


def _create_empty(con: duckdb.DuckDBPyConnection, name: str, table: FileTable) -> None:
    columns = ", ".join(
        f"{READERS[kind].format('NULL::VARCHAR')} AS {quoted(c)}" for c, kind in table.columns.items()
    )
    fixed = "0::BIGINT AS _row, ''::VARCHAR AS _file, false AS _unreadable"
    con.execute(f"CREATE TABLE {quoted(name)} AS SELECT {columns}, {fixed} WHERE false")


def _scan(paths: list[Path], table: FileTable) -> str:
    """SQL that reads all cells of plain files as text, plus `_file`."""
    files = "[" + ", ".join(literal(str(path)) for path in paths) + "]"
    if paths[0].suffix == ".parquet":
        for path in paths:
            _check_columns(path, list(pl.read_parquet_schema(path)), table)
        cells = ", ".join(
            f"CAST({quoted(column)} AS VARCHAR) AS {quoted(column)}" for column in table.columns
        )
        return f"SELECT {cells}, _file FROM read_parquet({files}, union_by_name=true, filename='_file')"
    header = _header(paths[0], table.delimiter)
    for path in paths:
        own = _header(path, table.delimiter)
        _check_columns(path, own, table)
        if own != header:
            raise InputError(
                f"{path} has other columns than {paths[0]}: give all files of a table the same header."
            )
    names = "{" + ", ".join(f"{literal(column)}: 'VARCHAR'" for column in header) + "}"
    return (
        f"SELECT * FROM read_csv({files}, auto_detect=false, columns={names}, header=true, quote='\"', escape='\"', "
        f"delim={literal(table.delimiter)}, filename='_file')"
    )


def _header(path: Path, delimiter: str) -> list[str]:
    """The column names of a CSV file, plain or gzipped."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            return _split_header(file.readline(), delimiter, str(path))
    except (OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read ({error}): copy or download it again.") from error


def _split_header(line: bytes, delimiter: str, place: str) -> list[str]:
    if not line.strip():
        raise InputError(f"{place} is empty: it needs a line with the names of the columns.")
    try:
        names = next(csv.reader([line.decode("utf-8-sig").rstrip("\r\n")], delimiter=delimiter))
    except UnicodeDecodeError as error:
        raise InputError(f"{place} is not UTF-8 text in its first line: convert it.") from error
    for column in names:
        if names.count(column) > 1:
            raise InputError(f"{place} has two columns named '{column}': rename one.")
    return names


def _check_columns(place: object, found: list[str], table: FileTable) -> None:
    for column in table.columns:
        if column not in found:
            raise InputError(
                f"{place} has no column '{column}'{nearest(column, found)}; it has {', '.join(found)}: "
                "rename the column, or change its name in the mapping."
            )


def _read_tars(paths: list[Path], table: FileTable, raw: Path) -> pl.DataFrame:
    """All rows of all matching members as text, plus `_file`. Read in memory: nothing is unpacked to disk."""
    names, bodies, header = [], [], None
    for path in paths:
        for member, content in _members(path, table.members):
            place = f"{path.relative_to(raw)}/{member}"
            first, _, body = content.partition(b"\n")
            own = _split_header(first, table.delimiter, place)
            _check_columns(place, own, table)
            if header not in (None, own):
                raise InputError(
                    f"{place} has other columns than {names[0]}: give all members the same header."
                )
            header = own
            names.append(place)
            bodies.append(body if body.endswith(b"\n") or not body else body + b"\n")
    if header is None:
        raise InputError(f"{paths[0]} has no member that matches '{table.members}': check the archive.")
    rows = pl.Series([body.count(b"\n") for body in bodies])
    try:
        frame = _parse(b"".join(bodies), header, table.delimiter)
        if (
            frame.height != rows.sum()
        ):  # quoted line breaks or blank lines: only parsing one by one tells how many
            frames = [_parse(body, header, table.delimiter) for body in bodies]
            rows = pl.Series([frame.height for frame in frames])
            frame = pl.concat(frames)
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{paths[0]} holds a member with ragged or unreadable lines: repair it.") from error
    index = pl.int_range(len(names), eager=True).repeat_by(rows).explode().drop_nulls()
    return frame.with_columns(_file=pl.Series(names, dtype=pl.Categorical).gather(index))


def _members(path: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of the regular files in a tar archive; links and devices are passed over."""
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile() and fnmatch.fnmatch(member.name, pattern):
                    yield member.name, archive.extractfile(member).read()
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
        raise InputError(f"{path} is damaged or incomplete ({error}): copy or download it again.") from error


def _parse(body: bytes, header: list[str], delimiter: str) -> pl.DataFrame:
    schema = dict.fromkeys(header, pl.String)
    if not body:
        return pl.DataFrame(schema=schema)
    return pl.read_csv(io.BytesIO(body), has_header=False, separator=delimiter, schema=schema)


def _create_typed(
    con: duckdb.DuckDBPyConnection, name: str, table: FileTable, source: str, raw: Path
) -> None:
    """Create the table from `source`, all of whose cells are text, with a flag `_bad_COLUMN` for each wrong cell."""
    absent = ", ".join(literal(word) for word in ("", *table.missing))
    made, wrong_times = [], []
    for column, kind in table.columns.items():
        cell = f"CASE WHEN {quoted(column)} NOT IN ({absent}) THEN {quoted(column)} END"
        typed = READERS[kind].format(f"({cell})")
        made.append(f"{typed} AS {quoted(column)}")
        if kind != "text":
            wrong = f"({cell}) IS NOT NULL AND ({typed}) IS NULL"
            made.append(f"{wrong} AS {quoted('_bad_' + column)}")
            wrong_times += [f"({wrong})"] if kind in TIMES else []
    con.execute(
        f"CREATE TABLE {quoted(name)} AS SELECT row_number() OVER () - 1 AS _row, "
        f"replace(_file::VARCHAR, {literal(f'{raw}/')}, '') AS _file, "
        f"{' OR '.join(wrong_times) or 'false'} AS _unreadable, {', '.join(made)} FROM {source}"
    )


def _check_cells(con: duckdb.DuckDBPyConnection, name: str, table: FileTable) -> dict[str, tuple[int, str]]:
    """The unreadable times of a table (see `Loaded`); the flags `_bad_COLUMN` are dropped from it."""
    unreadable = {}
    for column, kind in table.columns.items():
        if kind == "text":
            continue
        flag = quoted("_bad_" + column)
        count, first = con.execute(f"SELECT count(*), min(_row) FROM {quoted(name)} WHERE {flag}").fetchall()[
            0
        ]
        if count and kind not in TIMES:
            raise InputError(
                f"{place_of(con, name, first)}: column '{column}' should hold {MEANING[kind]} and does not "
                f"({count} such rows); mend the file, or declare the column as text in the mapping."
            )
        if count:
            unreadable[column] = count, place_of(con, name, first)
        con.execute(f"ALTER TABLE {quoted(name)} DROP COLUMN {flag}")
    return unreadable


def _damaged(error: duckdb.Error, paths: list[Path]) -> InputError:
    """A sentence without the data that DuckDB's own message quotes."""
    said = str(error)
    file = re.search(r"file = (.+)", said)
    line = re.search(r"CSV Error on Line: (\d+)", said)
    cells = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", said)
    place = (
        file[1].strip() if file else next((str(path) for path in paths if str(path) in said), str(paths[0]))
    )
    if line is None:
        return InputError(f"{place} is damaged or incomplete: copy or download it again.")
    if cells:
        wrong = f"has {cells[2]} cells where the header has {cells[1]}"
    elif "utf-8" in said:
        wrong = "is not UTF-8 text"
    else:
        wrong = "is not valid CSV (an open quote, perhaps)"
    return InputError(f"{place}, line {line[1]} {wrong}: mend or convert the file.")
