"""The study of risks: its split, its thresholds, and its rows."""

import importlib
from pathlib import Path

import polars as pl
import pytest

from sequela.record.dataset import read_events
from sequela.record.splits import assigned_splits
from sequela.record.validate import read_parquet

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def risks(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    return importlib.import_module("risks")


def test_a_word_splits_the_same_patients_anew(risks, world_meds, tmp_path):
    for name, salt in (("a", "one"), ("b", "one"), ("c", "two")):
        risks.split_anew(world_meds, tmp_path / name, salt)
    a, b, c = (assigned_splits(tmp_path / name).sort("subject_id") for name in "abc")
    given = assigned_splits(world_meds).sort("subject_id")
    assert a.equals(b) and not a.equals(c) and not a.equals(given)
    assert a["subject_id"].equals(given["subject_id"])
    shares = [a.filter(split=split).height / a.height for split in ("train", "tuning", "held_out")]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.06)
    order = ["subject_id", "time", "code"]
    assert read_events(tmp_path / "a").sort(order).equals(read_events(world_meds).sort(order))
    theirs = pl.concat([read_parquet(path) for path in (tmp_path / "a/data/train").glob("*.parquet")])
    assert set(theirs["subject_id"]) == set(a.filter(split="train")["subject_id"])


def test_settings_are_chosen_without_those_who_are_held_out(risks, world_meds, tmp_path):
    risks.split_anew(world_meds, tmp_path / "whole", "one")
    risks.split_anew(world_meds, tmp_path / "chosen", "one", development=True)
    whole, chosen = assigned_splits(tmp_path / "whole"), assigned_splits(tmp_path / "chosen")
    kept = set(whole.filter(pl.col("split") != "held_out")["subject_id"])
    assert set(chosen["subject_id"]) == kept == set(read_events(tmp_path / "chosen")["subject_id"])
    assert set(chosen["split"]) == {"train", "tuning", "held_out"}
    moved = chosen.join(whole, on="subject_id").filter(pl.col("split") != pl.col("split_right"))
    assert moved.height > 0.1 * chosen.height  # by another word


@pytest.mark.parametrize(
    ("value", "threshold", "better", "met"),
    [
        (0.87, 0.87, "higher", True),
        (0.869, 0.87, "higher", False),
        (6.7, 6.7, "lower", True),
        (6.71, 6.7, "lower", False),
        (0.85, (0.85, 1.15), "near 1", True),
        (1.16, (0.85, 1.15), "near 1", False),
    ],
)
def test_a_threshold_is_reached_or_not(risks, value, threshold, better, met):
    assert risks.reaches(value, threshold, better) is met


def test_a_row_is_the_mean_of_the_seeds_and_stays_when_missed(risks):
    row = risks.Row("a claim", (0.8, 0.9), 0.86).as_dict()
    assert row["value"] == pytest.approx(0.85) and (row["low"], row["high"], row["met"]) == (0.8, 0.9, False)
    assert risks.Row("no threshold", (0.8,)).as_dict()["met"] is None
    spanned = risks.Row("of one model", (0.8,), 0.7, span=(0.6, 0.95)).as_dict()
    assert (spanned["low"], spanned["high"], spanned["met"]) == (0.6, 0.95, True)


def test_another_split_or_other_settings_have_a_folder_of_their_own(risks):
    names = {
        risks.folder_name("nafld", salt, quick, development, config)
        for salt in (risks.SALT, "another")
        for quick in (False, True)
        for development in (False, True)
        for config in (None, Path("w1.toml"))
    }
    assert len(names) == 16 and risks.folder_name("nafld", risks.SALT, False, False, None) == "nafld"
