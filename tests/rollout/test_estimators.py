"""Estimators against a finite world whose risks are exact."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sequela.record.worlds.markov import MarkovWorld
from sequela.rollout.estimators import answers
from tests.rollout.chain import (
    BOTH,
    CASES,
    SIZE,
    Chain,
    of_world,
    off,
    pool,
    risk,
    scores,
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
    assert answer.value.max() > 1.2
    assert answer.risk.max() == 1


# Answers


def test_the_answer_is_the_usual_mean_and_error():
    x = np.array([[0.1, 0.2, 0.6, np.nan], [0.5, np.nan, np.nan, np.nan], [np.nan] * 4])
    tokens = np.array([[3, 4, 5, 6], [7, 8, 0, 0], [0, 0, 0, 0]])
    answer = answers(x, None, tokens)
    known = x[0, :3]
    np.testing.assert_allclose(answer.value, [0.3, 0.5, np.nan])
    np.testing.assert_allclose(answer.standard_error, [known.std(ddof=1) / np.sqrt(3), np.nan, np.nan])
    np.testing.assert_allclose(answer.variance, [known.var(ddof=1), np.nan, np.nan])
    np.testing.assert_allclose(answer.discord, [2 / 3 * (0.35 - 0.2) ** 2, np.nan, np.nan])
    assert answer.rollouts.tolist() == [3, 1, 0]
    assert answer.undecidable.tolist() == [1, 1, 0]
    assert answer.tokens.tolist() == [18, 15, 0]
    np.testing.assert_allclose(answer.effective, [3, 1, 0])
    assert answers(x).undecidable.tolist() == [1, 3, 4]
