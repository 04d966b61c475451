"""Intervals of single risks that borrow their spread from the run, against worlds whose risks are exact."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sequela.rollout.estimators import answers
from sequela.rollout.spread import PRIOR, VOTES, Spread, interval, prior, spread_of
from tests.rollout.chain import CASES, SIZE, Chain, covered, of_world, risk, scores, within


@pytest.mark.parametrize("estimator", ["scope", "reach"])
@pytest.mark.parametrize("case", CASES)
def test_intervals_cover(case: str, estimator: str):
    for n in (5, 10, 20, 50):
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


def test_of_votes_it_is_wilsons():
    answer = answers(np.array([[0.0] * 10, [1.0] * 10, [1.0] * 3 + [0.0] * 7]))
    wilson = [stats.binomtest(k, 10).proportion_ci(0.95, "wilson") for k in (0, 10, 3)]
    low, high = interval(answer, VOTES)
    np.testing.assert_allclose(np.stack([low, high], 1), [(one.low, one.high) for one in wilson], atol=1e-12)
    with pytest.raises(ValueError, match="no estimator 'best'"):
        spread_of(answer, "best")


def test_where_rollouts_see_the_crisis_rarely():
    """Two days from a good state: the only score of 20 that counts is a rare one. Who knows only the ten of one
    patient, as Student's t does, misses it."""
    chain, start = of_world(0.05, 2), 0
    x = chain.rollouts(start, 100_000, 5, avoid=False)["hazard"]
    for n in (10, 16, 25):
        answer = answers(x[: 4000 * n].reshape(4000, n))
        plain = stats.t.ppf(0.975, n - 1) * answer.standard_error
        assert 0.9 <= covered(answer, "scope", chain.risk(start)) <= 0.99
        assert (np.abs(answer.value - chain.risk(start)) <= plain).mean() < 0.85


def test_sums_beyond_one():
    """A wild score: its variance is twenty times that of a vote, and its mean often above 1."""
    one = np.ones(1, np.int64)
    chain = Chain(np.array([0.2]), np.zeros(1), np.ones((1, 1)), one, 30)
    answer = answers(chain.rollouts(0, 20_000, 0, avoid=False)["hazard"].reshape(-1, 20))
    low, high = interval(answer, spread_of(answer, "scope"))
    assert answer.value.max() > 1.2 and low.min() >= 0 and high.max() == 1
    assert covered(answer, "scope", chain.risk(0)) > 0.93


def test_few_questions_lean_on_what_was_known_before():
    """One question hardly moves it, a thousand settle it; nobody's scores are ever sure."""
    many = answers(scores("rich", "scope", 10, 4000))
    told = spread_of(many, "scope")
    assert told.overdispersion == pytest.approx(0.021, rel=0.1) and told.questions > 1000
    one = answers(scores("rich", "scope", 10, 1))
    assert spread_of(one, "scope").overdispersion == pytest.approx(PRIOR.overdispersion, rel=0.2)
    alone, beside = (np.ravel(interval(one, spread_of(one, "scope", before))) for before in (None, told))
    assert np.ptp(beside) < 0.5 * np.ptp(alone)
    for score in (0.0, 0.2, 1.0, 1.7):  # equal scores do not mean that the next one is equal too
        for count in (1, 500):
            low, high = interval(same := answers(np.full((count, 10), score)), spread_of(same, "scope"))
            assert (low < min(score, 1)).all() or score == 0
            assert (high > score).all() or score >= 1
            assert np.isfinite(low).all() and (low >= 0).all() and (high <= 1).all()


def test_without_answers_there_is_no_interval():
    answer = answers(np.array([[np.nan] * 4, [0.2, np.nan, np.nan, np.nan]]))
    spread = spread_of(answer, "reach")
    assert (spread.overdispersion, spread.effect) == (prior("reach").overdispersion, 1)
    low, high = interval(answer, spread)
    assert np.isnan([low[0], high[0]]).all() and 0 < low[1] < 0.2 < high[1] < 1


def stratified(questions: int, n: int, *, evenly: bool, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores and their true means. The first token decides most of a score: below a threshold it is high."""
    random = np.random.default_rng(seed)
    threshold = random.uniform(0.1, 0.5, questions)[:, None]
    number = np.arange(n)
    u = random.random((questions, n))
    if evenly:
        u = (np.take(random.random((questions, 2)), number % 2, 1) + (number // 2) * (5**0.5 - 1) / 2) % 1
    rest = random.uniform(0, 0.4, (questions, n))
    return np.where(u < threshold, 0.4, 0.0) + rest, (0.2 + 0.4 * threshold)[:, 0]


@pytest.mark.parametrize("n", [5, 10, 20, 50])
def test_first_tokens_spread_evenly_narrow_the_intervals(n: int):
    """By the variance that the two halves show; of independent ones the same halves show none."""
    x, truth = stratified(4000, n, evenly=True)
    answer = answers(x)
    spread = spread_of(answer, "scope")
    share = (answer.value - truth).var() / (answer.variance / n).mean()
    assert share < 0.6 and spread.effect == pytest.approx(share, rel=0.15)
    assert 0.93 <= covered(answer, "scope", truth) <= 0.99
    low, high = interval(answer, Spread(spread.overdispersion))
    assert ((low <= truth) & (truth <= high)).mean() > 0.985  # negative control: as if they were independent
    free, truth = stratified(4000, n, evenly=False)
    assert spread_of(answers(free), "scope").effect == pytest.approx(1, abs=0.15)
    assert 0.93 <= covered(answers(free), "scope", truth) <= 0.99
