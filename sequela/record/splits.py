"""The split of each patient, from metadata/subject_splits.parquet or else from the folders data/<split>/."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from sequela.errors import InputError
from sequela.record.schema import DATA, HELD_OUT, SPLITS, SPLITS_FILE, TRAIN, TUNING
from sequela.record.shards import Shard
from sequela.record.validate import read_parquet

EXACT = 2**53  # beyond, a floating-point number may stand for its neighbor
NONE = len(SPLITS)  # no split, or a split with another name


def assigned_splits(meds_folder: Path) -> pl.DataFrame | None:
    """Rows (subject_id, split) of metadata/subject_splits.parquet; None if that file does not exist.

    Raises:
        InputError: if it lacks a column, a patient is no whole number, or a patient is in two splits.
    """
    path = Path(meds_folder) / SPLITS_FILE
    if not path.exists():
        return None
    table = read_parquet(path)
    for column in ("subject_id", "split"):
        if column not in table.columns:
            raise InputError(f"{path} has no column '{column}': it needs subject_id and split.")
    table = table.with_columns(_whole(table["subject_id"], path), pl.col("split").cast(pl.String))
    table = table.select("subject_id", "split").drop_nulls("subject_id").unique()
    twice = table.filter(pl.col("subject_id").is_duplicated()).sort("subject_id", "split")
    if twice.height:
        patient, first, second = twice["subject_id"][0], *twice["split"][:2]
        raise InputError(f"{path}: patient {patient} is in two splits, {first} and {second}; keep one row.")
    return table


def _whole(patients: pl.Series, path: Path) -> pl.Series:
    """Patient ids as whole numbers, which other programs also write as text, as decimals, or with a fraction of 0."""
    known = patients.cast(pl.String) if patients.dtype.base_type() in (pl.Categorical, pl.Enum) else patients
    if known.dtype not in (pl.String, pl.Null) and not known.dtype.is_numeric():
        raise InputError(f"{path}, column 'subject_id' holds {known.dtype}: convert it to whole numbers.")
    number = known.cast(pl.Int64, strict=False)
    wrong = number.is_null() & known.is_not_null()
    if known.dtype.is_numeric():
        wrong |= (number != known).fill_null(False)
    if known.dtype.is_float():
        wrong |= (known.abs() > EXACT).fill_null(False)
    if wrong.any():
        raise InputError(
            f"{path}, row {wrong.arg_max() + 1}: 'subject_id' is not a whole number; write the numbers that the events "
            f"have ({wrong.sum()} such rows)."
        )
    return number


def patients_in_split(
    split: str, patients: list[np.ndarray], shards: list[Shard], meds_folder: Path
) -> np.ndarray:
    """The patients of one split, int64 [P].

    Args:
        split: any split name in the dataset.
        patients: the patients of each shard.

    Raises:
        InputError: if the split has no patients.
    """
    assigned = assigned_splits(meds_folder)
    if assigned is None:
        parts = [_folder_of(shard, meds_folder) for shard in shards]
        matching = [ids for ids, part in zip(patients, parts, strict=True) if part == split]
        chosen, known = np.concatenate([np.zeros(0, np.int64), *matching]), set(parts)
    else:
        there = assigned.filter(pl.col("subject_id").is_in(np.concatenate(patients)))
        chosen = there.filter(pl.col("split") == split)["subject_id"].to_numpy()
        known = set(there["split"].drop_nulls())
    if not len(chosen):
        raise InputError(
            f"{meds_folder} has no patients in split '{split}': its splits are "
            f"{', '.join(sorted(known)) or 'unknown'}."
        )
    return chosen


@dataclass(frozen=True)
class Assignment:
    """The split of every patient, memory-mapped so that several processes can look up their own patients.

    Attributes:
        patient: int64 [P], sorted.
        split: uint8 [P], indices into `SPLITS`, or `NONE`.
    """

    patient: np.ndarray
    split: np.ndarray

    @staticmethod
    def write(meds_folder: Path, out: Path) -> bool:
        """Write metadata/subject_splits.parquet, sorted, to the folder `out`; False if the dataset has no such file."""
        table = assigned_splits(meds_folder)
        if table is None:
            return False
        table = table.sort("subject_id")
        known = table["split"].replace_strict(list(SPLITS), range(NONE), default=NONE).to_numpy()
        np.save(out / "patient.npy", table["subject_id"].to_numpy())
        np.save(out / "split.npy", known.astype(np.uint8))
        return True

    @staticmethod
    def open(folder: Path) -> Assignment | None:
        """Open what `write` wrote; None if it wrote nothing."""
        if not (folder / "split.npy").exists():
            return None
        patient, split = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("patient", "split"))
        return Assignment(patient, split)

    def of(self, patients: np.ndarray) -> np.ndarray:
        """The index into `SPLITS` of each patient [N]; `NONE` for patients in no split."""
        if not len(self.patient):
            return np.full(len(patients), NONE, np.uint8)
        at = np.minimum(np.searchsorted(self.patient, patients), len(self.patient) - 1)
        return np.where(self.patient[at] == patients, self.split[at], np.uint8(NONE))


def no_training_patients(meds_folder: Path) -> InputError:
    """The error for a dataset without a patient in split "train"."""
    path = Path(meds_folder) / SPLITS_FILE
    if path.exists():
        known = sorted(assigned_splits(meds_folder)["split"].drop_nulls().unique().head(5))
        table = f"{SPLITS_FILE} knows {', '.join(known) or 'no split'}: call the splits {', '.join(SPLITS)}"
    else:
        table = (
            f"it has neither {SPLITS_FILE} nor folders {DATA}/{TRAIN}, {DATA}/{TUNING} and {DATA}/{HELD_OUT}: "
            "add one of them"
        )
    return InputError(
        f"{meds_folder} has no patients in split '{TRAIN}'; {table}, or let `sequela ingest meds` assign the splits."
    )


def split_of_folder(shard: Shard, meds_folder: Path) -> int:
    """The split of a shard's patients if no table assigns them: from the folder data/<split>/ of its file."""
    part = _folder_of(shard, meds_folder)
    return SPLITS.index(part) if part in SPLITS else NONE


def _folder_of(shard: Shard, meds_folder: Path) -> str:
    return shard.path.relative_to(Path(meds_folder) / DATA).parts[0]


def check_patients_once(patients: list[np.ndarray], shards: list[Shard]) -> None:
    """Check that all rows of a patient are in one shard: otherwise a patient could be in both training and test.

    Args:
        patients: the distinct patients of each shard, int64.

    Raises:
        InputError: naming a patient and two files.
    """
    every = np.sort(np.concatenate(patients))
    twice = every[1:][every[1:] == every[:-1]]
    if len(twice):
        first, second = [
            shard.path for shard, ids in zip(shards, patients, strict=True) if np.isin(twice[0], ids)
        ][:2]
        where = f"is also in {first}" if first != second else "occurs in several places in it"
        raise InputError(
            f"{second}: patient {twice[0]} {where} ({len(np.unique(twice))} such patients); keep all rows of a "
            "patient together in one file, or let `sequela ingest meds` do it."
        )
