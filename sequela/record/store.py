"""Events on disk: a MEDS dataset, written by us or by anyone, checked where it is read.

In memory events are a polars frame sorted by patient and time: `subject_id` Int64, `time` Datetime[us] (null for
static events, which come first), `code` String, `numeric_value` Float32 (null for none) and, where the data has
free text, `text_value` String.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import meds
import numpy as np
import polars as pl
import pyarrow.parquet as pq

from sequela.record.codes import BIRTH
from sequela.record.errors import InputError

T = TypeVar("T")
SPLITS = (meds.train_split, meds.tuning_split, meds.held_out_split)
SCHEMA = {
    "subject_id": pl.Int64,
    "time": pl.Datetime("us"),
    "code": pl.String,
    "numeric_value": pl.Float32,
    "text_value": pl.String,
}
REQUIRED = ("subject_id", "time", "code")
_NUMBERS = (
    pl.Int8,
    pl.Int16,
    pl.Int32,
    pl.Int64,
    pl.UInt8,
    pl.UInt16,
    pl.UInt32,
    pl.Float32,
    pl.Float64,
    pl.Null,
)
_WHOLE_NUMBERS = _NUMBERS[:7]
_TEXTS = (pl.String, pl.Categorical, pl.Enum)
ACCEPTED = {
    "subject_id": (_WHOLE_NUMBERS, "whole numbers"),
    "time": ((pl.Datetime, pl.Date), "timestamps"),
    "code": (_TEXTS, "text"),
    "numeric_value": (_NUMBERS, "numbers"),
    "text_value": ((*_TEXTS, pl.Null), "text"),
}


def split_of(patients: np.ndarray, fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)) -> np.ndarray:
    """The split of each patient, from the patient's number alone.

    The same patient lands in the same split in every version, on every machine and in every extract of the data.

    Args:
        patients: int64 [N].
        fractions: shares of train, tuning and held_out; they sum to 1.

    Returns:
        str [N], each of "train", "tuning", "held_out".
    """
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise InputError(f"fractions are {fractions}: give three shares, none negative, that sum to 1.")
    # splitmix64 (Steele, Lea, Flood 2014): a fixed bijection whose output bits look random
    x = np.asarray(patients, dtype=np.int64).view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    uniform = ((x ^ (x >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53
    return np.array(SPLITS)[np.searchsorted(np.cumsum(fractions[:2]), uniform, side="right")]


def write_dataset(
    events: pl.DataFrame,
    out: Path,
    *,
    name: str,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    descriptions: dict[str, str] | None = None,
    metadata: dict | None = None,
) -> None:
    """Write sorted `events` to the folder `out` as a MEDS 0.4 dataset with the three splits.

    Args:
        descriptions: what a code means, for people; codes without one get null.
        metadata: further fields of `dataset.json` (licence, version, notes).
    """
    patients = events["subject_id"].unique().sort()
    split = split_of(patients.to_numpy(), fractions)
    out = Path(out)
    for part in SPLITS:
        own = events.filter(pl.col("subject_id").is_in(patients.filter(split == part).implode()))
        if own.height:
            _write(own, meds.DataSchema, out / meds.data_subdirectory / part / "0.parquet")
    _write(
        pl.DataFrame({"subject_id": patients, "split": split}),
        meds.SubjectSplitSchema,
        out / meds.subject_splits_filepath,
    )
    codes = events["code"].unique().sort()
    known = descriptions or {}
    table = pl.DataFrame(
        {
            "code": codes,
            "description": [known.get(code) for code in codes],
            "parent_codes": [None] * len(codes),
        },
        schema={"code": pl.String, "description": pl.String, "parent_codes": pl.List(pl.String)},
    )
    _write(table, meds.CodeMetadataSchema, out / meds.code_metadata_filepath)
    facts = {
        "dataset_name": name,
        "etl_name": "sequela",
        "meds_version": meds.__version__,
        **(metadata or {}),
    }
    meds.DatasetMetadataSchema.validate(facts)
    (out / meds.dataset_metadata_filepath).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n")


def _write(frame: pl.DataFrame, schema: type, path: Path) -> None:
    """Write `frame` as the parquet file that `schema` (of the package meds) describes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(schema.align(frame.to_arrow()), path, compression="zstd", compression_level=9)


def read_events(meds_folder: Path, split: str | None = None) -> pl.DataFrame:
    """The events of a MEDS dataset, or of one of its splits, sorted by patient and time, static events first.

    Events of a patient at the same time keep the order they have on disk. Whose split is whose is read from
    metadata/subject_splits.parquet or, where that is absent, from the folders data/<split>/.

    Raises:
        InputError: where the folder is no MEDS dataset, or an event in it cannot be true.
    """
    folder = Path(meds_folder)
    files = sorted((folder / meds.data_subdirectory).rglob("*.parquet"))
    if not files:
        raise InputError(
            f"{folder} has no data/**/*.parquet: give the folder of a MEDS dataset, such as `sequela ingest` writes."
        )
    patients = pl.concat([_patients(path) for path in files])
    if patients.is_empty():
        raise InputError(f"{folder / 'data'} holds no events at all: check what the dataset was made from.")
    _check_one_file_each(patients)
    if split is not None:
        patients = _only(patients, split, folder)
    events = pl.concat([_read_file(Path(file)) for file in patients["file"].unique().sort()], how="diagonal")
    if split is not None:
        events = events.filter(pl.col("subject_id").is_in(patients["subject_id"].implode()))
    _check_births(events)
    events = events.select(column for column in SCHEMA if column in events.columns)
    return (
        events
        if _in_order(events)
        else events.sort("subject_id", "time", nulls_last=False, maintain_order=True)
    )


