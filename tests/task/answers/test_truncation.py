"""Truncated rollouts: no choice of short futures, and bounds that hold whatever would have come."""

import numpy as np
import polars as pl
import pytest

from sequela.record.questions import QUESTION
from sequela.rollout.budget import FixedBudget
from sequela.task.answers.incidence import incidence
from sequela.task.answers.statistic import risk
from sequela.task.answers.truncation import completed

DAYS, TOKENS, ROLLOUTS = 30.0, 40.0, 5000
NAN = np.nan


def dense_world(hazards: tuple[float, float], seed: int = 0) -> tuple[pl.DataFrame, pl.DataFrame, float]:
    """Futures with few or many tokens a day, of which the latter are truncated: by "mc", by "scope", and the risk."""
    draw = np.random.default_rng(seed)
    many = draw.random(ROLLOUTS) < 0.5
    hazard = np.where(many, hazards[1], hazards[0])
    event = draw.exponential(1 / hazard)
    clock = np.minimum(TOKENS / np.where(many, 4.0, 0.5), DAYS)
    cut = (event > clock) & (clock < DAYS)
    until = np.minimum(event, clock)
    came = np.where(cut, NAN, (event <= DAYS).astype(float))
    frame = pl.DataFrame(
        {
            "subject_id": np.ones(ROLLOUTS, np.int64),
            "rollout": np.arange(ROLLOUTS, dtype=np.int32),
            "tokens": np.full(ROLLOUTS, 9),
            "score": came,
            "seen": np.where(cut, 0.0, NAN),
            "came": came,
            "until": until,
        }
    ).with_columns(pl.lit(0).cast(pl.Datetime("us")).alias(QUESTION[1]))
    sums = frame.with_columns(
        score=pl.Series(np.where(cut, NAN, hazard * until)), seen=pl.Series(np.where(cut, hazard * until, NAN))
    )
    clean = [each.with_columns(pl.col("score", "seen", "came").fill_nan(None)) for each in (frame, sums)]
    return *clean, float((1 - np.exp(-DAYS * np.array(hazards))).mean())


@pytest.mark.parametrize("estimator", ["mc", "scope"])
def test_truncated_futures_are_not_left_out(estimator):
    """Left out, those in which the outcome came before the limit would be too many by far."""
    counted, summed, true = dense_world((0.03, 0.03))
    scored = counted if estimator == "mc" else summed
    (found,) = risk(scored, estimator, FixedBudget(ROLLOUTS)).to_dicts()
    assert found["prediction"] == pytest.approx(true, abs=0.03)
    assert abs(counted["score"].mean() - true) > 0.07, "negative control"
    cut = scored["seen"].count()
    assert (found["rollouts"], found["undecidable_rollouts"]) == (ROLLOUTS - cut, cut) and cut > 1000


@pytest.mark.parametrize("hazards", [(0.01, 0.05), (0.03, 0.03), (0.05, 0.01)])
def test_the_interval_holds_whatever_would_have_come(hazards):
    """Where dense futures carry another risk no estimate can know it, but the bounds do; sampling alone does not."""
    for scored, estimator in zip(dense_world(hazards), ("mc", "scope"), strict=False):
        (found,) = risk(scored, estimator, FixedBudget(ROLLOUTS)).to_dicts()
        true = dense_world(hazards)[2]
        assert found["low"] < true < found["high"]
        if hazards[0] != hazards[1]:
            assert abs(found["prediction"] - true) > 3 * found["standard_error"], "negative control"


def test_shares_are_those_of_aalen_and_johansen():
    draw = np.random.default_rng(3)
    for _ in range(30):
        until = draw.integers(1, 9, 12).astype(float)
        how = draw.choice(["outcome", "end", "censored"], 12)
        until, how = np.append(until, 10.0), np.append(how, "horizon")
        came = np.select([how == "outcome", how == "censored"], [1.0, NAN], 0.0)
        seen = np.where(how == "censored", 0.0, NAN)
        found = completed(*(x[None] for x in (came, seen, came, until)))
        expected = incidence(until, how, [10.0])[0][0]
        assert found.scores.mean() == pytest.approx(expected)
        assert found.least.mean() <= found.scores.mean() <= found.most.mean()


def test_without_a_whole_future_there_is_no_answer():
    scores = np.array([[NAN, NAN], [NAN, 0.4]])
    found = completed(scores, np.array([[0.2, 0.3], [0.2, NAN]]), np.full((2, 2), NAN), np.ones((2, 2)))
    assert np.isnan(found.scores[0]).all() and not found.truncated[0].any()
    assert found.scores[1].tolist() == [0.2, 0.4] and found.most[1].tolist() == [1.2, 0.4]
