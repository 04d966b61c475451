import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sequela.errors import InputError
from sequela.record.duration import DAY
from sequela.record.timeline import timelines
from sequela.rollout.folder import SimulatedFolder
from sequela.rollout.settings import RULES
from sequela.task.answers.estimate import estimate
from sequela.task.answers.incidence import order_statistics
from sequela.task.baselines.baseline import TrainingSample, fit_baselines
from sequela.task.label import labels
from tests.task.conftest import at_day, make_events, make_task

AT = at_day(1)


def write_simulated(folder: Path, rollouts: list[dict], events: list[tuple] = ()) -> Path:
    """A folder of imagined timelines, asked on day 1: rollouts with patient, rollout, end, reason (and a scope), and
    events (patient, rollout, day, code[, number])."""
    (folder / "data").mkdir(parents=True)
    at = pl.lit(AT).cast(pl.Datetime("us"))
    pl.DataFrame(
        {
            "subject_id": [row["patient"] for row in rollouts],
            "rollout": pl.Series([row["rollout"] for row in rollouts], dtype=pl.Int32),
            "end": pl.Series([at_day(row["end"]) for row in rollouts], dtype=pl.Int64).cast(
                pl.Datetime("us")
            ),
            "reason": [row["reason"] for row in rollouts],
            "tokens": pl.Series([5] * len(rollouts), dtype=pl.Int32),
            "scope//stroke_10d": pl.Series([row.get("scope", 0.0) for row in rollouts], dtype=pl.Float32),
        }
    ).with_columns(prediction_time=at).write_parquet(folder / "rollouts.parquet")
    imagined = [
        make_events([(patient, day, code, *number)]).with_columns(
            prediction_time=at, rollout=pl.lit(rollout, pl.Int32)
        )
        for patient, rollout, day, code, *number in events
    ] or [make_events([]).with_columns(prediction_time=at, rollout=pl.lit(0, pl.Int32))]
    pl.concat(imagined).write_parquet(folder / "data" / "0.parquet")
    return folder


def answers(folder: Path, estimator: str, **task) -> dict[int, dict]:
    frame = estimate(
        make_task(**task), SimulatedFolder(folder), SimulatedFolder(folder).rollouts(), estimator
    )
    return {row["subject_id"]: row for row in frame.to_dicts()}


def rollout(patient: int, number: int, end: float = 12, reason: str = "horizon", scope: float = 0.0) -> dict:
    return {"patient": patient, "rollout": number, "end": end, "reason": reason, "scope": scope}


def test_scope_is_the_mean_of_the_hazards_of_rollouts_that_were_not_cut_off(tmp_path):
    rows = [rollout(1, k, scope=scope) for k, scope in enumerate([0.1, 0.2, 0.6])]
    rows += [
        rollout(2, 0, scope=1.5),
        rollout(2, 1, scope=0.9),
        rollout(2, 2, scope=None, end=5, reason="limit"),
    ]
    rows += [rollout(3, 0, scope=None, end=5, reason="limit")]  # so says the simulation
    rows += [rollout(4, 0, scope=0.7, end=40, reason="limit")]  # cut off, but long after its horizon
    found = answers(write_simulated(tmp_path / "s", rows), "scope")
    assert found[1]["prediction"] == pytest.approx(0.3)
    assert found[1]["standard_error"] == pytest.approx(np.std([0.1, 0.2, 0.6], ddof=1) / np.sqrt(3))
    assert found[2]["prediction"] == 1  # a sum of hazards may exceed 1, a probability may not
    assert (found[2]["rollouts"], found[2]["undecidable_rollouts"]) == (2, 1)
    assert (found[3]["prediction"], found[3]["rollouts"], found[3]["undecidable_rollouts"]) == (None, 0, 1)
    assert found[4]["prediction"] == pytest.approx(0.7)


