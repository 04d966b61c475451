import numpy as np
import pytest
from statsmodels.duration.survfunc import CumIncidenceRight, SurvfuncRight

from sequela.task.scoring.censoring import censoring_weights

HORIZON = 5.0


def followed(patients: int, seed: int = 0, *, whole_days: bool = False):
    """Days until the outcome (cause 1), a competing event (2), the horizon (0) or loss (-1), for made patients."""
    draw = np.random.default_rng(seed)
    outcome, competing, lost = (
        draw.exponential(8, patients),
        draw.exponential(20, patients),
        draw.exponential(6, patients),
    )
    if whole_days:
        outcome, competing, lost = (np.ceil(2 * x) / 2 for x in (outcome, competing, lost))
    until = np.minimum.reduce([outcome, competing, lost, np.full(patients, HORIZON)])
    cause = np.select([until == outcome, until == competing, until == HORIZON], [1, 2, 0], -1)
    return until, cause


def test_weights_are_one_over_kaplan_meier_of_the_censoring():
    until, cause = followed(400)
    decided = cause >= 0
    weights = censoring_weights(until, decided, np.ones(400))
    curve = SurvfuncRight(until, (~decided).astype(int))
    index = np.searchsorted(curve.surv_times, until, side="left") - 1  # just before `until`
    followed_until = np.where(index < 0, 1.0, curve.surv_prob[np.maximum(index, 0)])
    np.testing.assert_allclose(weights[decided], 1 / followed_until[decided])
    assert (weights[~decided] == 0).all()


@pytest.mark.parametrize("whole_days", [False, True])
def test_the_weighted_share_is_the_aalen_johansen_incidence(whole_days):
    until, cause = followed(500, seed=1, whole_days=whole_days)
    weights = censoring_weights(until, cause >= 0, np.ones(500))
    status = np.where(cause > 0, cause, 0)
    # statsmodels knows no horizon: who reaches it without an event is censored there, after everything else
    estimate = CumIncidenceRight(until, status)
    assert (weights * (cause == 1)).sum() / weights.sum() == pytest.approx(estimate.cinc[0][-1], rel=1e-9)


def test_without_competing_events_it_is_one_minus_kaplan_meier():
    until, cause = followed(500, seed=2)
    cause = np.where(cause == 2, -1, cause)
    weights = censoring_weights(until, cause >= 0, np.ones(500))
    survival = SurvfuncRight(until, (cause == 1).astype(int)).surv_prob[-1]
    assert (weights * (cause == 1)).sum() / 500 == pytest.approx(1 - survival)


def test_the_weights_undo_the_bias_of_dropping_the_undecidable():
    """The truth is known here; the naive share among the decidable, the negative control, misses it by far."""
    until, cause = followed(40_000, seed=3)
    rates = np.array([1 / 8, 1 / 20])
    truth = rates[0] / rates.sum() * (1 - np.exp(-rates.sum() * HORIZON))
    decided = cause >= 0
    weights = censoring_weights(until, decided, np.ones(len(until)))
    standard_error = np.sqrt(truth * (1 - truth) / decided.sum()) * 2
    assert abs((weights * (cause == 1)).sum() / weights.sum() - truth) < 4 * standard_error
    assert abs((cause == 1)[decided].mean() - truth) > 10 * standard_error


def test_the_decided_stand_for_everyone():
    until, cause = followed(300, seed=4)
    assert censoring_weights(until, cause >= 0, np.ones(300)).sum() == pytest.approx(300)


def test_with_nobody_lost_everyone_counts_once():
    until, _ = followed(50)
    np.testing.assert_array_equal(censoring_weights(until, np.full(50, True), np.ones(50)), 1)


@pytest.mark.parametrize("whole_days", [False, True])
def test_a_column_of_copies_is_the_cohort_with_patients_repeated(whole_days):
    until, cause = followed(120, seed=5, whole_days=whole_days)
    copies = np.random.default_rng(0).poisson(1.0, (120, 7))
    together = censoring_weights(until, cause >= 0, copies)
    for column in range(7):
        rows = np.repeat(np.arange(120), copies[:, column])
        alone = censoring_weights(until[rows], cause[rows] >= 0, np.ones(len(rows)))
        summed = np.bincount(rows, alone, minlength=120)
        np.testing.assert_allclose(together[:, column], summed, atol=1e-12)


def test_an_outcome_and_a_loss_at_the_same_time():
    """The outcome came first: the loss takes nobody from the risk it was measured on."""
    weights = censoring_weights(np.array([1.0, 1.0, 2.0]), np.array([True, False, True]), np.ones(3))
    np.testing.assert_allclose(weights, [1, 0, 2])
