"""Loads raw tables into DuckDB, and checks every cell against the type declared in the mapping.

A loaded table has the declared columns and three more: `_row` (the row's index in the table, from 0), `_file` (its
file, relative to the raw folder, or its table in a database) and `_unreadable` (bit i is set if the cell of the i-th
column of times should hold a time and does not; see `LoadedTable.times`).
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import duckdb

from sequela.errors import InputError
from sequela.record.ingest.mapping import FileTable, RowTable
from sequela.record.ingest.tables.cells import (
    DECIMAL_COMMA,
    GROUPED,
    MEANING,
    PADDED_WITH_ZEROS,
    SENTINEL,
    WRONG,
    add_macros,
    is_time,
    likely_format,
    notes,
    read_cell,
    value_or_null,
)
from sequela.record.ingest.tables.database import Database, open_table
from sequela.record.ingest.tables.files import MixedLineEnds, open_files
from sequela.record.ingest.tables.rows import RawRows
from sequela.record.ingest.tables.sql import literal, quoted, run_sql

LAST_BIT = 62  # of `_unreadable`, a BIGINT


@dataclass(frozen=True)
class LoadedTable:
    """What is known about one loaded table.

    Attributes:
        files: its files.
        unreadable: column -> (number of cells that are not times; the place of the first one, with its likely format).
        facts: further fields of the table in the report: "times_with_offset" (column -> number of cells converted to
            the mapping's time zone), "comparators" (column of quantities -> number of cells with a "comparator", a
            "unit", a "decimal comma", or "no number"), "sentinels" (column -> number of cells that stand for no time),
            "two_spellings" (column of integers -> number of those written with leading zeros and without).
        filled: column with unreadable cells -> number of its cells that are not empty.
        times: the columns of times, in the order of the bits of `_unreadable`.
    """

    files: tuple[str, ...]
    rows: int
    unreadable: dict[str, tuple[int, str]]
    facts: dict[str, Any] = field(default_factory=dict)
    filled: dict[str, int] = field(default_factory=dict)
    times: tuple[str, ...] = ()

    def unreadable_in(self, expression: str) -> str:
        """SQL for whether a cell that `expression` takes a time from holds something that is none."""
        words = {word.casefold() for word in re.findall(r"\w+", expression)}
        bits = [1 << bit_of(number) for number, column in enumerate(self.times) if column.casefold() in words]
        # A macro may take a time from any column.
        return f"(_unreadable & {reduce(or_, bits)}) <> 0" if bits else "_unreadable <> 0"


def bit_of(number: int) -> int:
    """The bit of `_unreadable` for the column of times of this number; the last is shared by all beyond it."""
    return min(number, LAST_BIT)


def load_rows(con: duckdb.DuckDBPyConnection, name: str, table: RowTable, place: str) -> None:
    """Create the table `name` from rows written in the mapping; `place` names it in messages.

    Raises:
        InputError: if the cells of a column have several types.
    """
    rows = ", ".join("(" + ", ".join(literal(cell) for cell in row) + ")" for row in table.rows)
    names = ", ".join(quoted(column) for column in table.columns)
    run_sql(con, f"CREATE TABLE {quoted(name)} AS SELECT * FROM (VALUES {rows}) AS _rows({names})", place)


def load_files(
    con: duckdb.DuckDBPyConnection, name: str, table: FileTable, raw: Path | Database
) -> LoadedTable:
    """Create the table `name` from the files below the folder `raw`, or from that table of the database `raw`.

    Rows stream, so memory is bounded if the connection's database is on disk.

    Raises:
        InputError: if a file is missing, damaged or empty, lacks a column, or has text in place of a number.
    """
    add_macros(con, table.timezone, table.sentinels)
    if isinstance(raw, Database):
        return _loaded(con, name, table, raw, open_table(con, raw, name, table))
    try:
        return _loaded(con, name, table, raw, open_files(con, raw, name, table))
    except MixedLineEnds:
        return _loaded(con, name, table, raw, open_files(con, raw, name, table, as_stream=True))


def _loaded(
    con: duckdb.DuckDBPyConnection,
    name: str,
    table: FileTable,
    raw: Path | Database,
    opened: AbstractContextManager[RawRows | None],
) -> LoadedTable:
    """Create the table from the rows of `opened`."""
    with opened as rows:
        if rows is None:
            _create_empty(con, name, table)
            return LoadedTable((), 0, {})
        counted = _create_typed(con, name, table, rows)
        loaded = _check_cells(con, name, table, rows, counted)
    if loaded.rows == 0 and not table.optional:
        where = f"{raw}, table {rows.places[0]} has" if rows.typed and isinstance(raw, Database) else (
               f"{Path(raw) / rows.places[0]} has a header but")  # fmt: skip
        raise InputError(f"{where} no rows: export the table '{name}' again.")
    return loaded


def place_of(con: duckdb.DuckDBPyConnection, name: str, row: int) -> str:
    """The place of row `_row` of a loaded table: "FILE, row N" (from 1, the header not counted)."""
    first = f"SELECT min(_row) FROM {quoted(name)} AS _other WHERE _other._file = _this._file"
    sql = f"SELECT _file, {row} - ({first}) + 1 FROM {quoted(name)} AS _this WHERE _row = {row}"
    file, number = con.execute(sql).fetchall()[0]
    return f"{file}, row {number}"


def _create_empty(con: duckdb.DuckDBPyConnection, name: str, table: FileTable) -> None:
    columns = ", ".join(
        f"{read_cell(kind, 'NULL::VARCHAR', table.timezone)} AS {quoted(c)}"
        for c, kind in table.columns.items()
    )
    fixed = "0::BIGINT AS _row, ''::VARCHAR AS _file, 0::BIGINT AS _unreadable"
    con.execute(f"CREATE TABLE {quoted(name)} AS SELECT {columns}, {fixed} WHERE false")


def _create_typed(
    con: duckdb.DuckDBPyConnection, name: str, table: FileTable, rows: RawRows
) -> dict[str, list[str]]:
    """Create the table from `rows`; bit i of `_note_N` is the i-th note on the cell in column N (see `notes`).

    Returns:
        Column -> the names of its notes.
    """
    types = _types(con, rows)
    absent = ", ".join(literal(word) for word in ("", *table.missing))
    cells, read, values, made, times, counted = [], [], [], [], [], {}
    for number, (column, kind) in enumerate(table.columns.items()):
        type, cell = types.get(column.casefold(), "VARCHAR"), quoted(column)
        if type == "VARCHAR":
            cell = f"CASE WHEN {cell} NOT IN ({absent}) THEN {cell} END"
        elif table.missing:
            cell = f"CASE WHEN CAST({cell} AS VARCHAR) NOT IN ({absent}) THEN {cell} END"
        cells.append(f"{cell} AS _cell_{number}")
        read.append(f"{read_cell(kind, f'_cell_{number}', table.timezone, type)} AS _read_{number}")
        values.append(f"{value_or_null(kind, f'_read_{number}')} AS _value_{number}")
        noted = notes(kind, f"_cell_{number}", f"_value_{number}", type)
        meant = f"_meant(_cell_{number}, _value_{number})" if SENTINEL in noted else f"_value_{number}"
        made.append(f"{meant} AS {quoted(column)}")
        counted[column] = list(noted)
        if noted:
            bits = " + ".join(f"({sql})::INTEGER * {1 << bit}" for bit, sql in enumerate(_sure(noted)))
            made.append(f"({bits})::INTEGER AS _note_{number}")
        if is_time(kind):
            times.append(f"coalesce({noted[WRONG]}, false)::BIGINT * {1 << bit_of(len(times))}")
    con.execute(
        f"CREATE TABLE {quoted(name)} AS "
        f"SELECT _row, _file, {' | '.join(times) or '0::BIGINT'} AS _unreadable, {', '.join(made)} FROM "
        f"(SELECT *, {', '.join(values)} FROM (SELECT *, {', '.join(read)} FROM "
        f"(SELECT row_number() OVER () - 1 AS _row, _file::VARCHAR AS _file, {', '.join(cells)} FROM ({rows.sql}))))"
    )
    return counted


def _sure(noted: dict[str, str]) -> list[str]:
    return [f"coalesce({sql}, false)" for sql in noted.values()]


def _types(con: duckdb.DuckDBPyConnection, rows: RawRows) -> dict[str, str]:
    """The DuckDB types of the columns; columns that are not listed are text."""
    if not rows.typed:
        return {}
    return {name.casefold(): type for name, type, *_ in con.execute(f"DESCRIBE {rows.sql}").fetchall()}


def _check_cells(
    con: duckdb.DuckDBPyConnection, name: str, table: FileTable, rows: RawRows, counted: dict[str, list[str]]
) -> LoadedTable:
    """Count the notes on the cells of the created table, and drop its columns `_note_N`."""
    selected = ["count(*)"]
    for number, (column, noted) in enumerate(counted.items()):
        selected += [f"count(*) FILTER ((_note_{number} & {1 << bit}) > 0)" for bit in range(len(noted))]
        selected += [f"min(_row) FILTER ((_note_{number} & 1) > 0)", f"count({quoted(column)})"] if noted else []
    height, *values = con.execute(f"SELECT {', '.join(selected)} FROM {quoted(name)}").fetchall()[0]
    unreadable: dict[str, tuple[int, str]] = {}
    filled: dict[str, int] = {}
    facts: dict[str, dict] = {"times_with_offset": {}, "comparators": {}, "sentinels": {}, "two_spellings": {}}
    for number, (column, noted) in enumerate(counted.items()):
        if not noted:
            continue
        counts, (first, read) = dict(zip(noted, values, strict=False)), values[len(noted) : len(noted) + 2]
        values = values[len(noted) + 2 :]
        kind = table.columns[column]
        if kind == "quantity":
            facts["comparators"][column] = _comparators(con, name, column, number, counts)
        elif counts[WRONG] and is_time(kind):
            unreadable[column] = counts[WRONG], place_of(con, name, first) + likely_format(counts)
            filled[column] = counts[WRONG] + read + counts.get(SENTINEL, 0)
        elif counts[WRONG]:
            raise InputError(
                f"{place_of(con, name, first)}: column '{column}' should hold {MEANING[kind]} and does not "
                f"({counts[WRONG]} such rows); fix the file, or declare the column as text in the mapping."
            )
        for note, fact in (("offset", "times_with_offset"), (SENTINEL, "sentinels")):
            if counts.get(note):
                facts[fact][column] = counts[note]
        if counts.get(PADDED_WITH_ZEROS) and (twice := _spelled_twice(con, column, table, rows)):
            facts["two_spellings"][column] = twice
        con.execute(f"ALTER TABLE {quoted(name)} DROP COLUMN _note_{number}")
    facts["comparators"] = {column: counts for column, counts in facts["comparators"].items() if counts}
    facts = {name: fact for name, fact in facts.items() if fact}
    times = tuple(column for column, kind in table.columns.items() if is_time(kind))
    return LoadedTable(rows.places, height, unreadable, facts, filled, times)


def _comparators(
    con: duckdb.DuckDBPyConnection, name: str, column: str, number: int, counts: dict[str, int]
) -> dict[str, int]:
    """What is said of a column of quantities; its ambiguous cells become empty.

    In a column with decimal commas, nobody knows whether 1,250 is one and a quarter, or 1.250 over a thousand.
    """
    by_note = {"no number": counts[WRONG]} | {note: counts[note] for note in ("comparator", "unit") if note in counts}
    if commas := counts.get(DECIMAL_COMMA, 0):
        by_note[DECIMAL_COMMA] = commas
    if commas and counts[GROUPED]:
        bit = 1 << list(counts).index(GROUPED)
        ambiguous = f"{quoted(column)} IS NOT NULL AND (_note_{number} & {bit}) > 0"
        by_note["no number"] += con.execute(
            f"UPDATE {quoted(name)} SET {quoted(column)} = NULL WHERE {ambiguous}"
        ).fetchall()[0][0]
    return {note: count for note, count in by_note.items() if count}


def _spelled_twice(con: duckdb.DuckDBPyConnection, column: str, table: FileTable, rows: RawRows) -> int:
    """How many numbers of the column are written in several ways: 0123 and 123 may be two ids."""
    cell = f"trim({quoted(column)}::VARCHAR)"
    digits = f"regexp_replace({cell}, '^[+]|[.]0*$', '', 'g')"
    several = f"SELECT 1 FROM ({rows.sql}) GROUP BY whole_in({cell}) HAVING count(DISTINCT {digits}) > 1"
    return con.execute(f"SELECT count(*) FROM ({several})").fetchall()[0][0]
