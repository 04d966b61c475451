"""Questions as settings: tasks are read, and nothing asked is refused."""

from pathlib import Path

import polars as pl
import pytest

import sequela
from sequela.errors import InputError
from sequela.record.dataset import read_events
from sequela.serve.ask import AskSettings


def test_tasks_are_part_of_what_a_stage_made() -> None:
    asked = AskSettings(("death_5y",), patients=3).identity()
    assert [task["name"] for task in asked["tasks"]] == ["death_5y"]
    assert (asked["split"], asked["patients"]) == ("held_out", 3)


def test_nothing_asked_is_refused() -> None:
    with pytest.raises(InputError, match="name one or more tasks with `task`"):
        AskSettings().tasks()


def test_labels_say_when_but_not_what(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="says who is asked and when, but not what: name the outcome with `task`"):
        AskSettings(labels=tmp_path).tasks()


def test_questions_of_a_label_file_are_asked_and_its_labels_never_read(
    small_demo: Path, tmp_path: Path
) -> None:
    """Files that differ in labels only lead to the same futures; a patient of another split is left out."""
    meds = small_demo / "meds"
    ends = read_events(meds, "held_out").drop_nulls("time").group_by("subject_id").agg(pl.col("time").max())
    known = ends.sort("subject_id").head(8).select("subject_id", prediction_time=pl.col("time") - pl.duration(days=1))
    elsewhere = known.head(1).with_columns(subject_id=pl.lit(read_events(meds, "train")["subject_id"].min(), pl.Int64))
    said: list[str] = []
    for name, labels in (("a", [True] * 9), ("b", [False] * 9)):
        frame = pl.concat([known, elsewhere]).with_columns(boolean_value=pl.Series(labels))
        frame.write_parquet(tmp_path / f"{name}.parquet")
        done = sequela.simulate(
            small_demo / "model", meds, tmp_path / f"of-{name}", task="death_5y",
            labels=tmp_path / f"{name}.parquet", rollouts=2, limit=16, say=said.append,
        )  # fmt: skip
        assert done["result"]["histories"] == 8
    assert "1 of 9 questions are left out" in said[0]
    first, second = (pl.read_parquet(tmp_path / f"of-{name}" / "rollouts.parquet") for name in "ab")
    assert first.equals(second)
    assert set(first["prediction_time"]) == set(known["prediction_time"])
    answers = sequela.predict(
        tmp_path / "of-a", meds, tmp_path / "predictions", task="death_5y", baselines=False
    )
    assert answers["result"]["death_5y"]["patients"] == 8
    with pytest.raises(InputError, match="leave out `labels`"):
        sequela.predict(tmp_path / "of-a", meds, tmp_path / "no", task="death_5y", labels=tmp_path / "a.parquet")
