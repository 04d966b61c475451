"""Reads a MEDS dataset in shards of whole patients that fit in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from sequela.errors import InputError
from sequela.files import files_below
from sequela.record.events import Events
from sequela.record.schema import DATA, PAYLOAD
from sequela.record.timeline import STATIC, payload_of
from sequela.record.validate import cells, check_births, check_cells, check_types, schema_of, unreadable

ROWS = 1 << 20
COLUMNS = ("subject_id", "time", "code", "numeric_value")


@dataclass(frozen=True)
class Shard:
    """Row groups [first, last) of the Parquet file at `path`, with `rows` rows: the patients whose rows start there."""

    path: Path
    first: int
    last: int
    rows: int


def shards_of(meds_folder: Path, rows: int = ROWS) -> list[Shard]:
    """The shards of a MEDS dataset, with about `rows` events each, in the order of its files.

    Raises:
        InputError: if the folder is not a MEDS dataset, or a part of it cannot be read.
    """
    folder = Path(meds_folder)
    paths = files_below(folder / DATA, ".parquet") if (folder / DATA).is_dir() else []
    if not paths:
        raise InputError(
            f"{folder} has no data/**/*.parquet: give the folder of a MEDS dataset, such as `sequela ingest` writes."
        )
    shards = [shard for path in paths for shard in _shards_of_file(path, rows)]
    if not shards:
        raise InputError(f"{folder / DATA} has no events at all: check how the dataset was made.")
    return shards


def _shards_of_file(path: Path, rows: int) -> list[Shard]:
    types = schema_of(path)
    metadata = pq.read_metadata(path)
    if not metadata.num_rows:  # an empty file may know no types
        return []
    check_types(path, types)
    shards, first, held = [], 0, 0
    for group in range(metadata.num_row_groups):
        count = metadata.row_group(group).num_rows
        if held and held + count > rows:
            shards.append(Shard(path, first, group, held))
            first, held = group, 0
        held += count
    return [*shards, Shard(path, first, metadata.num_row_groups, held)] if held else shards


def read_shard(shard: Shard, *, payload: bool = True) -> Events:
    """The events of the shard's patients, sorted by patient and time, static events first.

    Simultaneous events of a patient keep their order on disk.

    Args:
        payload: whether to read text and media; without them, notes cost neither time nor memory.

    Raises:
        InputError: if a cell is missing or not a finite number, a media path leads out of the dataset, or an event is
            before its patient's birth.
    """
    table, before = _rows(shard, (*COLUMNS, *PAYLOAD) if payload else COLUMNS)
    events = _events(table)
    order = _order(events)
    row = np.arange(len(table)) if order is None else order
    if order is not None:
        events = events.take(order)
    check_births(events, before + 1 + row, shard.path)
    return events


def read_frame(shard: Shard) -> pl.DataFrame:
    """The same as a MEDS frame (see `sequela.record.dataset`).

    Raises:
        InputError: see `read_shard`.
    """
    return read_shard(shard).frame()


def patients_of(shard: Shard) -> np.ndarray:
    """The shard's patients: int64 [P], distinct, sorted.

    Raises:
        InputError: if a row has no patient.
    """
    return np.unique(_numbers(_rows(shard, COLUMNS[:1])[0], "subject_id", pl.Int64))


def codes_in(shard: Shard) -> pl.Series:
    """The shard's codes, distinct.

    Raises:
        InputError: if a row has no code.
    """
    return cells(_rows(shard, ("subject_id", "code"))[0]["code"]).cast(pl.String).unique()


def _rows(shard: Shard, names: tuple[str, ...]) -> tuple[pa.Table, int]:
    """Those of the columns `names` that exist, for the shard's patients, and the number of rows before them."""
    try:
        with pq.ParquetFile(shard.path, read_dictionary=["code"]) as file:
            table, before = _whole_patients(file, shard, names)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(shard.path, error) from error
    check_cells(table, shard.path, before)
    return table, before


def _whole_patients(file: pq.ParquetFile, shard: Shard, names: tuple[str, ...]) -> tuple[pa.Table, int]:
    """The rows of the patients whose rows start in the shard, and the number of rows before them in the file."""
    columns = [column for column in names if column in file.schema_arrow.names]
    table = file.read_row_groups(range(shard.first, shard.last), columns=columns, use_threads=False)
    patient, before = _numbers(table, "subject_id", pl.Int64), _last_patient(file, shard.first - 1)
    # Skip the rest of the previous shard's last patient ...
    others = patient != before if before is not None else np.ones(len(patient), bool)
    skip = int(np.argmax(others)) if others.any() else len(patient)
    # ... and append the rest of this shard's last patient from the following row groups.
    for group in range(shard.last, file.metadata.num_row_groups if skip < len(patient) else 0):
        more = file.read_row_group(group, columns=columns, use_threads=False)
        same = _numbers(more, "subject_id", pl.Int64) == patient[-1]
        ends = len(same) if same.all() else int(np.argmin(same))
        table = pa.concat_tables([table, more.slice(0, ends)])
        if ends < len(same):
            break
    return table.slice(skip), skip + sum(file.metadata.row_group(at).num_rows for at in range(shard.first))


def _last_patient(file: pq.ParquetFile, group: int) -> int | None:
    if group < 0:
        return None
    column = file.read_row_group(group, columns=["subject_id"], use_threads=False)
    patients = _numbers(column, "subject_id", pl.Int64)
    return int(patients[-1]) if len(patients) else None


def _numbers(table: pa.Table, column: str, kind: pl.DataType | type[pl.DataType], absent: float = 0) -> np.ndarray:
    """A column as an array; null cells, and those that `kind` cannot hold, become `absent`."""
    return cells(table[column]).cast(kind, strict=False).to_physical().fill_null(absent).to_numpy()


def _events(table: pa.Table) -> Events:
    time = _numbers(table, "time", pl.Datetime("us"), STATIC)
    if "numeric_value" in table.column_names:
        number = _numbers(table, "numeric_value", pl.Float32, np.nan)
    else:
        number = np.full(len(table), np.nan, np.float32)
    names, code = _coded(table["code"])
    payload = (
        payload_of(cells(table[column])) if column in table.column_names else None for column in PAYLOAD
    )
    return Events(_numbers(table, "subject_id", pl.Int64), time, code, number, names, *payload)


def _coded(column: pa.ChunkedArray) -> tuple[tuple[str, ...], np.ndarray]:
    """The distinct codes, sorted, and each event's index into them; every chunk has its own dictionary."""
    chunks = [
        chunk if pa.types.is_dictionary(chunk.type) else chunk.dictionary_encode() for chunk in column.chunks
    ]
    lists = [chunk.dictionary.to_pylist() for chunk in chunks]
    names = sorted({name for codes in lists for name in codes})
    index = {name: row for row, name in enumerate(names)}
    code = [
        np.array([index[name] for name in codes], np.int32)[cells(chunk.indices).to_numpy()]
        for codes, chunk in zip(lists, chunks, strict=True)
        if len(chunk)
    ]
    return tuple(names), np.concatenate(code) if code else np.zeros(0, np.int32)


def _order(events: Events) -> np.ndarray | None:
    """The permutation that sorts the events; None if they are sorted."""
    patient, time = events.patient, events.time
    same = patient[1:] == patient[:-1]
    if ((patient[1:] > patient[:-1]) | (same & (time[1:] >= time[:-1]))).all():
        return None
    return np.lexsort((np.arange(len(time)), time, patient))
