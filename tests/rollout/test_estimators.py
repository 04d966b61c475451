"""Estimators against a finite world whose risks are exact."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from sequela.record.worlds.markov import MarkovWorld
from sequela.rollout.estimators import _student, answers, interval
from tests.rollout.chain import (
    BOTH,
    CASES,
    SIZE,
    Chain,
    covered,
    of_world,
    off,
    pool,
    risk,
    scores,
    within,
)

# The world and its controls


def test_the_chain_is_the_known_world():
    for times, level, days in ((1, 2, 7), (0.05, 1, 3), (1.4, 0, 30)):
        assert of_world(times, days).risk(level) == pytest.approx(MarkovWorld.known(times).risk(level, days))
    assert [round(risk(case), 4) for case in CASES] == [0.3128, 0.1017, 0.0087, 0.0022, 0.2575, 0.0252, 0.001]


@pytest.mark.parametrize(("case", "estimator"), BOTH)
def test_every_estimator_is_unbiased(case: str, estimator: str):
    assert abs(off(scores(case, estimator, 1)[:, 0], risk(case))) < 4


@pytest.mark.parametrize("case", ["world, often", "world", "rich, often", "rich"])
def test_what_is_left_out_or_counted_too_long_is_seen(case: str):
    ordinary, avoiding = pool(case, False), pool(case, True)
    left_out = 1 - (1 - avoiding["reached"]) / (1 - avoiding["truncating"])
    assert off(ordinary["hazard"] - ordinary["truncating"], risk(case)) < -4
    assert off(left_out, risk(case)) < -4
    chain, start = CASES[case]
    late = replace(chain, horizon=chain.horizon + 6).rollouts(start, SIZE, 1, avoid=False)
    assert off(late["happened"], risk(case)) > 4
    assert off(pool(case, True)["hazard"], risk(case)) > 4  # hazards summed where the outcome is avoided


@pytest.mark.parametrize("case", CASES)
def test_reach_never_varies_more_than_mc(case: str):
    def variance(estimator: str) -> tuple[float, float]:
        x = scores(case, estimator, 1)[:, 0]
        square = (x - x.mean()) ** 2
        return square.mean(), square.std() / np.sqrt(len(x))

    (reach, reach_error), (mc, mc_error), (scope, scope_error) = map(variance, ("reach", "mc", "scope"))
    assert reach <= mc + 4 * np.hypot(reach_error, mc_error)
    assert mc / reach > 1 / max(risk(case), 0.15)  # measured: 7 to 2000 times
    assert scope <= mc - 4 * np.hypot(scope_error, mc_error)  # here, not always:


def test_scope_can_vary_more_than_mc_and_exceed_one():
    one = np.ones(1, np.int64)
    chain = Chain(np.array([0.2]), np.zeros(1), np.ones((1, 1)), one, 30)
    drawn, truth = chain.rollouts(0, 20_000, 0, avoid=False), chain.risk(0)
    assert abs(off(drawn["hazard"], truth)) < 4
    assert drawn["hazard"].var() > 20 * drawn["happened"].var()
    answer = answers(drawn["hazard"].reshape(-1, 20))
    low, high = interval(answer, "scope")
    assert answer.value.max() > 1.2
    assert answer.risk.max() == 1
    assert low.min() >= 0 and high.max() == 1
    assert within(covered(answer, "scope", truth), 1000)


# Answers and intervals


def test_the_answer_is_the_usual_mean_and_error():
    x = np.array([[0.1, 0.2, 0.6, np.nan], [0.5, np.nan, np.nan, np.nan], [np.nan] * 4])
    tokens = np.array([[3, 4, 5, 6], [7, 8, 0, 0], [0, 0, 0, 0]])
    answer = answers(x, None, tokens)
    known = x[0, :3]
    np.testing.assert_allclose(answer.value, [0.3, 0.5, np.nan])
    np.testing.assert_allclose(answer.standard_error, [known.std(ddof=1) / np.sqrt(3), np.nan, np.nan])
    np.testing.assert_allclose(
        answer.skewness[0], ((known - 0.3) ** 3).mean() / known.std(ddof=1) ** 3, rtol=1e-9
    )
    assert answer.rollouts.tolist() == [3, 1, 0]
    assert answer.undecidable.tolist() == [1, 1, 0]
    assert answer.tokens.tolist() == [18, 15, 0]
    np.testing.assert_allclose(answer.effective, [3, 1, 0])
    assert answers(x).undecidable.tolist() == [1, 3, 4]
    low, high = interval(answer, "mc")
    assert low[1] < 0.5 < high[1]
    assert np.isnan([low[2], high[2]]).all()


def test_intervals_are_those_of_the_books():
    answer = answers(np.array([[0.0] * 10, [1.0] * 10, [1.0] * 3 + [0.0] * 7]))
    wilson = [stats.binomtest(k, 10).proportion_ci(0.95, "wilson") for k in (0, 10, 3)]
    low, high = interval(answer, "mc")
    np.testing.assert_allclose(np.stack([low, high], 1), [(one.low, one.high) for one in wilson], atol=1e-12)
    for estimator in ("scope", "reach"):  # equal scores do not mean that the next one is equal too
        same = answers(np.full((1, 10), 0.2) + np.random.default_rng(0).normal(0, 1e-8, (1, 10)))
        assert interval(same, estimator)[1] > 0.4
        symmetric = answers(np.array([[0.3, 0.4, 0.5, 0.6, 0.7]]))
        error = stats.t.ppf(0.975, 4) * symmetric.standard_error[0]
        np.testing.assert_allclose(
            np.ravel(interval(symmetric, estimator)), [0.5 - error, 0.5 + error], rtol=1e-4
        )
    for confidence in (0.9, 0.95, 0.999):
        freedom = np.array([1, 2, 3, 9, 99, 300, 1e4])
        np.testing.assert_allclose(
            _student(confidence, freedom), stats.t.ppf((1 + confidence) / 2, freedom), rtol=1e-4
        )
    with pytest.raises(ValueError, match="no estimator 'best'"):
        interval(answer, "best")


@pytest.mark.parametrize("estimator", ["scope", "reach"])
@pytest.mark.parametrize("case", CASES)
def test_intervals_cover(case: str, estimator: str):
    for n in (10, 25, 100):
        answer = answers(scores(case, estimator, n, min(4000, SIZE // n)))
        count = len(answer.value)
        assert within(covered(answer, estimator, risk(case)), count), n
        assert not within(covered(answer, estimator, risk(case), 0.5), count)
        assert not within(covered(answer, estimator, risk(case), 2), count)


def test_intervals_of_votes_cover_over_a_cohort():
    """Of one risk they cannot: 10 votes give 11 intervals. Over many risks they do."""
    random = np.random.default_rng(3)
    truth = np.exp(random.uniform(np.log(0.001), np.log(0.3), 8000))
    for n in (10, 25, 100):
        votes = random.random((len(truth), n)) < truth[:, None]
        assert within(covered(answers(votes.astype(float)), "mc", truth), len(truth))
        assert not within(covered(answers(votes.astype(float)), "mc", truth, 0.5), len(truth))


def test_where_rollouts_see_the_crisis_rarely():
    """Two days from a good state: the only score of 20 that counts is a rare one. Student's t does not know."""
    chain, start = of_world(0.05, 2), 0
    x = chain.rollouts(start, 100_000, 5, avoid=False)["hazard"]
    for n in (10, 16, 25):
        answer = answers(x[: 4000 * n].reshape(4000, n))
        plain = stats.t.ppf(0.975, n - 1) * answer.standard_error
        assert 0.93 <= covered(answer, "scope", chain.risk(start)) <= 1
        assert (np.abs(answer.value - chain.risk(start)) <= plain).mean() < 0.85
