"""Two arms compared: by hand, against the textbook, and on arms that are the same."""

import json

import numpy as np
import polars as pl
import pytest

from sequela.errors import InputError
from sequela.rollout.estimators import answers
from sequela.task.answers.contrast import MEANING, contrast, summary
from tests.task.conftest import at_day, make_task

KINDS = {
    "binary": make_task(),
    "count": make_task(name="counted", kind="count"),
    "time": make_task(name="timed", kind="time"),
    "value": make_task(name="valued", kind="value"),
}


def arm(folder, scores, *, name="scope", outcomes=(), changed=None, plan=None):
    """A folder of imagined timelines: `scores` [Q][N], outcomes of (patient, rollout, day, number)."""
    rows = [(q, at_day(1), n, score) for q, some in enumerate(scores) for n, score in enumerate(some)]
    column = f"{name}//stroke_10d"
    rollouts = pl.DataFrame(
        rows,
        schema={"subject_id": pl.Int64, "prediction_time": pl.Int64, "rollout": pl.Int32, column: pl.Float32},
        orient="row",
    ).with_columns(
        pl.col("prediction_time").cast(pl.Datetime("us")),
        avoids=pl.lit("stroke_10d" if name == "reach" else None, pl.String),
        end=pl.lit(at_day(12)).cast(pl.Datetime("us")),
        reason=pl.lit("horizon"),
        tokens=pl.lit(5, pl.Int32),
    )
    if changed is not None:
        rollouts = rollouts.with_columns(changed=pl.col("subject_id").is_in(changed))
    (folder / "data").mkdir(parents=True)
    rollouts.write_parquet(folder / "rollouts.parquet")
    events = pl.DataFrame(
        [(q, at_day(day), "STROKE", number, at_day(1), n) for q, n, day, number in outcomes],
        schema={
            "subject_id": pl.Int64,
            "time": pl.Int64,
            "code": pl.String,
            "numeric_value": pl.Float32,
            "prediction_time": pl.Int64,
            "rollout": pl.Int32,
        },
        orient="row",
    ).with_columns(pl.col("time", "prediction_time").cast(pl.Datetime("us")))
    events.write_parquet(folder / "data" / "0000.parquet")
    (folder / "simulate.json").write_text(json.dumps({"plan": plan}))
    return folder


def times(patients: int) -> pl.DataFrame:
    at = pl.lit(at_day(1)).cast(pl.Datetime("us"))
    return pl.DataFrame({"subject_id": np.arange(patients)}).with_columns(prediction_time=at)


def test_the_paired_error_is_that_of_the_mean_of_the_differences(tmp_path):
    draw = np.random.default_rng(0)
    x = draw.uniform(0, 0.5, (3, 8))
    y = 0.8 * x + draw.uniform(0, 0.2, (3, 8))
    found = contrast(
        KINDS["binary"], times(3), arm(tmp_path / "a", x), arm(tmp_path / "b", y, changed=[0, 2]), "scope"
    )
    difference = y - x
    assert np.allclose(found["difference"], difference.mean(1))
    assert np.allclose(found["standard_error"], difference.std(1, ddof=1) / np.sqrt(8))
    alone = [answers(scores).standard_error for scores in (x, y)]
    assert np.allclose(found["unpaired_error"], np.hypot(*alone))
    assert (found["standard_error"] < found["unpaired_error"]).all()
    assert np.allclose(found["as_recorded"], x.mean(1)) and np.allclose(found["what_if"], y.mean(1))
    assert found["changed"].to_list() == [True, False, True] and found["rollouts"].to_list() == [8] * 3
    whole, some = (summary(found, "binary", everyone=everyone) for everyone in (True, False))
    assert whole["difference"]["value"] == pytest.approx(difference.mean())
    assert some["difference"]["value"] == pytest.approx(difference[[0, 2]].mean())
    assert some["difference"]["low"] <= some["difference"]["value"] <= some["difference"]["high"]
    assert (some["patients"], some["changed"], some["compared"], whole["compared"]) == (3, 2, 2, 3)
    paired, unpaired = (found[name].to_numpy()[[0, 2]] for name in ("standard_error", "unpaired_error"))
    assert some["standard_error"] == pytest.approx(np.sqrt((paired**2).sum()) / 2)
    assert some["variance_removed"] == pytest.approx(1 - (paired**2).sum() / (unpaired**2).sum())


def test_numbers_that_are_not_common_remove_nothing(tmp_path):
    """The negative control: rollouts matched at random are no better than unpaired ones."""
    draw = np.random.default_rng(1)
    x, y = draw.uniform(0, 0.5, (2, 400, 20))
    found = contrast(KINDS["binary"], times(400), arm(tmp_path / "a", x), arm(tmp_path / "b", y))
    assert abs(summary(found, "binary", everyone=True)["variance_removed"]) < 0.05


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("estimator", ["scope", "mc"])
def test_the_same_arm_twice_differs_by_exactly_nothing(tmp_path, kind, estimator):
    outcomes = [(q, n, 2 + q + n, 5.0 + n) for q in range(2) for n in range(4)]
    folder = arm(tmp_path / "a", [[0.1, 0.2, 0.7, 0.4, 1.3, 0.2]] * 2, outcomes=outcomes)
    found = contrast(KINDS[kind], times(2), folder, folder, estimator)
    assert found["difference"].to_list() == [0, 0] and found["changed"].to_list() == [False, False]
    assert set(found["standard_error"].drop_nulls()) <= {0}
    assert summary(found, kind, everyone=True)["difference"] == {"value": 0, "low": 0, "high": 0}
    nothing = summary(found, kind)
    assert nothing["compared"] == nothing["changed"] == 0 and nothing["difference"] is None


