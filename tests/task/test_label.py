from dataclasses import replace
from datetime import datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sequela.record.duration import DAY, UNITS
from sequela.record.spelling import matches_code
from sequela.record.timeline import Timeline, timelines
from sequela.task.catalog import load_task
from sequela.task.label import labels
from sequela.task.task import Task
from tests.task.conftest import at_day, make_events, make_task
from tests.task.test_task import RULE

CODES = [
    "ENTRY", "STROKE", "MI//1", "MI//2", "MEDS_DEATH", "MEDS_DEATH//X", "LAB//A", "FOLLOW_UP//END",
    "ICD10CM//I21.4", "icd10cm//i214", "ICD10CM//I21",
]  # fmt: skip
NUMBERS = [None, 1.0, 6.7, 9.0, float("nan")]
# a coarse grid of days, so that events often meet the prediction time, the horizon and each other
rows = st.lists(
    st.tuples(
        st.integers(1, 3),
        st.one_of(st.none(), st.integers(-2, 8)),
        st.sampled_from(CODES),
        st.sampled_from(NUMBERS),
    ),
    min_size=1,
    max_size=14,
)
tasks = st.builds(
    make_task,
    outcome=st.sampled_from([("STROKE",), ("MI//*",), ("MI//1", "STROKE"), ("ICD10CM//I214",)]),
    ends=st.sampled_from([(), ("MEDS_DEATH",), ("MEDS_DEATH", "LAB//*")]),
    horizon=st.sampled_from([None, 2 * DAY, 5 * DAY]),
)
bounds = {"above": st.sampled_from([None, 0.5, 6.7]), "below": st.sampled_from([None, 6.7, 8.0])}
others = st.builds(
    make_task,
    kind=st.sampled_from(["binary", "time", "count", "value"]),
    outcome=st.sampled_from([("STROKE",), ("MI//*", "STROKE")]),
    ends=st.sampled_from([(), ("MEDS_DEATH",), ("MEDS_DEATH", "LAB//*")]),
    horizon=st.sampled_from([2 * DAY, 5 * DAY, 12 * DAY]),
    **bounds,
)
repeated = st.builds(
    lambda task, **changes: Task.of(task.as_dict() | changes),
    others, kind=st.sampled_from(["binary", "time"]), at_least=st.integers(1, 3),
)  # fmt: skip
times_of_stay = st.just(make_task(kind="time", outcome=("STROKE", "MEDS_DEATH"), ends=(), horizon=None))


def oracle(task: Task, events: pl.DataFrame, times: pl.DataFrame) -> list[float | None]:
    by_patient = {timeline.patient: timeline for timeline in timelines(events)}
    asked = zip(times["subject_id"], times["prediction_time"].to_physical(), strict=True)
    return [task.label(by_patient[patient], at) for patient, at in asked]


def how(task: Task, timeline: Timeline, at: int) -> str:
    """What decided, told from the answer."""
    answer, limit = task.label(timeline, at), None if task.horizon is None else at + task.horizon
    if task.kind != "count" and answer not in (None, 0 if task.kind == "binary" else None):
        return "outcome"
    inside = [at <= time <= (time if limit is None else limit) for time in timeline.time]
    if any(inside[i] and matches_code(code, task.ends) for i, code in enumerate(timeline.code)):
        return "end"
    followed = limit is not None and timeline.end is not None and timeline.end >= limit
    return "horizon" if followed else "censored"


def ask(events: pl.DataFrame, days: list[int]) -> pl.DataFrame:
    patients = events.select(pl.col("subject_id").unique().sort())
    at = pl.DataFrame({"prediction_time": [at_day(day) for day in days]}).cast(pl.Datetime("us"))
    return patients.join(at, how="cross")


@settings(max_examples=250, deadline=None)
@given(rows, st.one_of(tasks, times_of_stay, others, repeated))
def test_the_fast_labels_are_those_of_the_rule(rows, task):
    events = make_events(rows)
    times = ask(events, [-1, 0, 1])  # several questions about one patient
    answered = labels(task, events, times)
    assert answered["label"].to_list() == oracle(task, events, times)
    by_patient = {timeline.patient: timeline for timeline in timelines(events)}
    asked = zip(times["subject_id"], times["prediction_time"].to_physical(), strict=True)
    assert answered["decided"].to_list() == [how(task, by_patient[patient], at) for patient, at in asked]
    assert (answered.filter(decided="horizon")["until_days"] == (task.horizon or 0) / DAY).all()


def test_the_fast_labels_follow_the_rule_case_by_case():
    events = make_events([(k, *row) for k, (rows, _) in enumerate(RULE) for row in rows])
    answered = labels(make_task(), events, ask(events, [1]))
    assert answered["label"].to_list() == [answer for _, answer in RULE]


