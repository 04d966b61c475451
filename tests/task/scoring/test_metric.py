import numpy as np
import pytest
import statsmodels.api as sm
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    mean_absolute_error,
    roc_auc_score,
    root_mean_squared_log_error,
)

from sequela.task.scoring import metric
from sequela.task.scoring.censoring import censoring_weights
from sequela.task.scoring.slope import CLIP

BINARY = (metric.AUROC, metric.AUPRC, metric.BRIER, metric.ECE, metric.CALIBRATION_SLOPE)


def scored(rows: int = 300, seed: int = 0, digits: int = 2):
    """Outcomes and calibrated predictions, rounded so that many are tied."""
    draw = np.random.default_rng(seed)
    risk = 1 / (1 + np.exp(1.5 - draw.normal(size=rows)))
    return (draw.random(rows) < risk).astype(float), np.round(risk, digits)


def slope_by_statsmodels(outcome, prediction, sample_weight):
    clipped = np.clip(prediction, CLIP, 1 - CLIP)
    x = sm.add_constant(np.log(clipped / (1 - clipped)))
    return sm.GLM(outcome, x, family=sm.families.Binomial(), freq_weights=sample_weight).fit().params[1]


def ece_by_hand(outcome, prediction, sample_weight):
    total = 0.0
    for k in range(10):
        last = k == 9
        inside = (prediction >= k / 10) & ((prediction < (k + 1) / 10) | (last & (prediction <= 1)))
        total += abs(np.sum((sample_weight * (outcome - prediction))[inside]))
    return total / np.sum(sample_weight)


ORACLES = [
    (metric.AUROC, roc_auc_score),
    (metric.AUPRC, average_precision_score),
    (metric.BRIER, brier_score_loss),
    (metric.MAE, mean_absolute_error),
    (metric.RMSLE, root_mean_squared_log_error),
    (metric.CALIBRATION_SLOPE, slope_by_statsmodels),
    (metric.ECE, ece_by_hand),
]


@pytest.mark.parametrize(("ours", "theirs"), ORACLES)
@pytest.mark.parametrize("digits", [1, 2, 9])
def test_equal_weights(ours, theirs, digits):
    outcome, prediction = scored(digits=digits)
    ones = np.ones(len(outcome))
    assert ours(outcome, prediction, ones) == pytest.approx(theirs(outcome, prediction, sample_weight=ones))


@pytest.mark.parametrize(("ours", "theirs"), ORACLES)
def test_whole_weights_are_repeated_patients(ours, theirs):
    outcome, prediction = scored(seed=1)
    weights = np.random.default_rng(2).poisson(1.0, len(outcome)).astype(float)
    rows = np.repeat(np.arange(len(outcome)), weights.astype(int))
    expected = theirs(outcome[rows], prediction[rows], sample_weight=np.ones(len(rows)))
    assert ours(outcome, prediction, weights) == pytest.approx(expected)
    assert theirs(outcome, prediction, sample_weight=weights) == pytest.approx(expected)


@pytest.mark.parametrize("ours", [*BINARY, metric.MAE, metric.RMSLE])
def test_many_columns_of_weights_are_many_calls(ours):
    outcome, prediction = scored(seed=3)
    weights = np.random.default_rng(4).exponential(size=(len(outcome), 5))
    together = ours(outcome, prediction, weights)
    assert together.shape == (5,)
    np.testing.assert_allclose(
        together, [ours(outcome, prediction, column) for column in weights.T], rtol=1e-7
    )


