import numpy as np
import polars as pl
import pytest

from sequela.record.dataset import read_events
from sequela.record.questions import QUESTION
from sequela.task.baselines.histories import as_recorded, as_tokens
from sequela.tokens.tokenizer import load
from tests.task.conftest import at_day, make_events, make_task

TASK = make_task()


@pytest.fixture(scope="module")
def tokenizer(cohort_tokens):
    return load(cohort_tokens)


@pytest.fixture(scope="module")
def asked(cohort_folder):
    events = read_events(cohort_folder, "held_out")
    return events, TASK.prediction_times(events).select(QUESTION)


def test_a_recorded_history_is_told_in_days_before_the_question():
    events = make_events([
        (7, None, "GENDER//F"), (7, None, "RACE//X"), (7, -40 * 365.25, "MEDS_BIRTH"), (7, -2, "LAB//A", 3.0),
        (7, 0, "ENTRY"), (7, 1, "LAB//A", 9.0), (7, 5, "FOLLOW_UP//END"),
    ])  # fmt: skip
    times = pl.DataFrame({"subject_id": [7], "prediction_time": [at_day(1)]})
    known = as_recorded(events, times.with_columns(pl.col("prediction_time").cast(pl.Datetime("us"))))
    assert known.events.rows() == [(0, "RACE//X", None, None), (0, "LAB//A", 3.0, 3.0), (0, "ENTRY", 1.0, None)]
    assert known.person[0].tolist() == [pytest.approx(40, abs=0.01), 0, 2000]


def test_tokens_say_the_same_but_for_what_binning_loses(tokenizer, asked):
    events, times = asked
    recorded, read = as_recorded(events, times), as_tokens(tokenizer, events, times)
    assert read.events.select("row", "code").equals(recorded.events.select("row", "code").cast({"row": pl.UInt32}))
    exact, said = recorded.events.drop_nulls("number"), read.events.drop_nulls("number")
    assert said["number"].n_unique() <= tokenizer.settings.quantiles < exact["number"].n_unique()
    assert np.corrcoef(exact["number"], said["number"])[0, 1] > 0.95
    silences = [
        known.events.group_by("row").agg(pl.col("ago").min()).sort("row")["ago"] for known in (recorded, read)
    ]
    np.testing.assert_allclose(*silences, atol=1 / 1440)  # the silence until now is exact
    assert np.abs(read.person[:, 0] - recorded.person[:, 0]).max() <= tokenizer.settings.age_band_years / 2 + 0.01
    np.testing.assert_array_equal(read.person[:, 1], recorded.person[:, 1])


@pytest.mark.parametrize(("day", "leaks"), [(1, False), (0.5, True)])
def test_tokens_tell_nothing_of_what_came_later(tokenizer, asked, day, leaks):
    """An event planted half a day before the question is the negative control."""
    events, times = asked
    shift = pl.duration(microseconds=round((day - 1) * 86_400e6))
    planted = times.select("subject_id", time=pl.col("prediction_time") + shift, code=pl.lit("STROKE"))
    planted = planted.with_columns(numeric_value=pl.lit(None, pl.Float32))
    more = pl.concat([events, planted], how="diagonal")
    more = more.sort("subject_id", "time", nulls_last=False, maintain_order=True)
    before, after = as_tokens(tokenizer, events, times), as_tokens(tokenizer, more, times)
    assert before.events.equals(after.events) is not leaks


def test_a_patient_without_tokens_has_an_empty_history(tokenizer):
    events = make_events([(1, -3, "LAB//A", 0.5), (2, -3, "NEVER//SEEN")])
    times = pl.DataFrame({"subject_id": [1, 2], "prediction_time": [at_day(0)] * 2})
    read = as_tokens(tokenizer, events, times.with_columns(pl.col("prediction_time").cast(pl.Datetime("us"))))
    assert read.events["row"].to_list() == [0]
    assert len(read.person) == 2
