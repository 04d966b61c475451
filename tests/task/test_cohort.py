import polars as pl

from sequela.record.duration import DAY
from sequela.task.cohort import Cohort
from tests.task.conftest import at_day, make_events, make_task

AT = at_day(1)


def test_the_cohort():
    events = make_events(
        [
            (1, 0, "ENTRY"), (1, 5, "ENTRY"),  # asked once, after the first
            (2, 0, "LAB//A"),  # never entered
            (3, 0, "ENTRY"), (3, 0.99, "MI//OLD"),  # excluded by its history
            (4, 0, "ENTRY"), (4, 1, "MI//OLD"),  # at the prediction time: no history
            (5, 0, "ENTRY"), (5, 0.5, "MEDS_DEATH"),  # dead before
            (6, None, "ENTRY"),  # at no time
            (7, 0, "ENTRY"), (7, None, "MI//OLD"),
            (8, 0, "ENTRY"), (8, 0.5, "FOLLOW_UP//END"),  # lost before: asked, undecidable
        ]
    )  # fmt: skip
    cohort = make_task(exclude=("MI//*",)).prediction_times(events)
    assert cohort["subject_id"].to_list() == [1, 4, 8]
    assert cohort["prediction_time"].to_physical().unique().to_list() == [AT]
    assert cohort.schema == {"subject_id": pl.Int64, "prediction_time": pl.Datetime("us")}


def test_codes_may_be_spelled_in_any_way_and_deaths_may_say_more():
    events = make_events(
        [
            (1, 0, "ICD10CM/i21.4"),
            (2, 0, "DIAGNOSIS//ICD//10//I214"), (2, 0.5, "MEDS_DEATH//AT_HOME"),
            (3, 0, "ICD10CM//I219"), (3, None, "SEX//female"),
            (4, 0, "ICD10CM//I22"), (5, 0, "ICD10CM//I21.9"), (5, 0.5, "MEDS_DEATHBED"),
        ]
    )  # fmt: skip
    asked = Cohort("ICD10CM//I21.*", DAY, ("GENDER//F",)).questions(events)
    assert asked["subject_id"].to_list() == [1, 5]


def test_a_cohort_may_be_asked_at_every_occurrence():
    """Each question has a history of its own: what excludes the second need not exclude the first."""
    events = make_events(
        [
            (1, 0, "VISIT"), (1, 5, "VISIT"), (1, 5, "VISIT"), (1, 9, "VISIT"),
            (2, 0, "VISIT"), (2, 3, "MI"), (2, 7, "VISIT"),  # the second one has it in its history
            (3, 0, "VISIT"), (3, 4, "VISIT"), (3, 4.5, "MEDS_DEATH"),  # dead before the second question
            (4, None, "VISIT"),
        ]
    )  # fmt: skip
    asked = Cohort("VISIT", DAY, ("MI",), "all").questions(events)
    days = [
        (patient, (time - AT) / DAY)
        for patient, time in asked.with_columns(pl.col("prediction_time").to_physical()).iter_rows()
    ]
    assert days == [(1, 0), (1, 5), (1, 9), (2, 0), (3, 0)]
    first = Cohort("VISIT", DAY, ("MI",)).questions(events)
    assert first.rows() == [asked.row(0), asked.row(3), asked.row(4)] and first.schema == asked.schema
