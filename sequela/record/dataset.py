"""Reads and writes MEDS datasets. Data from any source is checked when it is read.

In memory, events are a polars frame sorted by patient and time: `subject_id` Int64, `time` Datetime[us] (null for
static events, which come first), `code` String, `numeric_value` Float32 (null for none) and, if any event has one,
`text_value` String (free text) and `media` String (the path of a file relative to the dataset's folder).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from sequela.errors import InputError
from sequela.record.schema import CODES_FILE, DATA, FACTS_FILE, FRACTIONS, SPLITS, SPLITS_FILE
from sequela.record.shards import codes_in, patients_of, read_frame, shards_of
from sequela.record.splits import check_patients_once, patients_in_split

EVENTS = {
    "subject_id": pl.Int64,
    "time": pl.Datetime("us"),
    "code": pl.String,
    "numeric_value": pl.Float32,
}


def split_of(patients: np.ndarray, fractions: tuple[float, float, float] = FRACTIONS) -> np.ndarray:
    """The split of each patient, from a hash of the patient id alone.

    A patient is in the same split in every version, on every machine and in every extract of the data.

    Args:
        patients: int64 [N].
        fractions: shares of train, tuning and held_out, which sum to 1.

    Returns:
        str [N], each of "train", "tuning", "held_out".
    """
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise InputError(f"fractions are {fractions}: give three nonnegative shares that sum to 1.")
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
    fractions: tuple[float, float, float] = FRACTIONS,
    descriptions: dict[str, str] | None = None,
    metadata: dict | None = None,
) -> None:
    """Write sorted `events` to the folder `out` as a MEDS 0.4 dataset with three splits.

    Args:
        descriptions: code -> description, for people; other codes get null.
        metadata: further fields of `dataset.json` (license, version, notes).
    """
    out = Path(out)
    patients = events["subject_id"].unique().sort()
    splits = pl.DataFrame({"subject_id": patients, "split": split_of(patients.to_numpy(), fractions)})
    write_shard(events, splits, out, 0)
    write_splits([splits], out)
    counted = events.group_by("code").agg(events=pl.len(), patients=pl.col("subject_id").n_unique())
    write_codes(counted.with_columns(unit=pl.lit(None, pl.String)), out, descriptions or {})
    write_facts(out, name, metadata or {})


def write_shard(events: pl.DataFrame, splits: pl.DataFrame, out: Path, number: int) -> None:
    """Write sorted `events` to data/<split>/<number>.parquet, one file per split that occurs.

    Args:
        splits: rows (subject_id, split), one per patient.
    """
    import meds

    for split in splits["split"].unique().sort():
        patients = splits.filter(pl.col("split") == split)["subject_id"]
        chosen = pl.col("subject_id").is_in(patients.implode())
        frame = events if len(patients) == len(splits) else events.filter(chosen)
        path = out / DATA / split / f"{number}.parquet"
        _write(frame.with_columns(pl.col("code").cast(pl.String)), meds.DataSchema, path)


def write_splits(tables: Iterable[pl.DataFrame], out: Path) -> None:
    """Write metadata/subject_splits.parquet from rows (subject_id, split), sorted by patient."""
    import meds

    path = out / SPLITS_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = meds.SubjectSplitSchema.schema()
    with pq.ParquetWriter(path, schema, compression="zstd", compression_level=9) as file:
        for table in tables:
            file.write_table(meds.SubjectSplitSchema.align(table.to_arrow()))


def write_codes(
    counted: pl.DataFrame,
    out: Path,
    descriptions: dict[str, str],
    parents: dict[str, list[str]] | None = None,
) -> None:
    """Write metadata/codes.parquet from rows (code, events, patients, unit), one per code."""
    import meds

    counted = counted.sort("code")
    above = [(parents or {}).get(code) for code in counted["code"]]
    table = counted.select(
        "code",
        description=pl.Series([descriptions.get(code) for code in counted["code"]], dtype=pl.String),
        parent_codes=pl.Series(above, dtype=pl.List(pl.String)),
        events=pl.col("events").cast(pl.Int64),
        patients=pl.col("patients").cast(pl.Int64),
        unit="unit",
    )
    _write(table, meds.CodeMetadataSchema, out / CODES_FILE)


def write_facts(out: Path, name: str, metadata: dict) -> None:
    """Write metadata/dataset.json."""
    import meds

    facts = {"dataset_name": name, "etl_name": "sequela", "meds_version": meds.__version__} | metadata
    meds.DatasetMetadataSchema.validate(facts)
    (out / FACTS_FILE).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write(frame: pl.DataFrame, schema: type, path: Path) -> None:
    """Write `frame` as the parquet file that `schema` (of the package meds) describes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(schema.align(frame.to_arrow()), path, compression="zstd", compression_level=9)


def read_events(
    meds_folder: Path, split: str | None = None, patients: Iterable[int] | None = None
) -> pl.DataFrame:
    """The events of a MEDS dataset, sorted by patient and time; `split` and `patients` select as in `read_frames`.

    Raises:
        InputError: see `read_frames`.
    """
    none = pl.DataFrame(schema=EVENTS)
    events = pl.concat([none, *read_frames(meds_folder, split, patients)], how="diagonal")
    return events if events["subject_id"].is_sorted() else events.sort("subject_id", maintain_order=True)


def read_frames(
    meds_folder: Path, split: str | None = None, patients: Iterable[int] | None = None
) -> Iterator[pl.DataFrame]:
    """The events of a MEDS dataset, one shard at a time; each has whole patients and is sorted.

    Simultaneous events of a patient keep their order on disk.

    Args:
        split: only patients of this split; None for all.
        patients: only these patients; None for all. Shards without any of them are not read.

    Raises:
        InputError: if the folder is not a MEDS dataset, has no patients in the split, or has an impossible event.
    """
    folder = Path(meds_folder)
    shards = shards_of(folder)
    by_shard = [patients_of(shard) for shard in shards]
    check_patients_once(by_shard, shards)
    filters = [] if patients is None else [np.fromiter(patients, np.int64)]
    filters += [] if split is None else [patients_in_split(split, by_shard, shards, folder)]
    for shard, here in zip(shards, by_shard, strict=True):
        keep = np.logical_and.reduce([np.isin(here, allowed) for allowed in filters], axis=0)
        kept = here[keep] if filters else here
        if len(kept):
            events = read_frame(shard)
            chosen = pl.col("subject_id").is_in(pl.Series(kept).implode())
            yield events if len(kept) == len(here) else events.filter(chosen)


def codes_of(meds_folder: Path) -> list[str]:
    """The distinct codes of a MEDS dataset, sorted.

    Raises:
        InputError: if the folder is not a MEDS dataset.
    """
    return sorted(set().union(*(codes_in(shard) for shard in shards_of(Path(meds_folder)))))
