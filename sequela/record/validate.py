"""Whether a MEDS dataset, written by anyone, is one that timelines can be read from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import polars as pl

from sequela.record.codes import BIRTH
from sequela.record.errors import InputError
from sequela.record.layout import DATA, SPLITS_FILE

T = TypeVar("T")
SCHEMA = {
    "subject_id": pl.Int64,
    "time": pl.Datetime("us"),
    "code": pl.String,
    "numeric_value": pl.Float32,
    "text_value": pl.String,
}
REQUIRED = ("subject_id", "time", "code")
_WHOLE_NUMBERS = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32)
_NUMBERS = (*_WHOLE_NUMBERS, pl.Float32, pl.Float64, pl.Null)
_TEXTS = (pl.String, pl.Categorical, pl.Enum)
ACCEPTED = {
    "subject_id": (_WHOLE_NUMBERS, "whole numbers"),
    "time": ((pl.Datetime, pl.Date), "timestamps"),
    "code": (_TEXTS, "text"),
    "numeric_value": (_NUMBERS, "numbers"),
    "text_value": ((*_TEXTS, pl.Null), "text"),
}


def patients_in(path: Path) -> pl.DataFrame:
    """Who is in one file: `subject_id`, each once, and `file`."""
    check_schema(path)
    patients = _read_parquet(path, ["subject_id"])["subject_id"].drop_nulls().unique().cast(pl.Int64)
    return pl.DataFrame(
        {"subject_id": patients, "file": [str(path)] * len(patients)}, schema_overrides={"file": pl.String}
    )


def check_schema(path: Path) -> None:
    """The file has the columns that MEDS demands, in types that can be read as ours."""
    check_types(path, schema_of(path))


def schema_of(path: Path) -> dict[str, pl.DataType]:
    """Column -> type of a Parquet file."""
    return dict(_parquet(path, pl.read_parquet_schema))


def check_types(path: Path, types: dict[str, pl.DataType]) -> None:
    """These columns of a file are those that MEDS demands, and can be read as ours."""
    for column in REQUIRED:
        if column not in types:
            raise InputError(f"{path} has no column '{column}': a MEDS file needs {', '.join(REQUIRED)}.")
    for column, (accepted, words) in ACCEPTED.items():
        if column in types and types[column].base_type() not in accepted:
            raise InputError(
                f"{path}, column '{column}' holds {types[column]}: convert it to {words}, as MEDS demands."
            )


def read_file(path: Path) -> pl.DataFrame:
    """One file in the types of `SCHEMA`, plus `file` and `row` (from 1)."""
    raw = _read_parquet(path)
    if "numeric_value" not in raw.columns:
        raw = raw.with_columns(numeric_value=pl.lit(None, pl.Float32))
    for column in ("subject_id", "code"):
        if raw[column].null_count():
            row = raw[column].is_null().arg_max() + 1
            raise InputError(f"{path}, row {row}: '{column}' is missing; give it, or drop the event.")
    typed = raw.select(pl.col(column).cast(kind) for column, kind in SCHEMA.items() if column in raw.columns)
    endless = typed["numeric_value"].is_infinite().fill_null(False)
    if endless.any():
        raise InputError(
            f"{path}, row {endless.arg_max() + 1}: 'numeric_value' is infinite; give a number, or leave it empty."
        )
    typed = typed.with_columns(pl.col("numeric_value").fill_nan(None))  # NaN is how pandas writes "none"
    return typed.with_columns(file=pl.lit(str(path)), row=pl.int_range(1, pl.len() + 1))


def _read_parquet(path: Path, columns: list[str] | None = None) -> pl.DataFrame:
    return _parquet(path, lambda file: pl.read_parquet(file, columns=columns, hive_partitioning=False))


def _parquet(path: Path, read: Callable[[Path], T]) -> T:
    try:
        return read(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> InputError:
    """The error for a file that is no whole Parquet."""
    said = str(error).splitlines()[0].rstrip(".")
    return InputError(f"{path} cannot be read as parquet ({said}): copy or make it again.")


def check_one_file_each(patients: pl.DataFrame) -> None:
    """A patient is in one file only, so in one split only: else the test set is not unseen."""
    twice = patients.filter(pl.col("subject_id").is_duplicated()).sort("subject_id", "file")
    if twice.height:
        (patient, first), (_, second) = twice.rows()[:2]
        raise InputError(
            f"{second}: patient {patient} is also in {first} ({twice['subject_id'].n_unique()} such patients); "
            "keep each patient in one file of one split."
        )


def assigned_splits(folder: Path) -> pl.DataFrame | None:
    """Rows (subject_id, split) of metadata/subject_splits.parquet; None where that file is absent."""
    path = folder / SPLITS_FILE
    if not path.exists():
        return None
    table = _read_parquet(path)
    for column in ("subject_id", "split"):
        if column not in table.columns:
            raise InputError(f"{path} has no column '{column}': it needs subject_id and split.")
    twice = table.unique().filter(pl.col("subject_id").is_duplicated()).sort("subject_id", "split")
    if twice.height:
        patient, first, second = twice["subject_id"][0], *twice["split"][:2]
        raise InputError(f"{path}: patient {patient} is in two splits, {first} and {second}; keep one row.")
    return table.select(pl.col("subject_id").cast(pl.Int64), "split")


def with_splits(patients: pl.DataFrame, assigned: pl.DataFrame | None, folder: Path) -> pl.DataFrame:
    """`patients` with their `split`: as assigned, or by the folders data/<split>/ where no table assigns them."""
    if assigned is not None:
        return patients.join(assigned, on="subject_id", how="left")
    data = folder / DATA
    parts = {file: Path(file).relative_to(data).parts[0] for file in patients["file"].unique()}
    return patients.with_columns(split=pl.col("file").replace_strict(parts))


def only_split(
    patients: pl.DataFrame, split: str, assigned: pl.DataFrame | None, folder: Path
) -> pl.DataFrame:
    """The patients of one split."""
    placed = with_splits(patients, assigned, folder)
    chosen = placed.filter(pl.col("split") == split)
    if chosen.is_empty():
        known = ", ".join(placed["split"].drop_nulls().unique().sort())
        raise InputError(
            f"{folder} has no patients in split '{split}': its splits are {known or 'not given'}."
        )
    return chosen


def check_births(events: pl.DataFrame) -> None:
    """Nobody has a dated event before their birth."""
    births = events.filter(pl.col("code") == BIRTH).group_by("subject_id").agg(birth=pl.col("time").min())
    early = events.join(births, on="subject_id").filter(pl.col("time") < pl.col("birth"))
    if early.height:
        file, row = early.sort("file", "row").select("file", "row").row(0)
        raise InputError(
            f"{file}, row {row}: the event is before its patient's birth ({BIRTH}; {early.height} such events); "
            "mend the times or drop these events."
        )