@pytest.mark.parametrize("estimator", ["scope", "mc"])
def test_futures_counted_by_other_rules_are_refused(tmp_path, estimator):
    """Those of version 0.1 name none: an end closed a question at its token. At a death, nothing comes after it."""
    folder = write_simulated(tmp_path / "s", [rollout(1, 0)])
    with pytest.raises(InputError, match=r"another version of sequela.*simulate the task stroke_10d again"):
        answers(folder, estimator, ends=("LEFT", "MEDS_DEATH"))
    assert answers(folder, estimator)[1]["rollouts"] == 1
    (folder / "simulate.json").write_text(json.dumps({"rules": RULES}))
    assert answers(folder, estimator, ends=("LEFT", "MEDS_DEATH"))[1]["rollouts"] == 1


def test_a_future_that_was_cut_at_the_moment_of_an_end_gives_no_answer(tmp_path):
    rows = [rollout(1, 0, end=4, reason="limit"), rollout(1, 1, end=4, reason="settled")]
    rows += [rollout(1, 2, end=4, reason="end"), rollout(1, 3, end=5, reason="settled"), rollout(1, 4, end=11)]
    events = [(1, number, 4, "MEDS_DEATH") for number in range(4)]
    found = answers(write_simulated(tmp_path / "s", rows, events), "mc")
    assert (found[1]["rollouts"], found[1]["undecidable_rollouts"], found[1]["prediction"]) == (2, 3, 0)


def test_mc_is_the_share_and_what_was_cut_off_is_judged_by_those_that_went_on(tmp_path):
    rows = [
        rollout(1, 0),
        rollout(1, 1),
        rollout(1, 2, end=5, reason="token"),
        rollout(1, 3, end=5, reason="limit"),
    ]
    rows += [rollout(2, 0, end=5, reason="limit"), rollout(2, 1, end=6, reason="limit")]
    events = [(1, 0, 4, "STROKE"), (1, 2, 5, "MEDS_DEATH"), (1, 3, 2, "LAB//A"), (2, 0, 2, "STROKE")]
    found = answers(write_simulated(tmp_path / "s", rows, events), "mc")
    # a stroke, nothing until the horizon, a death before any stroke; and one that ran out of tokens, which only the
    # second outlasts. Leaving it out would say 1 / 3.
    assert found[1]["prediction"] == pytest.approx(1 / 4)
    assert found[1]["low"] < 1 / 4 and found[1]["high"] > 2 / 4
    assert (found[1]["rollouts"], found[1]["undecidable_rollouts"]) == (3, 1)
    # running out of tokens after the stroke leaves it decided
    assert (found[2]["prediction"], found[2]["rollouts"], found[2]["undecidable_rollouts"]) == (1, 1, 1)
    assert found[2]["standard_error"] is None


def test_mc_is_the_oracle_over_history_then_future(tmp_path):
    """Against the naive loop: `Task.label` of every imagined timeline, one by one."""
    draw = np.random.default_rng(0)
    rows, events = [], []
    for patient in range(8):
        for number in range(6):
            rows.append(rollout(patient, number, end=float(draw.integers(1, 14)), reason="token"))
            for code in ("STROKE", "MEDS_DEATH", "LAB//A"):
                if draw.random() < 0.4:
                    events.append((patient, number, float(draw.integers(1, 14)), code))
    found = answers(write_simulated(tmp_path / "s", rows, events), "mc")
    for patient in range(8):
        past = next(timelines(make_events([(patient, 0, "ENTRY"), (patient, 0.5, "STROKE")]))).until(AT)
        votes = []
        for row in rows:
            if row["patient"] == patient:
                own = [(patient, e[2], e[3]) for e in events if e[:2] == (patient, row["rollout"])]
                future = next(timelines(make_events([*own, (patient, row["end"], "FOLLOW_UP//END")])), None)
                votes.append(make_task().label(past.then(future.since(AT)), AT))
        known = [vote for vote in votes if vote is not None]
        if len(known) in (0, len(votes)):
            assert found[patient]["prediction"] == (pytest.approx(np.mean(known)) if known else None)
        else:  # what was cut off could be none or all of it
            least, most = sum(known) / len(votes), (sum(known) + votes.count(None)) / len(votes)
            assert found[patient]["low"] <= least <= found[patient]["prediction"] <= most <= found[patient]["high"]
        assert found[patient]["undecidable_rollouts"] == votes.count(None)


