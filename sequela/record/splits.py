"""Whose split is whose, looked up shard by shard without holding the whole table in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sequela.record.errors import InputError
from sequela.record.layout import DATA, SPLITS
from sequela.record.shards import Shard
from sequela.record.validate import assigned_splits

NONE = len(SPLITS)  # a patient of no split, or of one with another name


@dataclass(frozen=True)
class Assignment:
    """Patients int64 [P], sorted, and the row of each one's split in `SPLITS`, uint8 [P]; memory-mapped."""

    patient: np.ndarray
    split: np.ndarray

    @staticmethod
    def write(meds_folder: Path, out: Path) -> bool:
        """Sort metadata/subject_splits.parquet into the folder `out`; False where the dataset has no such file."""
        table = assigned_splits(Path(meds_folder))
        if table is None:
            return False
        table = table.unique("subject_id").sort("subject_id")
        known = table["split"].replace_strict(list(SPLITS), range(NONE), default=NONE).to_numpy()
        np.save(out / "patient.npy", table["subject_id"].to_numpy())
        np.save(out / "split.npy", known.astype(np.uint8))
        return True

    @staticmethod
    def open(folder: Path) -> Assignment | None:
        """What `write` wrote; None where it wrote nothing."""
        if not (folder / "split.npy").exists():
            return None
        patient, split = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("patient", "split"))
        return Assignment(patient, split)

    def of(self, patients: np.ndarray) -> np.ndarray:
        """The row in `SPLITS` of each patient [N], `NONE` for those who are in no split."""
        if not len(self.patient):
            return np.full(len(patients), NONE, np.uint8)
        at = np.minimum(np.searchsorted(self.patient, patients), len(self.patient) - 1)
        return np.where(self.patient[at] == patients, self.split[at], np.uint8(NONE))


def split_of_folder(shard: Shard, meds_folder: Path) -> int:
    """The split of all patients of a shard where no table assigns them: the folder data/<split>/ of its file."""
    part = shard.path.relative_to(Path(meds_folder) / DATA).parts[0]
    return SPLITS.index(part) if part in SPLITS else NONE


def check_patients_once(patients: list[np.ndarray], shards: list[Shard]) -> None:
    """A patient's rows lie together, in one shard: else a patient could be in training and in the test.

    Args:
        patients: the patients of each shard, int64, each once.

    Raises:
        InputError: naming a patient and two files.
    """
    every = np.sort(np.concatenate(patients))
    twice = every[1:][every[1:] == every[:-1]]
    if len(twice):
        first, second = [
            shard.path for shard, own in zip(shards, patients, strict=True) if np.isin(twice[0], own)
        ][:2]
        where = f"is also in {first}" if first != second else "stands in several places of it"
        raise InputError(
            f"{second}: patient {twice[0]} {where} ({len(np.unique(twice))} such patients); keep the rows of each "
            "patient together in one file, or let `sequela ingest meds` do it."
        )
