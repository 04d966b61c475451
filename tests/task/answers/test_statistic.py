import numpy as np
import polars as pl
import pytest

from sequela.rollout.budget import AdaptiveBudget, FixedBudget
from sequela.task.answers.statistic import MEAN, MEDIAN, SHARE, risk


def scored(*scores):
    """The rollouts of one question, 5 tokens each."""
    frame = pl.DataFrame({"score": pl.Series(scores, dtype=pl.Float64)}).with_row_index("rollout")
    return frame.select(
        pl.lit(1, pl.Int64).alias("subject_id"),
        pl.datetime(2000, 1, 1).alias("prediction_time"),
        pl.col("rollout").cast(pl.Int32),
        pl.lit(5, pl.Int32).alias("tokens"),
        "score",
        known=pl.col("score").is_not_null(),
    )


def answer(statistic, *scores):
    return statistic.summarize(scored(*scores), FixedBudget(1), 0.5).to_dicts()[0]


def test_share_mean_and_median_of_the_same_scores():
    scores = (0.0, 1.0, 1.0, None, 1.0)
    share, mean, median = (answer(statistic, *scores) for statistic in (SHARE, MEAN, MEDIAN))
    assert (share["prediction"], mean["prediction"], median["prediction"]) == (0.75, 0.75, 1.0)
    assert [found["estimator"] for found in (share, mean, median)] == ["mc", "mean", "median"]
    assert share["standard_error"] == pytest.approx(mean["standard_error"]) == pytest.approx(0.25)
    for found in (share, mean, median):
        assert (found["rollouts"], found["undecidable_rollouts"], found["tokens"]) == (4, 1, 25)
    assert 0 < share["low"] < 0.75 < share["high"] < 1  # Wilson's; the others hold half of the rollouts
    assert (mean["low"], mean["high"]) == (0.0, 1.0)


def test_a_median_that_is_not_reached_is_none():
    assert answer(MEDIAN, 1.0, np.inf, np.inf)["prediction"] is None
    assert answer(MEDIAN, 1.0, 2.0, np.inf)["prediction"] == 2.0


def test_a_risk_is_weighed_by_its_budget():
    """One half of four, another of two: each counts a half, whatever its size."""
    frame = scored(1.0, 0.0, 1.0, 0.0, 1.0, None, 1.0, None)
    budget = AdaptiveBudget("mc", target=0.1, pilot=2, cap=8)
    assert risk(frame, "mc", budget)["prediction"][0] == pytest.approx(0.5)
    assert risk(frame, "mc", FixedBudget(8))["prediction"][0] == pytest.approx(4 / 6)