def test_time_is_the_median_and_an_unfinished_stay_is_a_long_one(tmp_path):
    rows = [rollout(1, k, end=40, reason="token") for k in range(5)] + [
        rollout(2, k, end=9, reason="limit") for k in range(3)
    ]
    rows += [rollout(3, k, end=9, reason="limit") for k in range(3)]
    events = [(1, k, day, "STROKE") for k, day in enumerate([2, 3, 5, 9, 30])]
    events += [(2, 0, 3, "STROKE"), (2, 1, 5, "STROKE"), (3, 0, 3, "STROKE")]
    found = answers(
        write_simulated(tmp_path / "s", rows, events), "scope", kind="time", ends=(), horizon=None
    )
    assert found[1]["prediction"] == 4
    assert found[2]["prediction"] == 4  # days 2 and 4 and one longer: dropping it would say 3
    assert (found[2]["rollouts"], found[2]["undecidable_rollouts"]) == (2, 1)
    assert found[3]["prediction"] is None  # most stays outlasted their rollouts


def test_the_error_of_the_median_is_as_theory_says(tmp_path):
    draw = np.random.default_rng(1)
    days = 1 + draw.exponential(10, (60, 100))
    rows = [rollout(patient, k, end=500, reason="token") for patient in range(60) for k in range(100)]
    folder = write_simulated(tmp_path / "s", rows, [(0, 0, 2, "LAB//A")])
    at = pl.lit(AT).cast(pl.Datetime("us"))
    pl.DataFrame(
        {
            "subject_id": np.repeat(np.arange(60), 100),
            "rollout": pl.Series(np.tile(np.arange(100), 60)).cast(pl.Int32),
            "time": pl.Series([at_day(day) for day in days.ravel()]).cast(pl.Datetime("us")),
        }
    ).with_columns(code=pl.lit("STROKE"), prediction_time=at).write_parquet(folder / "data" / "0.parquet")
    found = answers(folder, "scope", kind="time", ends=(), horizon=None)
    errors = np.array([row["standard_error"] for row in found.values()])
    assert errors.mean() == pytest.approx(
        10 / np.sqrt(100), rel=0.1
    )  # 1 / (2 f(median) sqrt n), f(median) = 1 / 20


def test_without_hazards_futures_are_counted_and_it_is_said(tmp_path):
    rows = [rollout(1, k, scope=0.9) for k in range(4)]
    events = [(1, 0, 3, "STROKE", 7.0), (1, 0, 4, "STROKE", 9.0), (1, 1, 3, "STROKE", 7.0)]
    folder = write_simulated(tmp_path / "s", rows, events)
    plain = answers(folder, "scope")[1]
    assert (plain["estimator"], plain["prediction"]) == ("scope", pytest.approx(0.9))
    for change, share in (({"at_least": 2}, 0.25), ({"above": 6.5}, 0.5), ({"above": 8}, 0.25)):
        found = answers(folder, "scope", **change)[1]
        assert (found["estimator"], found["prediction"]) == ("mc", share)
        # no hazards are asked for either: the column may be missing
        assert answers(folder, "scope", name="other", **change)[1]["prediction"] == share


def test_a_count_is_the_mean_of_the_rollouts_that_tell(tmp_path):
    rows = [
        rollout(1, 0),
        rollout(1, 1, end=5, reason="token"),
        rollout(1, 2, end=5, reason="limit"),
        rollout(1, 3),
    ]
    events = [(1, 0, day, "STROKE") for day in (2, 3, 3, 11, 11.5)]
    events += [(1, 1, 4, "STROKE"), (1, 1, 5, "MEDS_DEATH"), (1, 2, 4, "STROKE")]
    found = answers(write_simulated(tmp_path / "s", rows, events), "scope", kind="count")[1]
    assert (found["estimator"], found["prediction"]) == ("mean", pytest.approx((4 + 1 + 0) / 3))
    assert found["standard_error"] == pytest.approx(np.std([4, 1, 0], ddof=1) / np.sqrt(3))
    assert (found["rollouts"], found["undecidable_rollouts"]) == (3, 1)
    assert (found["low"], found["high"]) == (0, 4)


