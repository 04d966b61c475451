import numpy as np
import polars as pl
import pytest

from sequela.record.errors import InputError
from sequela.record.layout import SPLITS
from sequela.record.shards import Shard
from sequela.record.splits import NONE, Assignment, check_patients_once, split_of_folder


def test_the_table_is_looked_up_for_any_patients(tmp_path):
    meds = tmp_path / "meds"
    (meds / "metadata").mkdir(parents=True)
    table = {"subject_id": [9, 2, 5, 7], "split": ["held_out", "train", "tuning", "validation"]}
    pl.DataFrame(table).write_parquet(meds / "metadata" / "subject_splits.parquet")
    assert Assignment.write(meds, tmp_path)
    found = Assignment.open(tmp_path).of(np.array([2, 5, 9, 7, 1, 100]))
    assert [SPLITS[row] if row != NONE else None for row in found] == [
        "train",
        "tuning",
        "held_out",
        None,
        None,
        None,
    ]


def test_without_a_table_the_folder_decides(tmp_path):
    assert not Assignment.write(tmp_path, tmp_path) and Assignment.open(tmp_path) is None
    where = tmp_path / "data" / "tuning" / "0.parquet"
    assert SPLITS[split_of_folder(Shard(where, 0, 1, 9), tmp_path)] == "tuning"
    assert split_of_folder(Shard(tmp_path / "data" / "0.parquet", 0, 1, 9), tmp_path) == NONE


def test_a_patient_in_two_shards_is_refused(tmp_path):
    shards = [Shard(tmp_path / name, 0, 1, 9) for name in ("a", "b", "b")]
    check_patients_once([np.array([1, 2]), np.array([3]), np.array([4])], shards)
    with pytest.raises(InputError, match="patient 3 is also in"):
        check_patients_once([np.array([1, 3]), np.array([3]), np.array([4])], shards)
    with pytest.raises(InputError, match="several places"):
        check_patients_once([np.array([1]), np.array([3]), np.array([3])], shards)
