"""Columns of answers from rates whose risks and waits are known in closed form."""

import numpy as np
import pytest

from sequela.rollout.values.competing import CompetingRates
from sequela.task.answers.rates import risk_by_rates, time_by_rates

RATES = CompetingRates(np.zeros(1), np.array([[0.1], [0.02]]), np.array([[0.3], [0.0]]))


def test_a_risk_is_the_incidence_and_has_no_interval():
    columns = risk_by_rates(RATES, 5.0, 0.95)
    np.testing.assert_allclose(columns["prediction"], [(1 - np.exp(-2)) / 4, 1 - np.exp(-0.1)])
    assert np.isnan(columns["low"]).all() and np.isnan(columns["high"]).all()
    assert risk_by_rates(RATES, np.inf, 0.95)["prediction"] == pytest.approx([0.25, 1])


def test_a_time_is_of_those_who_reach_the_outcome():
    columns = time_by_rates(RATES, np.inf, 0.5)
    np.testing.assert_allclose(columns["reached"], [0.25, 1])
    for name, share in (("low", 0.25), ("prediction", 0.5), ("high", 0.75)):
        np.testing.assert_allclose(columns[name], -np.log(1 - share) / np.array([0.4, 0.02]))
    soon = time_by_rates(RATES, 1e-6, 0.5)  # within so short a time all moments are alike
    np.testing.assert_allclose(soon["prediction"], 5e-7, rtol=1e-4)