def test_worse_predictions_score_worse():
    """The negative control of every binary metric: shuffled and exaggerated predictions are told from good ones."""
    outcome, prediction = scored(2_000, seed=5)
    ones, shuffled = np.ones(2_000), np.random.default_rng(0).permutation(prediction)
    assert metric.AUROC(outcome, prediction, ones) > metric.AUROC(outcome, shuffled, ones) + 0.1
    assert metric.AUPRC(outcome, prediction, ones) > metric.AUPRC(outcome, shuffled, ones) + 0.1
    assert metric.BRIER(outcome, prediction, ones) < metric.BRIER(outcome, shuffled, ones) - 0.01
    doubled = prediction**2 / (prediction**2 + (1 - prediction) ** 2)  # all odds squared
    assert metric.ECE(outcome, prediction, ones) < metric.ECE(outcome, doubled, ones) - 0.02
    assert metric.CALIBRATION_SLOPE(outcome, prediction, ones) == pytest.approx(1, abs=0.15)
    assert metric.CALIBRATION_SLOPE(outcome, doubled, ones) == pytest.approx(0.5, abs=0.08)
    assert metric.AUROC(outcome, 1 - prediction, ones) == pytest.approx(
        1 - metric.AUROC(outcome, prediction, ones)
    )


@pytest.mark.parametrize("outcome", [np.zeros(6), np.ones(6)])
def test_one_class_has_no_area_and_no_slope(outcome):
    prediction = np.linspace(0.1, 0.9, 6)
    for weights in (np.ones(6), np.ones((6, 2))):
        assert np.isnan(metric.AUROC(outcome, prediction, weights)).all()
        assert np.isnan(metric.CALIBRATION_SLOPE(outcome, prediction, weights)).all()


def test_a_constant_prediction_has_no_slope_and_an_area_of_one_half():
    outcome, _ = scored()
    constant = np.full(len(outcome), 0.2)
    assert np.isnan(metric.CALIBRATION_SLOPE(outcome, constant, np.ones(len(outcome))))
    assert metric.AUROC(outcome, constant, np.ones(len(outcome))) == 0.5


def test_separable_classes_have_no_slope():
    outcome = np.array([0.0, 0, 0, 1, 1, 1])
    prediction = np.array([0.1, 0.2, 0.3, 0.7, 0.8, 0.9])
    assert np.isnan(metric.CALIBRATION_SLOPE(outcome, prediction, np.ones(6)))


def test_shares_of_zero_and_one_are_no_infinite_logits():
    outcome, prediction = scored(seed=6)
    extreme = np.where(prediction < 0.1, 0.0, np.where(prediction > 0.6, 1.0, prediction))
    assert np.isfinite(metric.CALIBRATION_SLOPE(outcome, extreme, np.ones(len(outcome))))


def test_observed_over_expected_of_a_censored_cohort():
    """True risks are known, half of the patients are lost: O/E is 1. The naive O/E of the decidable is not."""
    draw = np.random.default_rng(7)
    count = 30_000
    rate = np.exp(draw.normal(-2.5, 0.7, count))
    event, lost = draw.exponential(1 / rate), draw.uniform(0, 10, count)
    until = np.minimum.reduce([event, lost, np.full(count, 5.0)])
    decided = (event <= lost) & (event <= 5) | (lost >= 5)
    outcome = ((event <= 5) & decided).astype(float)
    risk = 1 - np.exp(-5 * rate)
    weights = censoring_weights(until, decided, np.ones(count))
    assert 0.2 < 1 - decided.mean() < 0.6
    standard_error = 1.5 / np.sqrt(outcome.sum())
    assert abs(metric.OE(outcome, risk, weights, np.ones(count)) - 1) < 4 * standard_error
    assert abs(outcome[decided].mean() / risk[decided].mean() - 1) > 8 * standard_error
    assert metric.OE(outcome, risk / 2, weights, np.ones(count)) == pytest.approx(2, abs=8 * standard_error)


def test_the_expected_share_is_that_of_everyone():
    """One of four is undecided: the mean prediction counts all four, the incidence the three by their weights."""
    outcome, prediction = np.array([1.0, 0, 0, 0]), np.array([0.4, 0.2, 0.2, 0.8])
    weights, ones = np.array([1.0, 1, 2, 0]), np.ones(4)
    assert metric.OE(outcome, prediction, weights, ones) == pytest.approx(0.25 / 0.4)


def test_a_certain_prediction_is_in_the_last_bin():
    assert metric.ECE(np.array([0.0, 1]), np.array([1.0, 0.95]), np.ones(2)) == pytest.approx(0.475)
