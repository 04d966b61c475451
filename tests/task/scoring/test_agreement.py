"""Where a head and a simulation agree, on answers whose gap is known."""

import numpy as np
import polars as pl
import pytest

from sequela.task.answers.prediction import BY_HEAD, SIMULATION
from sequela.task.kinds import KINDS
from sequela.task.scoring.agreement import FEWEST, agreement, agreement_in_words

QUESTIONS = 300


def answers_of(prediction, head, error=0.02):
    keys = pl.DataFrame({
        "subject_id": np.arange(len(prediction)) // 2,
        "prediction_time": pl.Series(np.arange(len(prediction))).cast(pl.Datetime("us")),
    })  # fmt: skip
    frame = keys.with_columns(standard_error=pl.lit(error, pl.Float32))
    return {
        SIMULATION: frame.with_columns(prediction=pl.Series(prediction, dtype=pl.Float64)),
        BY_HEAD: frame.with_columns(prediction=pl.Series(head, dtype=pl.Float64))[::-1],
    }


@pytest.fixture(scope="module")
def risks():
    return np.random.default_rng(0).beta(1, 6, QUESTIONS)


def test_a_head_that_says_the_same_agrees(risks):
    found = agreement(KINDS["binary"], answers_of(risks, risks))
    assert found["n"] == QUESTIONS and found["correlation"] == pytest.approx(1)
    assert found["difference"] == {"value": 0, "low": 0, "high": 0} and found["sampling"] == pytest.approx(0.02)
    assert [third["n"] for third in found["thirds"].values()] == [100] * 3
    assert found["thirds"]["lowest"]["head"] < found["thirds"]["middle"]["head"] < found["thirds"]["highest"]["head"]


def test_a_gap_shows_where_it_is(risks):
    noise = np.random.default_rng(1).normal(0, 0.02, QUESTIONS)
    high = np.argsort(risks)[-100:]
    head = risks.copy()
    head[high] -= 0.1
    found = agreement(KINDS["binary"], answers_of(np.clip(risks + noise, 0, 1), np.clip(head, 0, 1)))
    assert 0.5 < found["correlation"] < 0.97
    thirds = found["thirds"]
    assert thirds["highest"]["difference"]["high"] < 0 and abs(thirds["lowest"]["difference"]["value"]) < 0.02
    assert found["difference"]["low"] < -0.03 < found["difference"]["high"]
    words = agreement_in_words(found, KINDS["binary"])
    assert "the head is lower by 0.0" in words and words.count("[") == 1


def test_numbers_are_compared_as_they_are():
    days = np.random.default_rng(2).gamma(2, 3, QUESTIONS)
    found = agreement(KINDS["time"], answers_of(days, 2 * days + 1, None))
    assert found["correlation"] == pytest.approx(1) and found["sampling"] is None
    assert found["difference"]["value"] == pytest.approx(days.mean() + 1)
    assert "logits" not in agreement_in_words(found, KINDS["time"])


def test_without_both_there_is_nothing_to_compare(risks):
    both = answers_of(risks, risks)
    assert agreement(KINDS["binary"], {SIMULATION: both[SIMULATION]}) == {}
    assert agreement(KINDS["binary"], {BY_HEAD: both[BY_HEAD]}) == {}
    few = answers_of(risks[: FEWEST - 1], risks[: FEWEST - 1])
    assert agreement(KINDS["binary"], few) == {} and agreement_in_words({}, KINDS["binary"]) == ""
    constant = agreement(KINDS["binary"], answers_of(risks, np.full(QUESTIONS, 0.2)))
    assert constant["correlation"] is None and "do not vary together" in agreement_in_words(constant, KINDS["binary"])