def test_scores_that_decide_nothing_leave_their_own_arm_only(tmp_path):
    x, y = [[0.1, None, 0.3, 0.2]], [[0.5, 0.6, None, 0.7]]
    found = contrast(KINDS["binary"], times(1), arm(tmp_path / "a", x), arm(tmp_path / "b", y))
    assert found["as_recorded"][0] == pytest.approx(0.2) and found["what_if"][0] == pytest.approx(0.6)
    assert found["rollouts"][0] == 2
    single = contrast(
        KINDS["binary"], times(1), arm(tmp_path / "c", [[0.1, None]]), arm(tmp_path / "d", [[0.5, 0.7]])
    )
    assert single["difference"][0] == pytest.approx(0.5) and single["standard_error"][0] is None
    assert summary(single, "binary", everyone=True)["standard_error"] is None
    none = contrast(
        KINDS["binary"], times(1), arm(tmp_path / "e", [[None, None]]), arm(tmp_path / "f", [[0.5, 0.7]])
    )
    assert none["difference"][0] is None and summary(none, "binary", everyone=True)["unanswered"] == 1


def test_a_risk_above_1_is_shown_as_1_and_its_difference_is_unbiased(tmp_path):
    found = contrast(
        KINDS["binary"], times(1), arm(tmp_path / "a", [[0.5, 0.5]]), arm(tmp_path / "b", [[0.9, 1.3]])
    )
    assert found["what_if"][0] == 1 and found["difference"][0] == pytest.approx(0.6)


def test_reach_pairs_its_own_scores_and_auto_its_halves(tmp_path):
    draw = np.random.default_rng(2)
    x = draw.uniform(0, 0.4, (1, 8))
    y = x + 0.1 + draw.uniform(0, 0.01, (1, 8))
    y[0, 6] = np.nan  # the even half is smaller there
    plan = {"estimator": "reach", "target": 0.02, "pilot": 2, "cap": 8}
    arms = [arm(tmp_path / n, s, name="reach", plan=plan) for n, s in (("a", x), ("b", y))]
    found = contrast(KINDS["binary"], times(1), *arms, "auto")
    halves = [np.mean([np.nanmean(some[0, half::2]) for half in (0, 1)]) for some in (x, y)]
    assert found["difference"][0] == pytest.approx(halves[1] - halves[0])
    assert found["estimator"][0] == "reach" and found["standard_error"][0] < found["unpaired_error"][0]


def test_numbers_are_compared_by_their_own_answers(tmp_path):
    early = [(0, n, 2 + n / 2, 10.0 + n) for n in range(12)]
    late = [(0, n, 4 + n / 2, 20.0 + n) for n in range(12)]
    late += [(0, 0, 9.5, 3.0)]  # a second outcome of rollout 0
    a, b = (arm(tmp_path / n, [[0] * 12], outcomes=o) for n, o in (("a", early), ("b", late)))
    counted = contrast(KINDS["count"], times(1), a, b)
    assert counted["estimator"][0] == "mean" and counted["difference"][0] == pytest.approx(1 / 12)
    timed = contrast(KINDS["time"], times(1), a, b)
    assert timed["as_recorded"][0] == pytest.approx(1 + 5.5 / 2)
    assert timed["difference"][0] == pytest.approx(2) and timed["standard_error"][0] == pytest.approx(
        0, abs=1e-9
    )
    assert timed["unpaired_error"][0] > 0.3
    valued = contrast(KINDS["value"], times(1), a, b)
    assert valued["difference"][0] == pytest.approx(10) and valued["estimator"][0] == "median"
    # A time is that of those who get there; where none does, there is no median, and no difference
    few = contrast(KINDS["time"], times(1), a, arm(tmp_path / "c", [[0] * 12], outcomes=late[:4]))
    assert few["what_if"][0] == pytest.approx(3 + 3 / 4)
    never = contrast(KINDS["time"], times(1), a, arm(tmp_path / "d", [[0] * 12], outcomes=[(0, 0, 999, 1.0)]))
    assert never["what_if"][0] is None and never["difference"][0] is None


def test_only_the_cohort_is_compared_and_arms_must_go_together(tmp_path):
    x = [[0.1, 0.2]] * 3
    a, b = arm(tmp_path / "a", x), arm(tmp_path / "b", x[:2])
    assert contrast(KINDS["binary"], times(2), a, a)["subject_id"].to_list() == [0, 1]
    assert contrast(KINDS["binary"], times(3), a, b).height == 2  # who has no history left is in one arm only
    with pytest.raises(InputError, match="no question of 'stroke_10d' in common"):
        contrast(KINDS["binary"], times(3).filter(pl.col("subject_id") > 5), a, b)
    other = arm(tmp_path / "c", x, name="reach")
    with pytest.raises(InputError, match="in different ways"):
        contrast(KINDS["binary"], times(3), a, other)


def test_the_words_say_what_it_is_not():
    assert "not the effect" in MEANING and "confounding by indication" in MEANING