def _patients(path: Path) -> pl.DataFrame:
    """Who is in one file: `subject_id`, each once, and `file`."""
    _check_columns(path)
    patients = _read_parquet(path, ["subject_id"])["subject_id"].drop_nulls().unique().cast(pl.Int64)
    return pl.DataFrame(
        {"subject_id": patients, "file": [str(path)] * len(patients)}, schema_overrides={"file": pl.String}
    )


def _check_columns(path: Path) -> None:
    types = _parquet(path, pl.read_parquet_schema)
    for column in REQUIRED:
        if column not in types:
            raise InputError(f"{path} has no column '{column}': a MEDS file needs {', '.join(REQUIRED)}.")
    for column, (accepted, words) in ACCEPTED.items():
        if column in types and types[column].base_type() not in accepted:
            raise InputError(
                f"{path}, column '{column}' holds {types[column]}: convert it to {words}, as MEDS demands."
            )


def _read_file(path: Path) -> pl.DataFrame:
    """One file in the types of `SCHEMA`, plus `file` and `row` (from 1)."""
    raw = _read_parquet(path)
    if "numeric_value" not in raw.columns:
        raw = raw.with_columns(numeric_value=pl.lit(None, pl.Float32))
    for column in ("subject_id", "code"):
        if raw[column].null_count():
            row = raw[column].is_null().arg_max() + 1
            raise InputError(f"{path}, row {row}: '{column}' is missing; give it, or drop the event.")
    typed = raw.select(pl.col(column).cast(kind) for column, kind in SCHEMA.items() if column in raw.columns)
    return typed.with_columns(file=pl.lit(str(path)), row=pl.int_range(1, pl.len() + 1))


def _read_parquet(path: Path, columns: list[str] | None = None) -> pl.DataFrame:
    return _parquet(path, lambda file: pl.read_parquet(file, columns=columns, hive_partitioning=False))


def _parquet(path: Path, read: Callable[[Path], T]) -> T:
    try:
        return read(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        said = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"{path} cannot be read as parquet ({said}): copy or make it again.") from error


def _check_one_file_each(patients: pl.DataFrame) -> None:
    """A patient is in one file only, so in one split only: else the test set is not unseen."""
    twice = patients.filter(pl.col("subject_id").is_duplicated()).sort("subject_id", "file")
    if twice.height:
        (patient, first), (_, second) = twice.rows()[:2]
        raise InputError(
            f"{second}: patient {patient} is also in {first} ({twice['subject_id'].n_unique()} such patients); "
            "keep each patient in one file of one split."
        )


def _only(patients: pl.DataFrame, split: str, folder: Path) -> pl.DataFrame:
    """The patients of one split."""
    path = folder / meds.subject_splits_filepath
    if path.exists():
        table = _read_parquet(path)
        for column in ("subject_id", "split"):
            if column not in table.columns:
                raise InputError(f"{path} has no column '{column}': it needs subject_id and split.")
        twice = table.unique().filter(pl.col("subject_id").is_duplicated()).sort("subject_id", "split")
        if twice.height:
            patient, splits = twice["subject_id"][0], twice["split"].to_list()
            raise InputError(
                f"{path}: patient {patient} is in two splits, {splits[0]} and {splits[1]}; keep one row."
            )
        placed = patients.join(
            table.select(pl.col("subject_id").cast(pl.Int64), "split"), on="subject_id", how="left"
        )
    else:
        data = folder / meds.data_subdirectory
        parts = {file: Path(file).relative_to(data).parts[0] for file in patients["file"].unique()}
        placed = patients.with_columns(split=pl.col("file").replace_strict(parts))
    chosen = placed.filter(pl.col("split") == split)
    if chosen.is_empty():
        known = ", ".join(placed["split"].drop_nulls().unique().sort())
        raise InputError(
            f"{folder} has no patients in split '{split}': its splits are {known or 'not given'}."
        )
    return chosen


def _in_order(events: pl.DataFrame) -> bool:
    patient = events["subject_id"].to_numpy()
    time = events["time"].to_physical().fill_null(np.iinfo(np.int64).min).to_numpy()
    later = (patient[1:] > patient[:-1]) | ((patient[1:] == patient[:-1]) & (time[1:] >= time[:-1]))
    return bool(later.all())


def _check_births(events: pl.DataFrame) -> None:
    births = events.filter(pl.col("code") == BIRTH).group_by("subject_id").agg(birth=pl.col("time").min())
    early = events.join(births, on="subject_id").filter(pl.col("time") < pl.col("birth"))
    if early.height:
        first = early.sort("file", "row").row(0, named=True)
        raise InputError(
            f"{first['file']}, row {first['row']}: patient {first['subject_id']} has {first['code']} at "
            f"{first['time']}, before the birth at {first['birth']} ({early.height} such events); "
            "mend the times or drop these events."
        )
