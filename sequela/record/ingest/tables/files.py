"""Opens raw tables in files below a folder: CSV, Parquet, and tar archives of CSV."""

from __future__ import annotations

import codecs
import gzip
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import duckdb
import polars as pl

from sequela.errors import InputError
from sequela.record.ingest.mapping import FileTable
from sequela.record.ingest.tables.archive import is_archive, read_archives
from sequela.record.ingest.tables.csv_stream import CsvBatches
from sequela.record.ingest.tables.header import match_columns, read_header
from sequela.record.ingest.tables.names import find_paths
from sequela.record.ingest.tables.rows import RawRows
from sequela.record.ingest.tables.sql import literal, quoted

PATH = "_sequela_file"  # column with the path of a row's file


@contextmanager
def open_files(
    con: duckdb.DuckDBPyConnection, raw: Path, name: str, table: FileTable
) -> Iterator[RawRows | None]:
    """The rows of `table`, called `name` in the mapping; None if it is optional and absent.

    Raises:
        InputError: if a file is missing or damaged, or lacks a column.
    """
    paths = _matching(name, table, raw)
    if not paths:
        yield None
        return
    places = tuple(str(path.relative_to(raw)) for path in paths)
    try:
        if is_archive(paths[0]):
            with _streamed(con, read_archives(paths, table, raw)):
                yield RawRows(places, "SELECT * FROM _members")
        elif paths[0].suffix.lower() == ".parquet":
            yield RawRows(places, _parquet(paths, table, raw), typed=True)
        elif codecs.lookup(table.encoding).name not in ("utf-8", "ascii"):
            with _streamed(con, CsvBatches(_decoded(paths, raw), table, "")):
                yield RawRows(places, "SELECT * FROM _members")
        else:
            yield RawRows(places, _csv(paths, table, raw))
    except (duckdb.InvalidInputException, duckdb.IOException) as error:
        raise _damaged(error, paths) from error


@contextmanager
def _streamed(con: duckdb.DuckDBPyConnection, batches: CsvBatches) -> Iterator[None]:
    """Register the batches as the view `_members`, which can be read once."""
    con.register("_members", batches.reader)
    try:
        yield
    except Exception:
        if isinstance(batches.error, InputError):
            raise batches.error from None
        raise
    finally:
        con.unregister("_members")


def _decoded(paths: list[Path], raw: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """The place and content of CSV files, plain or gzipped."""
    for path in paths:
        try:
            with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as file:
                yield str(path.relative_to(raw)), file
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error}): copy or download it again.") from error


def _matching(name: str, table: FileTable, raw: Path) -> list[Path]:
    if not raw.is_dir():
        raise InputError(f"there is no folder {raw}: give the folder that holds the raw files.")
    for pattern in table.files:
        paths = find_paths(raw, pattern)
        if paths:
            return paths
    if table.optional:
        return []
    raise InputError(
        f"{raw} has no file {' or '.join(table.files)} (table '{name}'): put it there, or give the right folder."
    )


def _list(paths: list[Path]) -> str:
    return "[" + ", ".join(literal(str(path)) for path in paths) + "]"


def _below(raw: Path) -> str:
    """SQL for a file's name below the raw folder."""
    head = f"{raw}/"
    below = f"substr({PATH}, {len(head) + 1})"
    return f"CASE WHEN starts_with({PATH}, {literal(head)}) THEN {below} ELSE {PATH} END AS _file"


def _parquet(paths: list[Path], table: FileTable, raw: Path) -> str:
    """SQL that reads Parquet files; a column that only some of them have is null in the others."""
    there: set[str] = set()
    for path in paths:
        names = match_columns(path, _parquet_columns(path), table)
        there.update(column for column, own in names.items() if own is not None)
    # DuckDB itself matches column names case-insensitively.
    cells = ", ".join(
        f"{quoted(column) if column in there else 'NULL::VARCHAR'} AS {quoted(column)}"
        for column in table.columns
    )
    return (
        f"SELECT {cells}, {_below(raw)} FROM read_parquet({_list(paths)}, union_by_name=true, "
        f"hive_partitioning=false, filename={literal(PATH)})"
    )


def _parquet_columns(path: Path) -> list[str]:
    try:
        return list(pl.read_parquet_schema(path))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{path} is not a complete Parquet file: copy or download it again.") from error


def _csv(paths: list[Path], table: FileTable, raw: Path) -> str:
    """SQL that reads all cells of CSV files as text; columns are matched by their position in the header."""
    header = read_header(paths[0], table)
    names = match_columns(paths[0], header.names, table)
    for path in paths[1:]:
        other = read_header(path, table)
        match_columns(path, other.names, table)
        if not other.same(header):
            raise InputError(
                f"{path} has other columns than {paths[0]}: give all files of a table the same header."
            )
    packed = "gzip" if paths[0].suffix.lower() == ".gz" else "none"
    columns = "{" + ", ".join(f"'_{place}': 'VARCHAR'" for place in range(len(header.names))) + "}"
    cells = ", ".join(
        f"{'NULL::VARCHAR' if own is None else f'_{header.names.index(own)}'} AS {quoted(column)}"
        for column, own in names.items()
    )
    return (
        f"SELECT {cells}, {_below(raw)} FROM read_csv({_list(paths)}, auto_detect=false, columns={columns}, "
        f"header=true, compression='{packed}', quote={literal(header.quote)}, escape={literal(header.quote)}, "
        f"delim={literal(header.delimiter)}, hive_partitioning=false, filename={literal(PATH)})"
    )


def _damaged(error: duckdb.Error, paths: list[Path]) -> InputError:
    """A sentence without the patient data that DuckDB's message quotes."""
    message = str(error)
    file = re.search(r"file = (.+)", message)
    line = re.search(r"CSV Error on Line: (\d+)", message)
    cells = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", message)
    place = (
        file[1].strip() if file else next((str(path) for path in paths if str(path) in message), str(paths[0]))
    )
    if line is None:
        return InputError(f"{place} is damaged or incomplete: copy or download it again.")
    if cells:
        problem = f"has {cells[2]} cells where the header has {cells[1]}"
    elif "utf-8" in message:
        return InputError(
            f"{place}, line {line[1]} is not UTF-8 text: convert the file, or set the table's `encoding` in the "
            "mapping (perhaps latin-1 or cp1252)."
        )
    else:
        problem = "is not valid CSV (perhaps an open quote)"
    return InputError(f"{place}, line {line[1]} {problem}: fix or convert the file.")
