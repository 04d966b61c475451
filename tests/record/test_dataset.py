"""MEDS datasets: what is written is read back, and splits stay what they are."""

import json

import meds
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from sequela.errors import InputError
from sequela.record.dataset import read_events, read_frames, split_of


def test_what_is_written_is_read_back(events, dataset):
    assert read_events(dataset).equals(events), "also the order of events at the same time"


def test_splits_are_disjoint_and_complete(events, dataset):
    parts = [read_events(dataset, split) for split in ("train", "tuning", "held_out")]
    assert sum(part.height for part in parts) == events.height
    assert pl.concat(parts).sort("subject_id", maintain_order=True).equals(events)
    for part, split in zip(parts, ("train", "tuning", "held_out"), strict=True):
        assert set(split_of(part["subject_id"].to_numpy())) == {split}


def test_only_the_patients_that_are_asked_for_are_read(events, dataset):
    assert read_events(dataset, patients=[7, 30, 99]).equals(
        events.filter(pl.col("subject_id").is_in([7, 30]))
    )
    train = read_events(dataset, "train")["subject_id"].unique()
    both = read_events(dataset, "train", patients=range(1, 20))["subject_id"].unique().sort()
    assert both.to_list() == sorted(set(train) & set(range(1, 20)))
    none = read_events(dataset, patients=[])
    assert none.is_empty() and none.schema == events.schema


def test_a_shard_without_anybody_asked_for_is_not_read(events, dataset):
    path = dataset / "data/tuning/0.parquet"
    tuning = pl.read_parquet(path)
    tuning.with_columns(numeric_value=pl.lit(float("inf"), pl.Float32)).write_parquet(path)
    assert len(list(read_frames(dataset, "train"))) == 1
    with pytest.raises(InputError, match="infinite"):
        list(read_frames(dataset))


def test_files_are_meds(dataset):
    for path in dataset.glob("data/*/0.parquet"):
        meds.DataSchema.validate(pq.read_table(path))
    meds.SubjectSplitSchema.validate(pq.read_table(dataset / "metadata/subject_splits.parquet"))
    meds.CodeMetadataSchema.validate(pq.read_table(dataset / "metadata/codes.parquet"))
    facts = json.loads((dataset / "metadata/dataset.json").read_text())
    meds.DatasetMetadataSchema.validate(facts)
    assert facts["dataset_name"] == "toy"
    codes = pl.read_parquet(dataset / "metadata/codes.parquet")
    assert dict(codes.select("code", "description").rows())["LAB//HB"] == "Haemoglobin"
    assert codes["code"].is_sorted() and codes.height == 5


def test_splits_never_change():
    # Another answer would move patients from the training into the test set.
    # splitmix64's published first outputs: 0xE220A8397B1DCDAF for seed 0, 6457827717110365317 for seed 1234567
    assert 0.88 < 0xE220A8397B1DCDAF / 2**64 < 0.89 and 0.35 < 6457827717110365317 / 2**64 < 0.36
    assert split_of(np.array([0]), (0.88, 0.01, 0.11)) == "tuning"
    assert split_of(np.array([1234567]), (0.35, 0.01, 0.64)) == "tuning"
    expected = ["train", "held_out", "train", "train"]
    assert split_of(np.array([-5, 0, 1, 2**62])).tolist() == expected


def test_shares_of_the_splits():
    split = split_of(np.arange(20_000), (0.5, 0.2, 0.3))
    shares = [np.mean(split == name) for name in ("train", "tuning", "held_out")]
    assert np.allclose(shares, (0.5, 0.2, 0.3), atol=0.01)
    assert set(split_of(np.arange(500), (1.0, 0.0, 0.0))) == {"train"}


@pytest.mark.parametrize("fractions", [(0.5, 0.5, 0.5), (1.2, -0.2, 0.0), (0.5, 0.5)])
def test_shares_that_are_none(fractions):
    with pytest.raises(InputError, match="sum to 1"):
        split_of(np.arange(3), fractions)
