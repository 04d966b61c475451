"""Opens raw tables in files below a folder: CSV, Parquet, and tar archives of CSV."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import IO

import duckdb
import polars as pl

from sequela.errors import InputError
from sequela.files import system_error
from sequela.record.ingest.mapping import FileTable
from sequela.record.ingest.tables.archive import is_archive, read_archives
from sequela.record.ingest.tables.csv_stream import CsvBatches
from sequela.record.ingest.tables.header import match_columns, read_header
from sequela.record.ingest.tables.names import find_paths
from sequela.record.ingest.tables.packed import (
    each_once,
    has_mixed_line_ends,
    is_packed,
    open_unpacked,
    packings,
)
from sequela.record.ingest.tables.rows import RawRows
from sequela.record.ingest.tables.sql import literal, paths_for_duckdb, plain_path, quoted
from sequela.record.validate import AS_NAMED

PATH = "_sequela_file"  # column with the path of a row's file


class MixedLineEnds(InputError):
    """A CSV file ends its lines in several ways, which DuckDB does not read and `open_files` reads as a stream."""


@contextmanager
def open_files(
    con: duckdb.DuckDBPyConnection, raw: Path, name: str, table: FileTable, *, as_stream: bool = False
) -> Iterator[RawRows | None]:
    """The rows of `table`, called `name` in the mapping; None if it is optional and absent.

    Args:
        as_stream: parse CSV files with one thread in this process, as those that are not UTF-8 always are.

    Raises:
        MixedLineEnds: if `as_stream` is needed.
        InputError: if a file is missing or damaged, or lacks a column.
    """
    paths = _matching(name, table, raw)
    if not paths:
        yield None
        return
    places = tuple(str(path.relative_to(raw)) for path in paths)
    form = _form(paths)
    try:
        if form == "archive":
            with _streamed(con, read_archives(paths, table, raw)):
                yield RawRows(places, "SELECT * FROM _members")
        elif form == "Parquet":
            yield RawRows(places, _parquet(paths, table, raw), typed=True)
        elif as_stream or codecs.lookup(table.encoding).name not in ("utf-8", "ascii"):
            with _streamed(con, CsvBatches(_decoded(paths, raw), table, "")):
                yield RawRows(places, "SELECT * FROM _members")
        else:
            yield RawRows(places, _csv(paths, table, raw))
    except (duckdb.InvalidInputException, duckdb.IOException) as error:
        raise _damaged(error, paths) from error


def _form(paths: list[Path]) -> str:
    """What the files are: "archive", "Parquet" or "CSV"."""
    forms: dict[str, Path] = {}
    for path in paths:
        forms.setdefault(
            "archive" if is_archive(path) else "Parquet" if path.suffix.lower() == ".parquet" else "CSV", path
        )
    if len(forms) > 1:
        (first, one_path), (second, other_path) = list(forms.items())[:2]
        raise InputError(
            f"{one_path} is {first} and {other_path} is {second}: give all files of a table in one form, or name "
            "in the mapping those that you mean."
        )
    return next(iter(forms))


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
            with open_unpacked(path) as file:
                yield str(path.relative_to(raw)), file
        except OSError as error:
            raise system_error(error, path) or InputError(
                f"{path} cannot be read ({error}): copy or download it again."
            ) from error


def _matching(name: str, table: FileTable, raw: Path) -> list[Path]:
    if not raw.is_dir():
        raise InputError(f"there is no folder {raw}: give the folder that holds the raw files.")
    for pattern in table.files:
        wanted = sorted(packings(pattern), key=lambda spelling: spelling != pattern)
        paths = each_once([path for spelling in wanted for path in find_paths(raw, spelling)])
        if paths:
            return paths
    if table.optional:
        return []
    raise InputError(
        f"{raw} has no file {' or '.join(table.files)} (table '{name}'): put it there, or give the right folder."
    )


def _place(raw: Path, paths: list[Path]) -> str:
    """SQL for a file's name below the raw folder, from the path by which DuckDB read it."""
    linked = {plain_path(path): path.relative_to(raw) for path in paths if plain_path(path) != path}
    renamed = "".join(
        f"WHEN {PATH} = {literal(str(link))} THEN {literal(str(name))} " for link, name in linked.items()
    )
    head = f"{raw}/"
    below = f"substr({PATH}, {len(head) + 1})"
    return f"CASE {renamed}WHEN starts_with({PATH}, {literal(head)}) THEN {below} ELSE {PATH} END AS _file"


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
        f"SELECT {cells}, {_place(raw, paths)} FROM read_parquet({paths_for_duckdb(paths)}, union_by_name=true, "
        f"hive_partitioning=false, filename={literal(PATH)})"
    )


def _parquet_columns(path: Path) -> list[str]:
    try:
        return list(pl.scan_parquet(path, **AS_NAMED).collect_schema())
    except (pl.exceptions.PolarsError, OSError) as error:
        raise system_error(error, path) or InputError(
            f"{path} is not a complete Parquet file: copy or download it again."
        ) from error


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
    columns = "{" + ", ".join(f"'_{place}': 'VARCHAR'" for place in range(len(header.names))) + "}"
    cells = ", ".join(
        f"{'NULL::VARCHAR' if own is None else f'_{header.names.index(own)}'} AS {quoted(column)}"
        for column, own in names.items()
    )
    # DuckDB unpacks all files of a list or none
    return " UNION ALL ".join(
        f"SELECT {cells}, {_place(raw, list(alike))} FROM read_csv({paths_for_duckdb(alike)}, auto_detect=false, "
        f"columns={columns}, header=true, compression='{'gzip' if packed else 'none'}', "
        f"quote={literal(header.quote)}, escape={literal(header.quote)}, delim={literal(header.delimiter)}, "
        f"hive_partitioning=false, filename={literal(PATH)})"
        for packed, alike in ((packed, list(run)) for packed, run in groupby(paths, key=is_packed))
    )


def _damaged(error: duckdb.Error, paths: list[Path]) -> InputError:
    """A sentence without the patient data that DuckDB's message quotes."""
    message = str(error)
    file = re.search(r"file = (.+)", message)
    line = re.search(r"CSV Error on Line: (\d+)", message)
    cells = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", message)
    shown = {str(plain_path(path)): path for path in paths}
    if file:
        place = shown.get(file[1].strip(), file[1].strip())
    else:
        place = next((path for name, path in shown.items() if name in message), paths[0])
    if file and has_mixed_line_ends(Path(place)):
        return MixedLineEnds(f"{place} ends its lines in several ways: convert the line ends.")
    if line is None:
        return system_error(error, place) or InputError(
            f"{place} is damaged or incomplete: copy or download it again."
        )
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
