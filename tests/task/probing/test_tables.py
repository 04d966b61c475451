"""What cannot be probed is said before anything is fitted."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from sequela.errors import InputError
from sequela.record.dataset import write_dataset, write_shard
from sequela.record.duration import DAY
from sequela.task.probing.landmarks import at_offsets
from sequela.task.probing.tables import ProbeTable, SplitEvents, build_tables, questions_asked
from tests.task.conftest import make_cohort, make_task


@pytest.fixture(scope="module")
def events(cohort_folder: Path) -> SplitEvents:
    return SplitEvents.read(cohort_folder)


def table(events: SplitEvents, *durations: str, pool: bool = False, **changes) -> ProbeTable:
    return build_tables([make_task(**changes)], at_offsets(durations or ["0 days"]), events, pool=pool)[-1]


def test_a_table_holds_the_questions_of_each_split(events: SplitEvents) -> None:
    each = build_tables([make_task()], at_offsets(["0 days", "3 days"]), events, pool=True)
    assert [one.name for one in each] == [f"stroke_10d at {name}" for name in ("0 days", "3 days", "all landmarks")]
    for split in ("train", "tuning", "held_out"):
        first, later, both = (one.rows[split] for one in each)
        assert 0 < later.height < first.height and both.height == first.height + later.height
        patients = set(events.recoded[split]["subject_id"])
        assert set(both["subject_id"]) <= patients
    assert questions_asked(each).height == sum(rows.height for rows in each[-1].rows.values())
    for one in each:
        one.check()


def answered(events: SplitEvents, split: str, label: pl.Expr, **changes) -> ProbeTable:
    made = table(events, **changes)
    return replace(made, rows=made.rows | {split: made.rows[split].with_columns(label=label)})


def test_one_class_and_few_of_one_are_refused(events: SplitEvents) -> None:
    none, everybody = pl.lit(0.0), pl.lit(1.0)
    with pytest.raises(InputError, match=r"all \d+ train patients with a known answer lack the outcome, and a probe"):
        answered(events, "train", none).check()
    with pytest.raises(InputError, match=r"all \d+ held_out patients with a known answer had the outcome"):
        answered(events, "held_out", everybody).check()
    four = (pl.int_range(pl.len()) < 4).cast(pl.Float64)
    with pytest.raises(InputError, match=r"4 had the outcome and \d+ had not, and a probe needs 5 of each"):
        answered(events, "train", four).check()
    answered(events, "tuning", four).check()
    with pytest.raises(InputError, match=r"0 tuning patients have a known answer, and a probe needs 2"):
        answered(events, "tuning", pl.lit(None, pl.Float64), kind="count").check()


def test_rows_of_a_few_patients_are_those_few(events: SplitEvents) -> None:
    made = answered(events, "train", (pl.int_range(pl.len()) < 12).cast(pl.Float64))
    one = made.rows["train"].with_columns(subject_id=pl.when(pl.col("label") == 1).then(1).otherwise("subject_id"))
    with pytest.raises(InputError, match=r"1 had the outcome"):
        replace(made, rows=made.rows | {"train": one}).check()


def test_a_horizon_that_nobody_is_followed_to_is_refused(events: SplitEvents) -> None:
    with pytest.raises(InputError, match=r"too many train patients were lost"):
        table(events, horizon=200 * DAY).check()


def test_a_landmark_without_anybody_is_refused(events: SplitEvents) -> None:
    with pytest.raises(InputError, match=r"stroke_10d at 90 days: no train patient is still at risk then"):
        table(events, "90 days")


def test_a_dataset_without_three_splits_is_refused(tmp_path: Path) -> None:
    write_dataset(make_cohort(20), tmp_path / "two", name="made", fractions=(0.7, 0.0, 0.3))
    with pytest.raises(InputError, match=r"has no patients in split 'tuning', and a probe learns on 'train'"):
        SplitEvents.read(tmp_path / "two")
    write_dataset(make_cohort(20), tmp_path / "meds", name="made", fractions=(0.4, 0.3, 0.3))
    path = tmp_path / "meds" / "metadata" / "subject_splits.parquet"
    frame = pl.read_parquet(path)
    pl.concat([frame, frame[:1].with_columns(split=pl.lit("other"))]).write_parquet(path)
    with pytest.raises(InputError, match=r"patient 0 is in two splits"):
        SplitEvents.read(tmp_path / "meds")
    path.unlink()
    splits = pl.DataFrame({"subject_id": [0], "split": ["train"]})
    write_shard(make_cohort(1), splits, tmp_path / "meds", 7)
    with pytest.raises(InputError, match=r"patient 0 is also in"):
        SplitEvents.read(tmp_path / "meds")