@pytest.mark.parametrize(
    "change",
    [{"ends": ()}, {"horizon": 5 * DAY - 1}, {"outcome": ("MI//1",)}, {"at_least": 2}, {"above": 0.0}],
)
def test_a_slightly_different_rule_gives_different_labels(change):
    """The negative control: the comparison above does tell rules apart."""
    task = make_task(outcome=("STROKE", "MI//1"), horizon=5 * DAY)
    events = make_events(
        [
            (1, 0, "MEDS_DEATH"),
            (1, 1, "STROKE"),
            (2, 5, "STROKE"),
            (2, 9, "LAB//A"),
            (3, 2, "STROKE"),
            (3, 3, "MI//1"),
        ]
    )
    times = ask(events, [0])
    assert labels(Task.of(task.as_dict() | change), events, times)["label"].to_list() != oracle(
        task, events, times
    )


@settings(max_examples=60, deadline=None)
@given(
    rows,
    st.lists(st.integers(0, 9), min_size=6, max_size=6),
    st.lists(st.booleans(), min_size=6, max_size=6),
    st.one_of(tasks, others, repeated),
)
def test_imagined_futures_are_labelled_as_history_then_future(rows, ends, cuts, task):
    """Two rollouts a patient, each with an end of its own; the history must not count."""
    history = make_events([(patient, -1, "STROKE") for patient in (1, 2, 3)] + [(1, -2, "MEDS_DEATH")])
    at = at_day(0)
    future = make_events(
        [row for row in rows if row[1] is not None and row[1] >= 0 and row[2] != "FOLLOW_UP//END"]
    )
    questions = pl.DataFrame(
        {
            "subject_id": [1, 1, 2, 2, 3, 3],
            "prediction_time": pl.Series([at] * 6).cast(pl.Datetime("us")),
            "rollout": pl.Series([0, 1] * 3, dtype=pl.Int32),
            "end": pl.Series([at_day(end) for end in ends]).cast(pl.Datetime("us")),
            "cut": cuts,
        }
    )
    # the first rollout has every event, the second only the strokes
    both = [future, future.filter(pl.col("code") == "STROKE")]
    imagined = pl.concat(
        part.with_columns(
            prediction_time=pl.lit(at).cast(pl.Datetime("us")), rollout=pl.lit(number, pl.Int32)
        )
        for number, part in enumerate(both)
    )
    expected = []
    pasts = {timeline.patient: timeline for timeline in timelines(history)}
    futures = [{timeline.patient: timeline for timeline in timelines(part)} for part in both]
    for (patient, rollout), end, cut in zip(
        questions.select("subject_id", "rollout").rows(), ends, cuts, strict=True
    ):
        nothing = replace(pasts[patient].since(at_day(99)), end=None)
        ahead = replace(futures[rollout].get(patient, nothing), end=at_day(end), cut=cut)
        expected.append(task.label(pasts[patient].until(at).then(ahead), at))
    assert labels(task, imagined, questions)["label"].to_list() == expected


@pytest.mark.parametrize(
    ("rows", "end", "whole", "cut"),
    [
        ([(1, 4, "MEDS_DEATH")], 4, 0, None),  # a stroke could come at the same moment
        ([(1, 4, "MEDS_DEATH")], 5, 0, 0),
        ([(1, 4, "MEDS_DEATH"), (1, 4, "STROKE")], 4, 1, 1),
        ([(1, 4, "STROKE")], 4, 1, 1),
        ([], 11, 0, None),  # at the horizon
        ([], 12, 0, 0),
        ([], 10, None, None),
    ],
)
def test_a_future_that_stops_within_a_moment_does_not_know_that_moment(rows, end, whole, cut):
    times = ask(make_events([(1, 0, "ENTRY")]), [1]).with_columns(
        end=pl.lit(at_day(end)).cast(pl.Datetime("us"))
    )
    for stopped, expected in ((False, whole), (True, cut)):
        answered = labels(make_task(), make_events(rows), times.with_columns(cut=stopped))
        assert answered["label"].to_list() == [expected]
        assert answered["decided"][0] == {None: "censored", 1: "outcome", 0: "end" if rows else "horizon"}[expected]
        count = labels(make_task(kind="count"), make_events(rows), times.with_columns(cut=stopped))
        passed = end in (5, 12)  # of an end, or of the horizon
        reached = end == 11 or (1, 4, "MEDS_DEATH") in rows
        assert count["label"].is_not_null().to_list() == [passed or (reached and not stopped)]


def test_until_days_is_when_the_answer_was_known():
    events = make_events(
        [
            (1, 4, "STROKE"), (1, 30, "FOLLOW_UP//END"),
            (2, 5, "MEDS_DEATH"), (2, 5, "FOLLOW_UP//END"),
            (3, 30, "FOLLOW_UP//END"),  # complete: known at the horizon, not before
            (4, 7, "FOLLOW_UP//END"),  # lost after six days
            (5, 0.5, "FOLLOW_UP//END"),  # lost before the question
            (6, None, "STROKE"),  # nothing dated
        ]
    )  # fmt: skip
    answered = labels(make_task(), events, ask(events, [1]))
    assert answered["label"].to_list() == [1, 0, 0, None, None, None]
    assert answered["until_days"].to_list() == [3, 4, 10, 6, 0, 0]
    assert answered["decided"].to_list() == ["outcome", "end", "horizon", *["censored"] * 3]


