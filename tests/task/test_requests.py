import polars as pl
import pytest

from sequela.errors import InputError
from sequela.record.dataset import read_events
from sequela.record.duration import DAY, MINUTE, SECOND
from sequela.record.questions import QUESTION
from sequela.task.requests import left_out, request, requests
from tests.task.conftest import at_day, make_task

AT = at_day(1)
TASK = make_task(exclude=("STROKE",))


def test_requests_ask_for_the_cohort_of_each_task(cohort_folder):
    other = make_task(name="other", offset=2 * DAY, ends=(), horizon=None)
    first, second = requests([TASK, other], cohort_folder)
    held_out = read_events(cohort_folder, "held_out")
    assert first.times.equals(TASK.prediction_times(held_out))
    assert second.times.equals(other.prediction_times(held_out))
    assert (first.outcome, first.ends, first.horizon_minutes) == (TASK.outcome, TASK.ends, 10 * DAY // MINUTE)
    assert (second.ends, second.horizon_minutes) == ((), None)


@pytest.mark.parametrize(
    ("change", "counted"),
    [
        ({}, "first"),
        ({"kind": "time"}, "first"),
        ({"kind": "count"}, "all"),
        ({"kind": "count", "above": 1.0}, "none"),
        ({"kind": "value"}, "none"),
        ({"at_least": 2}, "none"),
        ({"above": 1.0}, "none"),
    ],
)
def test_requests_say_which_outcomes_tell_the_answer(cohort_folder, change, counted):
    (asked,) = requests([make_task(**change)], cohort_folder)
    assert (asked.outcome, asked.ends, asked.counted) == (TASK.outcome, TASK.ends, counted)


def test_requests_can_be_for_the_first_few_patients(cohort_folder):
    few = requests([TASK], cohort_folder, patients=7)[0].times["subject_id"].to_list()
    assert few == TASK.prediction_times(read_events(cohort_folder, "held_out"))["subject_id"].to_list()[:7]


def test_requests_for_data_without_the_cohort(cohort_folder):
    with pytest.raises(InputError, match="cohort begins with the event ARRIVAL"):
        requests([make_task(after="ARRIVAL")], cohort_folder)


def given(*rows):
    frame = pl.DataFrame(
        list(rows), schema={"subject_id": pl.Int64, "prediction_time": pl.Int64}, orient="row"
    )
    return frame.cast({"prediction_time": pl.Datetime("us")})


def test_given_questions_take_the_place_of_cohorts(cohort_folder):
    held_out = read_events(cohort_folder, "held_out")["subject_id"].unique().sort().to_list()
    other = read_events(cohort_folder, "train")["subject_id"].min()
    questions = given(
        (held_out[0], at_day(3)), (held_out[0], at_day(5)), (held_out[4], at_day(3)), (other, at_day(3))
    )
    tasks = [TASK, make_task(name="other", offset=2 * DAY)]
    asked = requests(tasks, cohort_folder, questions=questions)
    assert [request.times.equals(questions[:3].sort("subject_id")) for request in asked] == [True, True]
    assert left_out(questions, asked).startswith("1 of 4 questions are left out")
    assert left_out(questions[:3], asked) == ""
    everyone = requests(tasks, cohort_folder, None, questions=questions)
    assert everyone[0].times.height == 4 and left_out(questions, everyone) == ""
    one = requests([TASK], cohort_folder, None, 1, questions=questions)[0].times
    assert one["subject_id"].unique().to_list() == [min(held_out[0], other)]


@pytest.mark.parametrize(
    ("horizon", "minutes"), [(None, None), (90 * SECOND, 1), (2 * MINUTE, 2), (30 * SECOND, 0)]
)
def test_the_horizon_of_a_clock_of_whole_minutes_is_the_last_one_inside(horizon, minutes):
    """An event 2 minutes later is beyond 90 seconds."""
    assert request(make_task(horizon=horizon), given((1, AT))).horizon_minutes == minutes


def test_questions_about_nobody_here_are_refused(cohort_folder):
    with pytest.raises(
        InputError, match="no question is about a patient in the split 'held_out' who is alive"
    ):
        requests([TASK], cohort_folder, questions=given((10**9, AT), (10**9 + 1, AT)))


def test_questions_about_the_dead_are_left_out_and_counted(cohort_folder):
    """At the moment of death a patient is still asked, as a cohort would; later, there is no future."""
    events = read_events(cohort_folder, "held_out")
    living = TASK.prediction_times(events)[:1]
    dead = events.filter(pl.col("code") == "MEDS_DEATH").select("subject_id", at=pl.col("time"))
    assert dead.height
    at = dead.select("subject_id", prediction_time="at")
    later = dead.select("subject_id", prediction_time=pl.col("at") + pl.duration(days=1))
    given = pl.concat([living, at, later]).unique().sort(QUESTION)
    (asked,) = requests([TASK], cohort_folder, questions=given)
    assert asked.times.equals(pl.concat([living, at]).unique().sort(QUESTION))
    assert left_out(given, [asked]).startswith(f"{later.height} of {given.height} questions are left out")