def test_an_expected_count_is_right_and_its_median_is_not(tmp_path):
    """Poisson events of mean 0.6 in ten days: 60 means within their errors. The median, the control, is 0 or 1."""
    draw = np.random.default_rng(4)
    counts = draw.poisson(0.6, (60, 100))
    rows = [rollout(patient, k) for patient in range(60) for k in range(100)]
    folder = write_simulated(tmp_path / "s", rows)
    row = np.repeat(np.arange(6_000), counts.ravel())
    at = pl.lit(AT).cast(pl.Datetime("us"))
    pl.DataFrame(
        {
            "subject_id": row // 100,
            "rollout": pl.Series(row % 100).cast(pl.Int32),
            "time": pl.Series([at_day(day) for day in draw.uniform(1, 11, len(row))]).cast(pl.Datetime("us")),
        }
    ).with_columns(code=pl.lit("STROKE"), prediction_time=at).write_parquet(folder / "data" / "0.parquet")
    found = pl.DataFrame(list(answers(folder, "mc", kind="count").values()))
    away = (found["prediction"] - 0.6) / found["standard_error"]
    assert away.abs().max() < 4 and away.std() == pytest.approx(1, abs=0.25)
    assert abs(np.median(counts, axis=1).mean() - 0.6) > 4 * np.sqrt(0.6 / 6_000)


def test_a_value_is_the_median_of_those_measured(tmp_path):
    rows = [rollout(1, k) for k in range(6)] + [rollout(2, 0)]
    events = [(1, k, 3, "STROKE", value) for k, value in enumerate([5.0, 6.0, 7.0, 100.0])]
    events += [(1, 0, 4, "STROKE", 1.0), (1, 4, 3, "STROKE")]  # a later one; one without a number
    found = answers(write_simulated(tmp_path / "s", rows, events), "scope", kind="value")
    assert (found[1]["estimator"], found[1]["prediction"]) == ("median", 6.5)
    assert (found[1]["rollouts"], found[1]["undecidable_rollouts"]) == (4, 2)
    assert (found[1]["low"], found[1]["high"]) == (5, 100)
    assert [found[2][name] for name in ("prediction", "standard_error", "low", "high")] == [None] * 4


def test_time_with_death_and_a_horizon_is_that_of_those_who_reach_it(tmp_path):
    """Of five rollouts: strokes on days 2, 4 and 9; then a death, and one that passes the horizon."""
    rows = [rollout(1, k, end=40, reason="token") for k in range(5)]
    rows += [rollout(2, k) for k in range(3)]
    events = [(1, k, day, "STROKE") for k, day in enumerate([3, 5, 10])]
    events += [(1, 3, 4, "MEDS_DEATH"), (1, 4, 12, "STROKE"), (2, 0, 3, "STROKE")]
    found = answers(write_simulated(tmp_path / "s", rows, events), "mc", kind="time")
    assert (found[1]["prediction"], found[1]["reached"]) == (4, pytest.approx(3 / 5))
    assert (found[1]["low"], found[1]["high"]) == (2, 9)
    assert (found[1]["rollouts"], found[1]["undecidable_rollouts"]) == (5, 0)
    assert (found[2]["prediction"], found[2]["reached"]) == (2, pytest.approx(1 / 3))
    later = answers(tmp_path / "s", "mc", kind="time", horizon=30 * DAY)[1]
    assert (later["prediction"], later["reached"]) == (6.5, pytest.approx(4 / 5))
    assert answers(tmp_path / "s", "mc", kind="time", horizon=7 * DAY)[1]["prediction"] == 3
    none = answers(tmp_path / "s", "mc", kind="time", horizon=DAY / 2)[1]
    assert (none["prediction"], none["reached"]) == (None, 0)