def test_until_days_of_other_answers():
    rows = [
        (1, 4, "STROKE", 7.0), (1, 6, "STROKE", 5.0), (1, 30, "FOLLOW_UP//END"),
        (2, 4, "STROKE"), (2, 5, "MEDS_DEATH"), (2, 6, "STROKE", 7.0), (2, 30, "FOLLOW_UP//END"),
        (3, 4, "STROKE", 7.0), (3, 7, "FOLLOW_UP//END"),
    ]  # fmt: skip
    expected = {
        "count": ([2, 1, None], [10, 4, 6], ["horizon", "end", "censored"]),
        "value": ([7, None, 7], [3, 4, 3], ["outcome", "end", "outcome"]),
        "time": ([3, 3, 3], [3, 3, 3], ["outcome"] * 3),
    }
    events = make_events(rows)
    for kind, columns in expected.items():
        answered = labels(make_task(kind=kind), events, ask(events, [1]))
        assert tuple(answered[name].to_list() for name in ("label", "until_days", "decided")) == columns
    twice = labels(make_task(at_least=2), events, ask(events, [1]))
    assert (twice["label"].to_list(), twice["until_days"].to_list()) == ([1, 0, None], [5, 4, 6])


@pytest.mark.parametrize(("end", "label"), [("2015-01-01", 0), ("2014-12-31T23:59", None), ("2015-06-01", 0)])
def test_a_study_of_five_calendar_years_answers_a_question_of_five_years(end, label):
    """1826 days, where five mean years have 1826.25; a day less is too short, by the fast labels and by the rule."""
    start, end = (datetime.fromisoformat(text) for text in ("2010-01-01", end))
    events = pl.DataFrame(
        [(1, start, "ENTRY", None), (1, end, "FOLLOW_UP//END", None)],
        schema={"subject_id": pl.Int64, "time": pl.Datetime("us"), "code": pl.String, "numeric_value": pl.Float32},
        orient="row",
    )
    task = make_task(horizon=5 * UNITS["year"])
    times = pl.DataFrame({"subject_id": [1], "prediction_time": [start + timedelta(minutes=1)]})
    answered = labels(task, events, times.cast({"prediction_time": pl.Datetime("us")}))
    assert answered["label"].to_list() == oracle(task, events, times) == [label]
    if label is not None:
        assert answered["until_days"].to_list() == [5 * 365.25]
    exact = make_task(horizon=int(1826.25 * DAY) - 1)  # not a number of months
    assert (labels(exact, events, times)["label"][0] is None) == (end < start + timedelta(days=1826.25))


@pytest.mark.parametrize("name", ["death_5y", "new_cardiovascular_5y"])
def test_real_patients_are_labelled_by_the_rule(nafld_events, name):
    task = load_task(name)
    some = nafld_events.filter(pl.col("subject_id") % 20 == 3)
    times = task.prediction_times(some)
    answered = labels(task, some, times)
    assert answered["label"].to_list() == oracle(task, some, times)
    assert answered["label"].null_count() > 100 < times.height - answered["label"].null_count()
    assert answered["until_days"].max() <= 5 * 365.25


def test_labels_find_codes_in_any_spelling():
    spellings = ["ICD10CM//I21.4", "ICD10CM//I214", "icd10cm//i21.4", "ICD10CM/I214", "DIAGNOSIS//ICD//10//I214"]
    rows = [(patient, 2, code) for patient, code in enumerate([*spellings, "LAB//A"])]
    events = make_events([*rows, *[(patient, 9, "FOLLOW_UP//END//LEFT") for patient in range(6)]])
    for pattern in ("ICD10CM//I214", "ICD10CM//I21.4", "icd10cm//i21.*", "DIAGNOSIS//ICD//10//I21*"):
        task = make_task(outcome=(pattern,), horizon=5 * DAY)
        assert labels(task, events, ask(events, [1]))["label"].to_list() == [1, 1, 1, 1, 1, 0]


def test_a_death_that_says_more_is_a_death():
    rows = [(1, 2, "MEDS_DEATH//IN_HOSPITAL"), (2, 2, "MEDS_DEATH"), (3, 2, "MEDS_DEATHBED")]
    events = make_events([*rows, *[(patient, 9, "FOLLOW_UP//END") for patient in (1, 2, 3)]])
    died = make_task(outcome=("MEDS_DEATH",), ends=(), horizon=5 * DAY)
    assert labels(died, events, ask(events, [1]))["label"].to_list() == [1, 1, 0]
    ended = make_task(outcome=("STROKE",), ends=("MEDS_DEATH",), horizon=5 * DAY)
    assert labels(ended, events, ask(events, [1]))["decided"].to_list() == ["end", "end", "horizon"]
    inside = make_task(outcome=("MEDS_DEATH//IN_HOSPITAL",), ends=(), horizon=5 * DAY)
    assert labels(inside, events, ask(events, [1]))["label"].to_list() == [1, 0, 0]
