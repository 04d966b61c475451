"""The bench of visits: moments are counted while somebody is watched, and too few of them are seen."""

import importlib
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
NOW = datetime(2020, 1, 1)


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    return importlib.import_module("visits")


def test_moments_and_years_are_those_under_observation(bench):
    rows = [(1, 10, "A"), (1, 10, "B"), (1, 20, "unseen"), (1, 200, "A"), (1, 800, "A"), (1, 900, "FOLLOW_UP//END"),
            (2, 73.05, "MEDS_DEATH"), (3, 36.525, "unseen")]  # fmt: skip
    events = pl.DataFrame(
        [(patient, NOW, NOW + timedelta(days=days), code) for patient, days, code in rows],
        schema=["subject_id", "prediction_time", "time", "code"],
        orient="row",
    )
    found = bench.visits(events, ["subject_id"], 1.0, pl.Series(["A", "B", "MEDS_DEATH"])).sort("subject_id")
    assert found["moments"].to_list() == [2, 1, 0]
    assert found["years"].to_list() == pytest.approx([1, 0.2, 0.1])


def test_half_as_many_visits_are_half_the_ratio(bench):
    draws = np.random.default_rng(0)
    real = draws.poisson(2.0, 400)
    found = pl.DataFrame({"subject_id": np.arange(400), "moments": real, "years": np.ones(400)})
    found = found.with_columns(imagined_moments=pl.col("moments") * 10, imagined_years=10.0)
    same = bench.line("same", found, np.random.default_rng(0), 200)
    assert same["ratio"] == pytest.approx(1) and same["real"] == pytest.approx(real.mean())
    half = bench.line("half", found.with_columns(imagined_years=20.0), np.random.default_rng(0), 200)
    assert half["ratio"] == pytest.approx(0.5) and half["low"] <= 0.5 <= half["high"] < 0.6


def test_intervals_are_over_patients_not_questions(bench):
    draws = np.random.default_rng(0)
    found = pl.DataFrame({"subject_id": np.arange(400), "moments": draws.poisson(2.0, 400), "years": np.ones(400)})
    found = found.with_columns(imagined_moments=pl.Series(draws.poisson(20.0, 400)), imagined_years=10.0)
    once = bench.line("once", found, np.random.default_rng(0), 200)
    twice = bench.line("twice", pl.concat([found, found]), np.random.default_rng(0), 200)
    assert twice["questions"] == 800 and once["high"] - once["low"] > 0.1
    assert (twice["low"], twice["high"]) == pytest.approx((once["low"], once["high"]))