def test_predicted_and_true_times_are_of_those_who_reach_it_and_so_are_baselines(tmp_path):
    """Strokes and deaths of known rates: the days until a stroke, of those who have one first, are exponential with
    both rates. Over everybody, the dead as later than any, the median would be another quantity, and twice as large."""
    draw, stroke, death = np.random.default_rng(2), 0.06, 0.04
    one, other = draw.exponential(1 / stroke, 4000), draw.exponential(1 / death, 4000)
    rows = [rollout(1, k, end=900, reason="token") for k in range(4000)]
    events = [(1, k, 1 + min(one[k], other[k]), "STROKE" if one[k] < other[k] else "MEDS_DEATH") for k in range(4000)]
    folder = write_simulated(tmp_path / "s", rows)
    columns = [list(column) for column in zip(*events, strict=True)]
    at = pl.lit(AT).cast(pl.Datetime("us"))
    pl.DataFrame(
        {
            "subject_id": columns[0],
            "rollout": pl.Series(columns[1], dtype=pl.Int32),
            "time": pl.Series([at_day(day) for day in columns[2]]).cast(pl.Datetime("us")),
            "code": columns[3],
        }
    ).with_columns(prediction_time=at).write_parquet(folder / "data" / "0.parquet")
    found = answers(folder, "mc", kind="time", horizon=None)[1]
    exact = np.log(2) / (stroke + death)
    assert found["prediction"] == pytest.approx(exact, rel=0.05)
    assert found["reached"] == pytest.approx(stroke / (stroke + death), abs=0.03)
    everybody = np.median(np.where(one < other, one, np.inf))
    assert everybody > 2 * exact, "negative control"

    truth = make_events([(k, 1 + min(one[k], other[k]), event[3]) for k, event in enumerate(events)])
    times = pl.DataFrame({"subject_id": np.arange(4000)}).with_columns(prediction_time=at)
    label = labels(make_task(kind="time", horizon=None), truth, times)["label"]
    assert label.null_count() == sum(event[3] == "MEDS_DEATH" for event in events)
    features = np.zeros((4000, 1))
    sample = TrainingSample(features, label.fill_null(np.nan).to_numpy(), np.zeros(4000), np.zeros(4000, bool))
    fitted = fit_baselines(make_task(kind="time", horizon=None), sample, 0)["median"]
    assert fitted(features[:1])[0] == label.median() == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize(("level", "count"), [(0.95, 200), (0.8, 50)])
def test_the_interval_of_a_time_holds_as_many_further_times_as_it_says(tmp_path, level, count):
    """2,000 questions: of as many true times, drawn from the same law, the share inside is the level."""
    draw = np.random.default_rng(5)
    label = pl.DataFrame({"days": draw.exponential(10, (2_000, count)).ravel()})
    frame = label.with_columns(question=pl.int_range(pl.len()) // count)
    ordered = pl.col("days").sort()
    first, last = order_statistics(ordered.len(), level)
    span = {"low": ordered.get((first - 1).cast(pl.Int64)), "high": ordered.get((last - 1).cast(pl.Int64))}
    found = frame.group_by("question").agg(**span)
    truth = pl.Series(draw.exponential(10, 2_000))
    inside = truth.is_between(found["low"], found["high"]).mean()
    assert abs(inside - level) < (0.02 if level == 0.95 else 0.04)


def test_what_cannot_be_estimated_is_said(tmp_path):
    folder = write_simulated(tmp_path / "s", [rollout(1, 0)])
    with pytest.raises(InputError, match="scope//other"):
        answers(folder, "scope", name="other")
    with pytest.raises(InputError, match="no estimator 'guess'"):
        answers(folder, "guess")
    avoiding = SimulatedFolder(folder).rollouts().with_columns(avoids=pl.lit("stroke_10d"))
    with pytest.raises(InputError, match="only futures without the outcome"):
        estimate(make_task(), SimulatedFolder(folder), avoiding, "mc")
    with pytest.raises(InputError, match="level of an interval is 95"):
        estimate(
            make_task(kind="count"),
            SimulatedFolder(folder),
            SimulatedFolder(folder).rollouts(),
            "mc",
            level=95,
        )
    with pytest.raises(InputError, match="is not there"):
        SimulatedFolder(tmp_path).rollouts()
    pl.read_parquet(folder / "rollouts.parquet").drop("reason").write_parquet(folder / "rollouts.parquet")
    with pytest.raises(InputError, match="no column 'reason'"):
        SimulatedFolder(folder).rollouts()
    (folder / "rollouts.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(InputError, match="cannot be read"):
        SimulatedFolder(folder).rollouts()
