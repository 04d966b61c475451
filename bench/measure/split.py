"""Splits by another hash than the package's, so that a study scores patients that nothing was chosen with."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import polars as pl

from sequela.record.dataset import read_frames, split_of, write_shard, write_splits

SALT = "first published"


def split_anew(meds: Path, out: Path, salt: str, *, development: bool = False) -> None:
    """Write the dataset `meds` to `out` with its patients split by a hash of their number and `salt`.

    Args:
        development: leave out those who are then held out, and split the others by another word.
    """
    tables = []
    for number, events in enumerate(read_frames(meds)):
        patients = events["subject_id"].unique().sort()
        split = split_by(salt, patients)
        if development:
            patients = patients.filter(split != "held_out")
            split = split_by(f"{salt}, development", patients)
            events = events.filter(pl.col("subject_id").is_in(patients.implode()))
        tables.append(pl.DataFrame({"subject_id": patients, "split": split}))
        write_shard(events, tables[-1], out, number)
    write_splits([pl.concat(tables).sort("subject_id")], out)
    for path in (meds / "metadata").iterdir():
        if not (out / "metadata" / path.name).exists():
            (out / "metadata" / path.name).write_bytes(path.read_bytes())


def split_by(salt: str, patients: pl.Series) -> pl.Series:
    """The split of each patient."""
    mask = np.int64(int.from_bytes(hashlib.sha256(salt.encode()).digest()[:7], "big"))
    return pl.Series(split_of(patients.to_numpy() ^ mask))
