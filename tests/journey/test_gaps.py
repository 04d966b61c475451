"""Horizons between interval edges, and silence until now: risks of a model that knows the truth are the true ones.

All gaps of this world lie within few classes of intervals, one of which reaches from 30 to 180 days: what happens
within 45, 75 or 120 days, and after how long a silence, is decided inside of it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from sequela import SimulateSettings
from sequela.record.schema import DEATH
from sequela.record.worlds.renewal import RenewalWorld
from sequela.rollout import forecast as forecasting
from sequela.rollout.request import Request
from sequela.tokens.ehr.clock import Intervals
from tests.journey.oracle import oracle, with_intervals

WORLD = RenewalWorld()
CODES = [code for code, _ in WORLD.sooner]
HORIZONS = (20, 45, 75, 120)
SILENT = (0, 25, 60, 110)
EACH, ROLLOUTS = 120, 10
START = datetime(2000, 1, 1)


def asked(each: int) -> pl.DataFrame:
    """Questions after one scan: `subject_id`, `prediction_time`, and what the truth depends on, `code` and `silent`."""
    cells = [(code, silent) for code in CODES for silent in SILENT for _ in range(each)]
    frame = pl.DataFrame(cells, schema={"code": pl.String, "silent": pl.Int64}, orient="row")
    at = pl.lit(START) + pl.duration(days="silent", minutes=1)
    return frame.with_row_index("subject_id").with_columns(
        pl.col("subject_id").cast(pl.Int64), prediction_time=at.cast(pl.Datetime("us"))
    )


def risks(folder: Path, each: int = EACH) -> pl.DataFrame:
    """The predicted `risk` and the `true` one of each patient by `code`, `silent` and `horizon`."""
    questions = asked(each)
    events = questions.select(
        "subject_id", pl.lit(START).cast(pl.Datetime("us")).alias("time"), "code",
        pl.lit(None, pl.Float32).alias("numeric_value"),
    )  # fmt: skip
    times = questions.select("subject_id", "prediction_time")
    requests = [Request(str(days), times, (DEATH,), (), 1440 * days) for days in HORIZONS]
    settings = SimulateSettings(rollouts=ROLLOUTS, limit=64)
    done = forecasting.forecast(forecasting.load(folder, settings), events, requests, settings)
    rollouts = done.rollouts().join(questions, on=["subject_id", "prediction_time"])
    key = ("subject_id", "code", "silent")
    patients = rollouts.group_by(key).agg(pl.col(f"scope//{days}").mean().alias(str(days)) for days in HORIZONS)
    table = patients.unpivot(on=[str(days) for days in HORIZONS], index=key, variable_name="horizon", value_name="risk")
    table = table.with_columns(pl.col("horizon").cast(pl.Int64), pl.col("risk").cast(pl.Float64))
    cells = table.select("code", "silent", "horizon").unique()
    true = [WORLD.risk(*cell) for cell in cells.rows()]
    return table.join(cells.with_columns(true=pl.Series(true)), on=["code", "silent", "horizon"])


def off(table: pl.DataFrame) -> dict[int, float]:
    """By horizon, the mean predicted risk over the mean true one, less 1."""
    means = table.group_by("horizon").agg(pl.col("risk").mean() / pl.col("true").mean() - 1)
    return dict(means.rows())


def apart(table: pl.DataFrame) -> float:
    """The largest distance of a cell's mean from the truth, in standard errors of sampling."""
    error = pl.col("risk").std() / pl.len().sqrt() + 0.01 * pl.col("true").first()
    far = (pl.col("risk").mean() - pl.col("true").first()).abs() / error
    return table.group_by("code", "silent", "horizon").agg(far=far)["far"].max()


def lost(table: pl.DataFrame) -> dict[int, float]:
    """By horizon, the AUROC of the true risks less that of the predicted ones, expected over what happens.

    Patients who are alike share their rollouts, of which there are many then.
    """
    found = {}
    alike = table.with_columns(pl.col("risk").mean().over("code", "silent", "horizon"))
    for (days,), one in alike.group_by("horizon"):
        outcome = np.repeat([1, 0], len(one))
        weight = np.concatenate([one["true"], 1 - one["true"]])
        best, ours = (
            roc_auc_score(outcome, np.tile(one[name], 2), sample_weight=weight) for name in ("true", "risk")
        )
        found[days] = best - ours
    return found


@pytest.fixture(scope="module")
def knowing(tmp_path_factory):
    return oracle(WORLD, tmp_path_factory.mktemp("oracle"))


def test_risks_between_edges_and_after_silence_are_the_true_ones(knowing):
    table = risks(knowing)
    assert max(abs(x) for x in off(table).values()) < 0.02
    assert apart(table) < 4
    assert max(lost(table).values()) < 0.01


def test_one_length_for_all_gaps_of_a_class_is_rejected(knowing, tmp_path):
    """Negative control: a staircase over time."""
    stairs = with_intervals(knowing, lambda x: Intervals.constant(x.edges, x.means), tmp_path / "stairs")
    assert off(risks(stairs, 40))[45] < -0.2


def test_a_silence_that_counts_for_nothing_is_rejected(knowing, monkeypatch):
    """Negative control: the class that holds the silence keeps its whole probability, and a gap that is over is now."""
    made, drawn = forecasting.prompts_of, Intervals.minutes

    def whole(*arguments):
        times, prompts = made(*arguments)
        return times, replace(prompts, first=(prompts.first > 0).astype(prompts.first.dtype))

    def any_gap(intervals, interval, uniform, rest):
        return drawn(intervals, interval, uniform, np.full_like(rest, -1))

    monkeypatch.setattr(forecasting, "prompts_of", whole)
    monkeypatch.setattr(Intervals, "minutes", any_gap)
    table = risks(knowing, 40)
    assert apart(table.filter(pl.col("silent") == 0)) < 4  # where nobody is silent, nothing changes
    assert apart(table.filter(pl.col("silent") > 0)) > 8
