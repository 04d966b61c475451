import numpy as np
import pytest

from sequela.task.scoring import slope, sums
from sequela.task.scoring.slope import SlopeFit
from tests.task.scoring.test_metric import slope_by_statsmodels


def rows(count: int = 3_000, spread: float = 1.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    logit = draw.normal(-1, spread, count)
    outcome = (draw.random(count) < 1 / (1 + np.exp(-logit))).astype(float)
    return outcome, 1 / (1 + np.exp(-0.7 * logit)), draw.exponential(size=(count, 4))


@pytest.mark.parametrize("spread", [0.05, 1.5, 6.0])
def test_intervals_give_the_slope_of_the_rows(monkeypatch, spread):
    outcome, prediction, weights = rows(spread=spread)
    expected = [slope_by_statsmodels(outcome, prediction, column) for column in weights.T]
    by_rows = SlopeFit.of(outcome, prediction).slope(weights)
    monkeypatch.setattr(sums, "MANY", 100)
    np.testing.assert_allclose(SlopeFit.of(outcome, prediction).slope(weights), by_rows, rtol=1e-7)
    np.testing.assert_allclose(SlopeFit.of(outcome, prediction).slope(weights[:, 0]), by_rows[0], rtol=1e-7)
    np.testing.assert_allclose(by_rows, expected, rtol=1e-6)


def test_few_intervals_are_too_rough_and_are_not_used(monkeypatch):
    """The negative control: with four intervals alone the slope is off; the check sends the fit back to the rows."""
    outcome, prediction, weights = rows()
    exact = SlopeFit.of(outcome, prediction).slope(weights)
    monkeypatch.setattr(sums, "MANY", 100)
    monkeypatch.setattr(slope, "INTERVALS", 4)
    np.testing.assert_allclose(SlopeFit.of(outcome, prediction).slope(weights), exact, rtol=1e-7)
    monkeypatch.setattr(slope, "STEEPEST", 99.0)
    assert np.abs(SlopeFit.of(outcome, prediction).slope(weights) / exact - 1).max() > 1e-3


def test_what_has_no_slope_has_none_in_intervals(monkeypatch):
    monkeypatch.setattr(sums, "MANY", 100)
    half = np.repeat([0.0, 1.0], 200)
    assert np.isnan(SlopeFit.of(half, np.linspace(0.1, 0.9, 400)).slope(np.ones(400)))  # separable
    assert np.isnan(SlopeFit.of(np.ones(400), np.linspace(0.1, 0.9, 400)).slope(np.ones(400)))
    assert np.isnan(SlopeFit.of(half, np.full(400, 0.3)).slope(np.ones(400)))
    assert np.isnan(SlopeFit.of(half, np.linspace(0.1, 0.9, 400)).slope(np.zeros(400)))
