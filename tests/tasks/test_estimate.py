from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sequela.record.errors import InputError
from sequela.record.timeline import timelines
from sequela.tasks.estimate import estimate, read_rollouts
from tests.tasks.conftest import at_day, make_events, make_task

AT = at_day(1)


def write_simulated(folder: Path, rollouts: list[dict], events: list[tuple] = ()) -> Path:
    """A folder of imagined timelines, asked on day 1: rollouts with patient, rollout, end, reason (and a scope), and
    events (patient, rollout, day, code)."""
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
        make_events([(patient, day, code)]).with_columns(
            prediction_time=at, rollout=pl.lit(rollout, pl.Int32)
        )
        for patient, rollout, day, code in events
    ] or [make_events([]).with_columns(prediction_time=at, rollout=pl.lit(0, pl.Int32))]
    pl.concat(imagined).write_parquet(folder / "data" / "0.parquet")
    return folder


def answers(folder: Path, estimator: str, **task) -> dict[int, dict]:
    frame = estimate(make_task(**task), folder, read_rollouts(folder), estimator)
    return {row["subject_id"]: row for row in frame.to_dicts()}


def rollout(patient: int, number: int, end: float = 12, reason: str = "horizon", scope: float = 0.0) -> dict:
    return {"patient": patient, "rollout": number, "end": end, "reason": reason, "scope": scope}


def test_scope_is_the_mean_of_the_hazards_of_rollouts_that_were_not_cut_off(tmp_path):
    rows = [rollout(1, k, scope=scope) for k, scope in enumerate([0.1, 0.2, 0.6])]
    rows += [
        rollout(2, 0, scope=1.5),
        rollout(2, 1, scope=0.9),
        rollout(2, 2, scope=0.0, end=5, reason="limit"),
    ]
    rows += [rollout(3, 0, scope=0.4, end=5, reason="limit")]
    rows += [rollout(4, 0, scope=0.7, end=40, reason="limit")]  # cut off, but long after its horizon
    found = answers(write_simulated(tmp_path / "s", rows), "scope")
    assert found[1]["prediction"] == pytest.approx(0.3)
    assert found[1]["standard_error"] == pytest.approx(np.std([0.1, 0.2, 0.6], ddof=1) / np.sqrt(3))
    assert found[2]["prediction"] == 1  # a sum of hazards may exceed 1, a probability may not
    assert (found[2]["rollouts"], found[2]["undecidable_rollouts"]) == (2, 1)
    assert (found[3]["prediction"], found[3]["rollouts"], found[3]["undecidable_rollouts"]) == (None, 0, 1)
    assert found[4]["prediction"] == pytest.approx(0.7)


def test_mc_is_the_share_among_the_decidable(tmp_path):
    rows = [
        rollout(1, 0),
        rollout(1, 1),
        rollout(1, 2, end=5, reason="token"),
        rollout(1, 3, end=5, reason="limit"),
    ]
    rows += [rollout(2, 0, end=5, reason="limit"), rollout(2, 1, end=6, reason="limit")]
    events = [(1, 0, 4, "STROKE"), (1, 2, 5, "MEDS_DEATH"), (1, 3, 2, "LAB//A"), (2, 0, 2, "STROKE")]
    found = answers(write_simulated(tmp_path / "s", rows, events), "mc")
    # a stroke, nothing until the horizon, a death before any stroke; and one that ran out of tokens
    assert found[1]["prediction"] == pytest.approx(1 / 3)
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
        assert found[patient]["prediction"] == (pytest.approx(np.mean(known)) if known else None)
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


def test_what_cannot_be_estimated_is_said(tmp_path):
    folder = write_simulated(tmp_path / "s", [rollout(1, 0)])
    with pytest.raises(InputError, match="scope//other"):
        answers(folder, "scope", name="other")
    with pytest.raises(InputError, match="no estimator 'reach'"):
        answers(folder, "reach")
    with pytest.raises(InputError, match="is not there"):
        read_rollouts(tmp_path)
    pl.read_parquet(folder / "rollouts.parquet").drop("reason").write_parquet(folder / "rollouts.parquet")
    with pytest.raises(InputError, match="no column 'reason'"):
        read_rollouts(folder)
    (folder / "rollouts.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(InputError, match="cannot be read"):
        read_rollouts(folder)
