"""Maps from risks to what happened, against scikit-learn and against risks whose error is known."""

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from sequela.task.scoring.recalibration import Credibility, Isotonic, enough, fit_isotonic, fit_logistic
from sequela.task.scoring.slope import CLIP

N = 4000


@pytest.fixture(scope="module")
def wrong():
    """Risks that are too extreme and too low: outcome, risk, weight, true risk."""
    random = np.random.default_rng(0)
    logit = random.normal(-1.5, 1, N)
    truth = 1 / (1 + np.exp(-logit))
    risk = 1 / (1 + np.exp(-(1.6 * logit - 0.5)))
    return (random.random(N) < truth).astype(float), risk, random.uniform(0.5, 3, N), truth


def test_logistic_is_the_weighted_maximum_of_likelihood(wrong):
    outcome, risk, weights, truth = wrong
    fit = fit_logistic(outcome, risk, weights, CLIP)
    logit = np.log(risk / (1 - risk))[:, None]
    theirs = LogisticRegression(C=np.inf, tol=1e-10).fit(logit, outcome, sample_weight=weights)
    np.testing.assert_allclose([fit.intercept, fit.slope], [theirs.intercept_[0], theirs.coef_[0, 0]], rtol=1e-4)
    assert fit.slope == pytest.approx(1 / 1.6, rel=0.15)
    assert np.abs(fit(risk) - truth).mean() < 0.2 * np.abs(risk - truth).mean()
    assert (np.diff(fit(np.sort(risk))) >= 0).all()
    assert np.isnan(fit(np.array([np.nan]))).all() and np.isfinite(fit(np.array([0.0, 1.0]))).all()


def test_few_outcomes_move_a_sound_model_little_and_many_an_unsound_one(wrong):
    outcome, risk, weights, truth = wrong
    free = fit_logistic(outcome, risk, weights, CLIP)
    held = fit_logistic(outcome, risk, weights, CLIP, 0.15)
    assert np.abs(held(risk) - truth).mean() < 0.3 * np.abs(risk - truth).mean()  # thousands of outcomes overrule it
    assert fit_logistic(outcome, risk, weights, CLIP, 100.0).slope == pytest.approx(free.slope, rel=1e-3)
    assert fit_logistic(outcome, risk, 7 * weights, CLIP, 0.15).slope == pytest.approx(held.slope, rel=1e-3)
    random, off = np.random.default_rng(1), {}
    for _ in range(40):  # sound risks, and some 25 outcomes
        some = random.choice(N, 120, replace=False)
        came = (random.random(120) < truth[some]).astype(float)
        for prior in (None, 0.15, 100.0):
            fit = fit_logistic(came, truth[some], np.ones(120), CLIP, prior)
            off.setdefault(prior, []).append(np.abs(fit(truth) - truth).mean())
    assert np.mean(off[0.15]) < 0.6 * np.mean(off[None])
    assert np.mean(off[100.0]) == pytest.approx(np.mean(off[None]), rel=0.05)  # negative control: no prior to speak of


def test_risks_of_few_votes_become_what_bayes_says_they_mean():
    random, votes, a, b = np.random.default_rng(2), 10, 1.0, 6.0
    truth = random.beta(a, b, 100_000)
    share = random.binomial(votes, truth) / votes
    noise = np.mean(share * (1 - share)) / (votes - 1)
    credible = Credibility.of(share, noise)
    posterior = (a + votes * share) / (a + b + votes)
    np.testing.assert_allclose(credible(share), posterior, atol=0.005)
    outcome, ones = (random.random(len(truth)) < truth).astype(float), np.ones(len(truth))
    raw, drawn = (fit_logistic(outcome, share, ones, CLIP, None, how) for how in (Credibility(), credible))
    assert drawn.slope == pytest.approx(1, abs=0.05) and raw.slope < 0.5  # negative control: noise flattens
    np.testing.assert_allclose(drawn(np.unique(share)[:6]), np.unique(posterior)[:6], atol=0.01)


def test_credibility_keeps_the_order_and_does_nothing_where_noise_is_not_known():
    risk = np.array([0.1, 0.2, 0.6])
    assert (np.diff(Credibility.of(risk, 9.0)(risk)) > 0).all()
    assert Credibility.of(risk, 0.0)(risk) == pytest.approx(risk)
    for same in (Credibility.of(risk, np.nan), Credibility.of(risk[:1], 0.1), Credibility.of(0 * risk, 0.1)):
        assert same == Credibility()
    assert np.ptp(Credibility.of(risk, 0.03)(risk)) < 0.8 * np.ptp(risk)  # negative control: known noise draws them in


def test_isotonic_is_that_of_scikit_learn(wrong):
    outcome, risk, weights, truth = wrong
    risk = risk.round(2)  # ties
    fit = fit_isotonic(outcome, risk, weights)
    theirs = IsotonicRegression(out_of_bounds="clip").fit(risk, outcome, sample_weight=weights)
    steps = theirs.predict(np.unique(risk))
    assert len(fit.risk) == len(np.unique(steps.round(9)))
    np.testing.assert_allclose(np.sort(fit.recalibrated), np.unique(steps.round(9)), atol=1e-6)
    assert (fit(risk) @ weights) / weights.sum() == pytest.approx((outcome @ weights) / weights.sum(), abs=0.01)
    assert np.abs(fit(risk) - truth).mean() < 0.4 * np.abs(risk - truth).mean()
    assert (np.diff(fit(np.sort(risk))) >= 0).all()


def test_a_row_without_weight_is_not_there(wrong):
    outcome, risk, weights, _ = wrong
    some = weights * (np.arange(N) % 3 > 0)
    kept = some > 0
    assert fit_isotonic(outcome, risk, some) == fit_isotonic(outcome[kept], risk[kept], some[kept])
    one, other = fit_logistic(outcome, risk, some, CLIP), fit_logistic(outcome[kept], risk[kept], some[kept], CLIP)
    assert one.slope == pytest.approx(other.slope) and one.intercept == pytest.approx(other.intercept)
    assert one.slope != pytest.approx(fit_logistic(outcome, risk, weights, CLIP).slope)  # negative control


def test_what_would_turn_the_order_or_rests_on_few_is_not_fitted(wrong):
    outcome, risk, weights, _ = wrong
    assert fit_logistic(1 - outcome, risk, weights, CLIP) is None
    assert fit_logistic(outcome, np.full(N, 0.3), weights, CLIP) is None
    assert fit_logistic(1 - outcome, risk, weights, CLIP, 0.15) is None  # thousands turn it, prior or not
    assert fit_logistic(outcome, np.where(np.arange(N) == 0, np.nan, risk), weights, CLIP, 0.15) is None
    assert fit_logistic(outcome, risk, 0 * weights, CLIP, 0.15) is None
    flat = fit_logistic(outcome, np.full(N, 0.3), weights, CLIP, 0.15)
    assert flat.slope == pytest.approx(1)  # only the shift is known
    assert flat(np.array([0.3])) == pytest.approx(outcome @ weights / weights.sum(), abs=0.01)
    assert not enough(np.array([1.0] * 9 + [0.0] * 50)) and not enough(np.array([1.0] * 50 + [0.0] * 9))
    assert enough(np.array([1.0] * 10 + [0.0] * 10))
    flat = fit_isotonic(np.array([1.0, 0.0]), np.array([0.25, 0.75]), np.ones(2))
    assert flat == Isotonic((0.5,), (0.5,))
