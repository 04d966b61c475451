"""Competing rates against exact numbers: closed forms by hand, and days drawn from them."""

import numpy as np
import pytest

from sequela.rollout.values.competing import CompetingRates

EDGES = np.array([0.0, 10.0, 40.0])
RATES = CompetingRates(
    EDGES, np.array([[0.02, 0.05, 0.01], [0.0, 0.1, 0.0]]), np.array([[0.01, 0.0, 0.03], [0.2, 0.0, 0.1]])
)


def test_one_constant_rate_is_an_exponential_wait():
    alone = CompetingRates(np.zeros(1), np.array([[0.1]]), np.zeros((1, 1)))
    days = np.array([0.0, 1.0, 30.0, np.inf])
    np.testing.assert_allclose(alone.incidence(days)[0], 1 - np.exp(-0.1 * days))
    assert alone.quantile(0.5)[0] == pytest.approx(np.log(2) / 0.1)
    assert alone.remaining(np.array([7.0]), 10.0)[0, 0] == pytest.approx(1 - np.exp(-0.3))
    both = CompetingRates(np.zeros(1), np.array([[0.1]]), np.array([[0.3]]))
    assert both.incidence(np.array([np.inf]))[0, 0] == pytest.approx(1 / 4)
    assert both.incidence(np.array([5.0]))[0, 0] == pytest.approx((1 - np.exp(-2.0)) / 4)


def test_pieces_add_up():
    first = 2 / 3 * (1 - np.exp(-0.03 * 10))
    second = np.exp(-0.03 * 10) * (1 - np.exp(-0.05 * 30))
    last = np.exp(-0.03 * 10 - 0.05 * 30) * 0.25
    np.testing.assert_allclose(RATES.incidence(np.array([10.0, 40.0, np.inf]))[0], np.cumsum([first, second, last]))
    np.testing.assert_allclose(RATES.waiting(np.array([0.0, 25.0]))[0], [1, np.exp(-0.3 - 0.75)])


def test_what_is_left_is_the_risk_of_those_who_wait():
    days = np.array([0.0, 3.0, 10.0, 35.0, 60.0, 90.0])
    left, risk = RATES.remaining(days, 60.0), RATES.incidence(np.array([60.0]))
    by_hand = (risk - RATES.incidence(days)) / RATES.waiting(days)
    np.testing.assert_allclose(left[:, :5], by_hand[:, :5], rtol=1e-9, atol=1e-12)
    assert (left[:, 4:] == 0).all() and left[0, 0] == risk[0, 0]
    fast = CompetingRates(np.zeros(1), np.array([[5.0]]), np.array([[15.0]]))
    assert fast.waiting(np.array([50.0]))[0, 0] == 0  # nobody waits so long, and yet:
    np.testing.assert_allclose(fast.remaining(np.array([50.0, 900.0]), np.inf), 0.25)


def test_quantiles_are_those_of_who_reaches_it():
    for share in (0.025, 0.5, 0.975):
        for horizon in (5.0, 60.0, np.inf):
            day = RATES.quantile(share, horizon)
            reached = np.diagonal(RATES.incidence(day))
            whole = RATES.incidence(np.array([horizon]))[:, 0]
            some = whole > 0
            np.testing.assert_allclose(reached[some], share * whole[some], rtol=1e-9)
    never = CompetingRates(np.zeros(1), np.zeros((1, 1)), np.array([[1.0]]))
    assert np.isnan(never.quantile(0.5)).all()


def test_a_set_is_exact_where_its_members_come_independently():
    """The first of several independent waits comes at the sum of their rates; together they do not."""
    random = np.random.default_rng(0)
    waits = random.exponential(1 / np.array([0.02, 0.05]), (200_000, 2))
    death = random.exponential(1 / 0.03, 200_000)
    summed = CompetingRates(np.zeros(1), np.array([[0.07]]), np.array([[0.03]])).incidence(np.array([20.0]))[0, 0]

    def drawn(first):
        return ((first < 20) & (first < death)).mean()

    assert abs(drawn(waits.min(1)) - summed) < 0.005
    assert summed - drawn(waits[:, 1]) > 0.03  # one that always comes with the other: counted twice
