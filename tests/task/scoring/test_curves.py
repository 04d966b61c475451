"""The plotted curves agree with the scores printed beside them."""

from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sequela.rollout.estimators import wilson
from sequela.task.scoring.curves import ScoredPredictions, calibration, read_scored, roc
from sequela.task.scoring.metric import AUROC


def scored(n: int = 2000, seed: int = 0) -> ScoredPredictions:
    rng = np.random.default_rng(seed)
    risk = rng.beta(1, 4, n)
    return ScoredPredictions(rng.random(n) < risk, risk, rng.uniform(1, 3, n))


def area(points: list[tuple[float, float]]) -> float:
    x, y = np.array(points).T
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))


def test_area_under_the_curve_is_the_auroc() -> None:
    one = scored()
    points = roc(one)
    assert points[0] == (0.0, 0.0)
    assert points[-1] == pytest.approx((1.0, 1.0))
    assert area(points) == pytest.approx(float(AUROC(one.outcome, one.risk, one.weight)), abs=0.003)


def test_ties_are_one_point() -> None:
    one = ScoredPredictions(np.array([True, False, True, False]), np.array([0.5, 0.5, 0.5, 0.5]), np.ones(4))
    assert roc(one) == [(0.0, 0.0), (1.0, 1.0)]


def test_true_risks_are_calibrated_and_doubled_ones_are_not() -> None:
    one = scored(20_000)
    points, spread = calibration(one)
    assert len(points) == 10
    assert all(low <= y <= high for (_, y), (low, high) in zip(points, spread, strict=True))
    assert max(abs(x - y) for x, y in points) < 0.04
    wrong, _ = calibration(ScoredPredictions(one.outcome, np.minimum(1, 2 * one.risk), one.weight))
    assert max(abs(x - y) for x, y in wrong) > 0.1


def test_the_undecided_weigh_nothing_and_the_others_speak_for_them(tmp_path: Path) -> None:
    table = pl.DataFrame(
        {
            "subject_id": [1, 2, 3, 4],
            "prediction_time": [datetime(2000, 1, 1)] * 4,
            "boolean_value": [True, None, False, False],
            "predicted_boolean_probability": [0.5, 0.4, 0.3, 0.2],
            "until_days": [10.0, 20.0, 30.0, 30.0],
        }
    )
    table.write_parquet(tmp_path / "model.parquet")
    one = read_scored(tmp_path / "model.parquet")
    assert one is not None
    assert one.risk.tolist() == [0.5, 0.3, 0.2]
    assert one.weight == pytest.approx([1, 1.5, 1.5])


def test_one_class_has_no_curve(tmp_path: Path) -> None:
    table = pl.DataFrame({"boolean_value": [False, False], "predicted_boolean_probability": [0.5, 0.4]})
    table.write_parquet(tmp_path / "model.parquet")
    assert read_scored(tmp_path / "model.parquet") is None


@pytest.mark.parametrize("share", [0.0, 0.03, 0.5, 1.0])
def test_wilson_stays_inside(share: float) -> None:
    low, high = wilson(share, 50)
    assert 0 <= low <= share + 1e-9
    assert share - 1e-9 <= high <= 1
