"""Who is asked again later: those still at risk, by a naive count over every timeline."""

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from sequela.errors import InputError
from sequela.record.duration import DAY, HOUR
from sequela.record.schema import DEATH, FOLLOW_UP_END
from sequela.record.timeline import timelines
from sequela.task.probing.landmarks import Landmark, at_offsets, landmarks_of, read_landmarks, still_at_risk
from tests.task.conftest import START, make_cohort, make_events, make_task

EVERYBODY = make_cohort(150)


def asked(questions: pl.DataFrame) -> set[tuple]:
    return set(questions.rows())


def naive(days: int) -> set[tuple]:
    """One timeline after the other: entry on day 0, asked a day later, and again `days` after that."""
    result = set()
    for timeline in timelines(EVERYBODY):
        entry = int(timeline.time[timeline.code == "ENTRY"][0])
        base, at = entry + DAY, entry + DAY + days * DAY
        times = {code: timeline.time[timeline.code == code].tolist() for code in ("STROKE", DEATH, FOLLOW_UP_END)}
        over = any(base <= time < at for time in times["STROKE"]) or any(time < at for time in times[DEATH])
        if not over and (times[DEATH] or timeline.end > at):
            result.add((timeline.patient, START + timedelta(days=(at - entry) / DAY)))
    return result


@pytest.mark.parametrize("days", [1, 5, 12])
def test_those_at_risk_are_those_of_a_naive_count(days: int) -> None:
    later = asked(still_at_risk(make_task(), EVERYBODY, days * DAY))
    assert later == naive(days)
    base = asked(make_task().prediction_times(EVERYBODY))
    assert len(later) < len(base)  # somebody is no longer at risk


def test_at_no_offset_it_is_the_cohort_of_the_task() -> None:
    (landmark,) = landmarks_of((), None)
    task = make_task()
    assert landmark.name == "0 days"
    assert landmark.questions(task, EVERYBODY).equals(task.prediction_times(EVERYBODY))


ONE_BY_ONE = make_events([
    (1, 0, "ENTRY"), (1, 3, "STROKE"), (1, 30, FOLLOW_UP_END),  # before the landmark of day 5
    (2, 0, "ENTRY"), (2, 5, "STROKE"), (2, 30, FOLLOW_UP_END),  # at it: yet to come
    (3, 0, "ENTRY"), (3, 4, DEATH), (3, 30, FOLLOW_UP_END),
    (4, 0, "ENTRY"), (4, 4, "HOME"), (4, 30, FOLLOW_UP_END),
    (5, 0, "ENTRY"), (5, 5, FOLLOW_UP_END),  # over at it
    (6, 0, "ENTRY"), (6, 5.5, FOLLOW_UP_END),
    (7, 0, "ENTRY"), (7, 2, "OLD"), (7, 30, FOLLOW_UP_END),
    (8, -2, "STROKE"), (8, -1, "HOME"), (8, 0, "ENTRY"), (8, 30, FOLLOW_UP_END),  # before the question: another story
])  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({}, {2, 4, 6, 7, 8}),
        ({"ends": (DEATH, "HOME")}, {2, 6, 7, 8}),
        ({"exclude": ("OLD",)}, {2, 4, 6, 8}),
        ({"at_least": 2}, {1, 2, 4, 6, 7, 8}),  # one stroke is not yet the outcome
        ({"kind": "count"}, {1, 2, 4, 6, 7, 8}),  # it may come again
        ({"kind": "value", "ends": (DEATH, "HOME")}, {1, 2, 6, 7, 8}),
        ({"kind": "time"}, {2, 4, 6, 7, 8}),
        ({"horizon": 2 * DAY}, {2, 4, 6, 7, 8}),  # a short horizon makes nobody safe
    ],
)
def test_what_takes_somebody_out(changes: dict, left: set[int]) -> None:
    later = still_at_risk(make_task(**changes), ONE_BY_ONE, 4 * DAY)
    assert set(later["subject_id"]) == left
    assert later["prediction_time"].unique().to_list() == [START + timedelta(days=5)]


def test_offsets_are_durations_in_order() -> None:
    each = at_offsets(["90 days", "6 hours", "0 days"])
    assert [(one.name, one.offset) for one in each] == [("0 days", 0), ("6 hours", 6 * HOUR), ("90 days", 90 * DAY)]
    with pytest.raises(InputError, match=r"`landmark` is 'soon'"):
        at_offsets(["soon"])
    with pytest.raises(InputError, match=r"'24 hours' is given twice"):
        at_offsets(["1 day", "24 hours"])


def test_a_label_file_names_its_landmarks_and_its_labels_are_not_read(tmp_path: Path) -> None:
    times = [START + timedelta(days=day) for day in (2, 4, 4, 6)]
    frame = pl.DataFrame({
        "subject_id": [1, 1, 3, 5], "prediction_time": times, "boolean_value": [True] * 4,
        "landmark": ["start of treatment", "progression", "progression", "progression"],
    })  # fmt: skip
    frame.write_parquet(tmp_path / "events.parquet")
    start, progression = read_landmarks(tmp_path / "events.parquet")
    assert (start.name, progression.name) == ("start of treatment", "progression")
    assert start.given.columns == ["subject_id", "prediction_time"]
    assert asked(start.questions(make_task(), ONE_BY_ONE)) == {(1, times[0])}
    # patient 5's record is over; patient 3 dies at that moment, which is yet to come
    assert asked(progression.questions(make_task(), ONE_BY_ONE)) == {(1, times[1]), (3, times[1])}
    frame.drop("landmark").write_parquet(tmp_path / "all.parquet")
    assert [landmark.name for landmark in landmarks_of(("0 days",), tmp_path / "all.parquet")] == ["0 days", "all"]


def test_two_landmarks_of_one_name_are_refused(tmp_path: Path) -> None:
    frame = pl.DataFrame({"subject_id": [1], "prediction_time": [START], "landmark": ["5 days"]})
    frame.write_parquet(tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"has a landmark called '5 days', as `landmark` does"):
        landmarks_of(("5 days",), tmp_path / "x.parquet")


@pytest.mark.parametrize("name", ["../elsewhere", "", None, "a/b", "all landmarks"])
def test_a_landmark_that_no_folder_can_be_called_is_refused(tmp_path: Path, name: str | None) -> None:
    frame = pl.DataFrame({"subject_id": [1], "prediction_time": [START], "landmark": [name]})
    frame.with_columns(pl.col("landmark").cast(pl.String)).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"'landmark' is .*give names of letters"):
        read_landmarks(tmp_path / "x.parquet")


def test_a_label_file_without_questions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"does not exist"):
        read_landmarks(tmp_path / "none.parquet")
    with pytest.raises(InputError, match=r"holds no question"):
        read_landmarks(tmp_path)


def test_the_dead_are_not_asked() -> None:
    given = pl.DataFrame({"subject_id": [3], "prediction_time": [START + timedelta(days=6)]})
    assert Landmark("x", None, given).questions(make_task(), ONE_BY_ONE).is_empty()
