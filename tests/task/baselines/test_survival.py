import numpy as np
import pytest

from sequela.task.baselines.survival import _coarse, fit_forest, incidence, installed
from tests.task.baselines.competing import sample_with_competing_death


def test_incidence_counts_no_outcome_of_the_dead():
    """Two causes with constant hazards: the share of the first among all events, not what it would be alone."""
    first, second = np.full((1, 1000), 0.001), np.full((1, 1000), 0.003)
    assert incidence([first, second])[0] == pytest.approx(0.25 * -np.expm1(-4), rel=1e-6)
    assert incidence([first])[0] == pytest.approx(-np.expm1(-1), rel=1e-6)
    assert incidence([0 * first, second])[0] == 0


def test_coarse_times_keep_who_is_at_risk():
    until, known = np.array([1.0, 2.0, 3.0, 0.5, 2.5, 9.0]), np.array([True, True, True, False, False, False])
    np.testing.assert_array_equal(_coarse(until, known), [1, 2, 3, 0, 2, 3])


@pytest.mark.skipif(not installed(), reason="needs scikit-survival: pip install sequela[survival]")
def test_the_forest_gives_the_incidence_with_competing_death():
    sample, event = sample_with_competing_death(2_000)
    prediction = fit_forest(sample, 10.0, seed=0)(sample.values)
    observed = np.average(np.nan_to_num(sample.outcome), weights=sample.weights)
    assert prediction.mean() == pytest.approx(observed, rel=0.05)
    assert (event <= 10).mean() > 1.3 * observed
    assert np.corrcoef(prediction, sample.values[:, 2])[0, 1] > 0.8
