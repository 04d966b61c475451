import numpy as np
import polars as pl
import pytest

from sequela.errors import InputError
from sequela.record.schema import SPLITS
from sequela.record.shards import Shard
from sequela.record.splits import (
    NONE,
    Assignment,
    assigned_splits,
    check_patients_once,
    no_training_patients,
    patients_in_split,
    split_of_folder,
)


def table_of(meds, patients, splits):
    (meds / "metadata").mkdir(parents=True)
    pl.DataFrame({"subject_id": patients, "split": splits}).write_parquet(
        meds / "metadata" / "subject_splits.parquet"
    )


def test_the_patients_of_a_split_are_those_that_the_table_says_and_that_are_there(tmp_path):
    shards = [Shard(tmp_path / "data/train/0.parquet", 0, 1, 9), Shard(tmp_path / "data/b.parquet", 0, 1, 9)]
    there = [np.array([2, 5]), np.array([9])]
    assert patients_in_split("train", there, shards, tmp_path).tolist() == [2, 5], "by folders"
    table_of(tmp_path, [9, 2, 5, 7], ["held_out", "train", "another", "tuning"])
    assert patients_in_split("held_out", there, shards, tmp_path).tolist() == [9]
    assert patients_in_split("another", there, shards, tmp_path).tolist() == [5]
    with pytest.raises(InputError, match="'tuning': its splits are another, held_out, train"):
        patients_in_split("tuning", there, shards, tmp_path)


def test_a_table_that_is_none_is_refused(tmp_path):
    assert assigned_splits(tmp_path) is None
    table_of(tmp_path, [1, 2, 1], ["train", "train", "tuning"])
    with pytest.raises(InputError, match="patient 1 is in two splits, train and tuning"):
        assigned_splits(tmp_path)
    pl.DataFrame({"subject_id": [1]}).write_parquet(tmp_path / "metadata" / "subject_splits.parquet")
    with pytest.raises(InputError, match="no column 'split'"):
        assigned_splits(tmp_path)


@pytest.mark.parametrize(
    "kind",
    [pl.String, pl.Categorical, pl.Float64, pl.UInt64, pl.Decimal(18, 2)],
    ids=lambda kind: str(kind).split("(")[0],
)
def test_ids_of_another_type_are_the_same_patients(tmp_path, kind):
    ids = pl.Series(["11", "9", None]) if kind == pl.Categorical else pl.Series([11, 9, None])
    table_of(tmp_path, ids.cast(kind), ["train", "tuning", "train"])
    assert sorted(assigned_splits(tmp_path).rows()) == [(9, "tuning"), (11, "train")]


@pytest.mark.parametrize(
    ("ids", "word"),
    [
        (["1", "P2"], "row 2: 'subject_id' is not a whole number"),
        ([1.0, 2.5], "row 2: 'subject_id' is not a whole number"),
        ([1.0, 2.0**60], "row 2: 'subject_id' is not a whole number"),
        ([True, False], "'subject_id' holds Boolean: convert it"),
        ([b"1", b"2"], "'subject_id' holds Binary: convert it"),
    ],
)
def test_ids_that_are_no_whole_numbers_are_refused(tmp_path, ids, word):
    table_of(tmp_path, ids, ["train", "tuning"])
    with pytest.raises(InputError, match=word):
        assigned_splits(tmp_path)


def test_without_training_patients_the_sentence_says_which_splits_there_are(tmp_path):
    assert "has neither metadata/subject_splits.parquet nor folders data/train" in str(
        no_training_patients(tmp_path)
    )
    table_of(tmp_path, [1, 2], ["Train", "Test"])
    assert "knows Test, Train: call the splits train, tuning, held_out" in str(no_training_patients(tmp_path))


def test_the_table_is_looked_up_for_any_patients(tmp_path):
    meds = tmp_path / "meds"
    table_of(meds, [9, 2, 5, 7], ["held_out", "train", "tuning", "validation"])
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
