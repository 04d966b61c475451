"""Checks the files of a MEDS dataset, whoever wrote it: columns, types, cells, and events before birth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl
import pyarrow as pa

from sequela.errors import InputError
from sequela.files import system_error
from sequela.record.events import NEVER, Events, births
from sequela.record.schema import BIRTH, MEDIA, TEXT
from sequela.record.timeline import STATIC

T = TypeVar("T")
REQUIRED = ("subject_id", "time", "code")
_WHOLE_NUMBERS = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64,
                  pl.Decimal)  # fmt: skip
_NUMBERS = (*_WHOLE_NUMBERS, pl.Float16, pl.Float32, pl.Float64, pl.Null)
UTC = ("UTC", "Etc/UTC", "+00:00")
_TEXTS = (pl.String, pl.Categorical, pl.Enum)
ACCEPTED = {
    "subject_id": (_WHOLE_NUMBERS, "whole numbers"),
    "time": ((pl.Datetime, pl.Date, pl.Null), "timestamps"),
    "code": (_TEXTS, "text"),
    "numeric_value": (_NUMBERS, "numbers"),
    TEXT: ((*_TEXTS, pl.Null), "text"),
    MEDIA: ((*_TEXTS, pl.Null), "text"),
}
DIGITS = 38  # of the largest decimal that can be read
# For polars: brackets in a path are no pattern, and a folder `code=X` above a file is no column of it.
AS_NAMED = {"glob": False, "hive_partitioning": False}
# Regular expression, for polars and DuckDB: a path that may lead out of the folder it is relative to. It is empty or
# absolute, starts with a drive or a scheme, or has a component "..".
OUTSIDE = r"^$|^[/\\~]|^[A-Za-z][A-Za-z0-9+.-]*:|(^|[/\\])\.\.([/\\]|$)"


def schema_of(path: Path) -> dict[str, pl.DataType]:
    """The column types of a Parquet file."""
    return dict(_parquet(path, lambda file: pl.scan_parquet(file, **AS_NAMED).collect_schema()))


def check_types(path: Path | str, types: Mapping[str, pl.DataType]) -> None:
    """Check that these columns of a file include those that MEDS requires, with types that can be cast to ours.

    MEDS times have no time zone. One other than UTC is refused: dropping it would shift events past a prediction time.
    """
    for column in REQUIRED:
        if column not in types:
            raise InputError(f"{path} has no column '{column}': a MEDS file needs {', '.join(REQUIRED)}.")
    if "value" in types and "numeric_value" not in types:
        raise InputError(
            f"{path} has a column 'value', which MEDS does not read, so its numbers would be lost: rename it to "
            f"'numeric_value', and what is text in it to '{TEXT}'."
        )
    for column, (accepted, words) in ACCEPTED.items():
        if column in types and not _readable(types[column], accepted, whole=column == "subject_id"):
            raise InputError(
                f"{path}, column '{column}' holds {types[column]}: convert it to {words}, as MEDS requires."
            )
    zone = getattr(types["time"], "time_zone", None)
    if zone not in (None, *UTC):
        raise InputError(
            f"{path}, column 'time' has the time zone {zone}: MEDS times have none; write them without a zone, as the "
            "prediction times are."
        )


def _readable(kind: pl.DataType, accepted: tuple[type[pl.DataType], ...], *, whole: bool) -> bool:
    """Whether a column of this type is read: a decimal only if not too long and, for patients, whole."""
    if isinstance(kind, pl.Decimal):
        return pl.Decimal in accepted and (kind.precision or 0) <= DIGITS and not (whole and kind.scale)
    return kind.base_type() in accepted


def checked_events(events: pl.DataFrame | pl.LazyFrame, source: str) -> pl.DataFrame:
    """Events in memory as a MEDS frame of ours: typed, sorted by patient and time, static events first.

    Simultaneous events of a patient keep their order. A missing `numeric_value` is filled with nulls.

    Args:
        source: what to call them in an error.

    Raises:
        InputError: if a column is missing or has another type, times have a zone, or a cell is missing or infinite.
    """
    frame = events.lazy().collect()
    check_types(source, frame.schema)
    check_cells(frame.to_arrow(), source, 0)
    if "numeric_value" not in frame.columns:
        frame = frame.with_columns(numeric_value=pl.lit(None, pl.Float32))
    time = pl.col("time").cast(pl.Datetime("us"))
    typed = frame.with_columns(pl.col("subject_id").cast(pl.Int64), time, pl.col("code").cast(pl.String))
    return typed.sort("subject_id", "time", nulls_last=False, maintain_order=True)


def unreadable(path: Path, error: Exception) -> InputError:
    """The error for a file that is not valid Parquet, or that the system does not let us read."""
    system = system_error(error, path)
    if system is not None:
        return system
    reason = str(error).splitlines()[0].rstrip(".")
    return InputError(f"{path} cannot be read as parquet ({reason}): copy or create it again.")


def read_parquet(path: Path, columns: list[str] | None = None) -> pl.DataFrame:
    """A small Parquet file, or the given columns of it."""
    return _parquet(path, lambda file: pl.read_parquet(file, columns=columns, **AS_NAMED))


def _parquet(path: Path, read: Callable[[Path], T]) -> T:
    try:
        return read(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable(path, error) from error


def check_cells(table: pa.Table, path: Path | str, before: int) -> None:
    """Check that every event has a patient and a code, a finite value if any, and media inside the dataset's folder.

    Args:
        table: consecutive rows of the file at `path`, after `before` others.
    """
    for column in ("subject_id", "code"):
        if column in table.column_names and table[column].null_count:
            row = before + 1 + cells(table[column]).is_null().arg_max()
            raise InputError(f"{path}, row {row}: '{column}' is missing; fill it in, or drop the event.")
    if "subject_id" in table.column_names:
        long = cells(table["subject_id"]).cast(pl.Int64, strict=False).is_null()
        if long.any():
            raise InputError(
                f"{path}, row {before + 1 + long.arg_max()}: 'subject_id' is larger than {2**63 - 1:,}, the largest "
                "that MEDS allows: number the patients anew."
            )
    if "time" in table.column_names:
        _check_moments(cells(table["time"]), path, before)
    if "numeric_value" in table.column_names:
        endless = cells(table["numeric_value"]).cast(pl.Float32).is_infinite().fill_null(False)
        if endless.any():
            row = before + 1 + endless.arg_max()
            raise InputError(
                f"{path}, row {row}: 'numeric_value' is infinite; write a finite number, or leave it empty."
            )
    if MEDIA in table.column_names:
        outside = cells(table[MEDIA]).cast(pl.String).str.contains(OUTSIDE).fill_null(False)
        if outside.any():
            raise outside_error(f"{path}, row {before + 1 + outside.arg_max()}")


def _check_moments(time: pl.Series, path: Path | str, before: int) -> None:
    """Check that times are between the years 1 and 9999: beyond them, nothing can be computed with a time."""
    if time.dtype == pl.Null or time.dtype == pl.Datetime("ns"):  # nanoseconds do not reach beyond
        return
    bounds = pl.Series([datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59)], dtype=pl.Datetime("us"))
    low, high = bounds.cast(time.dtype).to_physical()
    number = time.to_physical()
    wild = ((number < low) | (number > high)).fill_null(False)
    if wild.any():
        raise InputError(
            f"{path}, row {before + 1 + wild.arg_max()}: 'time' is not between the years 1 and 9999; write the true "
            "time, or leave it empty."
        )


def outside_error(position: str) -> InputError:
    """The error for a media path, at `position`, that may lead out of the dataset's folder."""
    return InputError(
        f"{position}: '{MEDIA}' is not a relative path inside the dataset's folder; write one such as images/1.png, "
        "without '..', or leave it empty."
    )


def cells(column: pa.Array | pa.ChunkedArray) -> pl.Series:
    """A column as a series.

    `pl.Series(column)` would import pyarrow.compute, and `column.to_numpy()` pandas, which takes longer than reading a
    small file.
    """
    return pl.DataFrame(pa.table({"": column})).to_series()


def check_births(events: Events, row: np.ndarray, path: Path) -> None:
    """Check that no patient has a dated event before birth.

    Args:
        events: N events of the file at `path`.
        row: int64 [N], their row numbers in the file, from 1.
    """
    first = np.repeat(births(events), np.diff(np.append(events.starts, len(events))))
    early = row[(events.time < first) & (events.time != STATIC) & (first != NEVER)]
    if len(early):
        raise InputError(
            f"{path}, row {early.min()}: the event is before its patient's birth ({BIRTH}; {len(early)} such events); "
            "fix the times, drop these events, or let `sequela ingest meds` drop them."
        )
