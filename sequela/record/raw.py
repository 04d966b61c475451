"""Raw files into DuckDB tables, with every cell checked against the type that the mapping declares.

A loaded table has the declared columns and three more: `_row` (from 0, the row's place in the table), `_file` (the
file it came from, below the raw folder) and `_unreadable` (True where a cell that should hold a time does not).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from sequela.record.archive import is_archive, read_archives
from sequela.record.errors import InputError
from sequela.record.header import check_columns, read_header
from sequela.record.mapping import FileTable, RowTable

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


@dataclass(frozen=True)
class Loaded:
    """What was read for one table.

    `unreadable` is column -> (cells that are no time, where the first one is); `facts` are further fields of the
    table in the report.
    """

    files: tuple[str, ...]
    rows: int
    unreadable: dict[str, tuple[int, str]]
    facts: dict[str, Any] = field(default_factory=dict)


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
    if is_archive(paths[0]):
        con.register("_members", read_archives(paths, table, raw))
        source = "_members"
    else:
        source = f"({_scan(paths, table)})"
    try:
        _create_typed(con, name, table, source, raw)
    except (duckdb.InvalidInputException, duckdb.IOException) as error:
        raise _damaged(error, paths) from error
    con.unregister("_members")
    unreadable = _check_cells(con, name, table)
    rows = con.execute(f"SELECT count(*) FROM {quoted(name)}").fetchall()[0][0]
    if rows == 0 and not table.optional:
        raise InputError(f"{paths[0]} has a header but no rows: export the table '{name}' again.")
    return Loaded(tuple(str(path.relative_to(raw)) for path in paths), rows, unreadable)


def place_of(con: duckdb.DuckDBPyConnection, name: str, row: int) -> str:
    """Where row `_row` of a loaded table stands: "FILE, row N" (the header not counted, the first row is 1)."""
    first = f"SELECT min(_row) FROM {quoted(name)} AS _other WHERE _other._file = _this._file"
    sql = f"SELECT _file, {row} - ({first}) + 1 FROM {quoted(name)} AS _this WHERE _row = {row}"
    file, number = con.execute(sql).fetchall()[0]
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


def _parquet_columns(path: Path) -> list[str]:
    try:
        return list(pl.read_parquet_schema(path))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{path} is no whole Parquet file: copy or download it again.") from error


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
        found: set[str] = set()
        for path in paths:
            own = _parquet_columns(path)
            check_columns(path, own, table.required_columns)
            found.update(own)
        cells = ", ".join(
            f"CAST({quoted(column) if column in found else 'NULL'} AS VARCHAR) AS {quoted(column)}"
            for column in table.columns
        )
        return f"SELECT {cells}, _file FROM read_parquet({files}, union_by_name=true, filename='_file')"
    header = read_header(paths[0], table.delimiter)
    for path in paths:
        own = read_header(path, table.delimiter)
        check_columns(path, own, table.required_columns)
        if own != header:
            raise InputError(
                f"{path} has other columns than {paths[0]}: give all files of a table the same header."
            )
    names = "{" + ", ".join(f"{literal(column)}: 'VARCHAR'" for column in header) + "}"
    absent = "".join(
        f", NULL::VARCHAR AS {quoted(column)}" for column in table.columns if column not in header
    )
    return (
        f"SELECT *{absent} FROM read_csv({files}, auto_detect=false, columns={names}, header=true, "
        f"quote='\"', escape='\"', delim={literal(table.delimiter)}, filename='_file')"
    )


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
        (count, first), *_ = con.execute(
            f"SELECT count(*), min(_row) FROM {quoted(name)} WHERE {flag}"
        ).fetchall()
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
