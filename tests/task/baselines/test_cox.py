import numpy as np
import pytest
from statsmodels.duration.hazard_regression import PHReg

from sequela.task.baselines.cox import fit_hazard, risk

HORIZON = 5.0
RATES = (0.08, 0.15)  # of the event and of the competing one, for a patient with all covariates 0


def followed(patients: int = 600, seed: int = 0, *, ties: bool = False):
    draw = np.random.default_rng(seed)
    values = draw.normal(size=(patients, 3))
    event = draw.exponential(1 / (RATES[0] * np.exp(values @ [0.7, -0.4, 0.0])))
    other = draw.exponential(1 / (RATES[1] * np.exp(values @ [0.3, 0.0, 0.5])))
    lost = draw.uniform(0, 9, patients)
    if ties:
        event, other, lost = (np.ceil(4 * x) / 4 for x in (event, other, lost))
    until = np.minimum.reduce([event, other, lost, np.full(patients, HORIZON)])
    return values, until, until == event, (until == other) & (until != event)


@pytest.mark.parametrize("ties", [False, True])
def test_without_a_penalty_it_is_the_fit_of_statsmodels(ties):
    values, until, happened, _ = followed(ties=ties)
    ours = fit_hazard(values, until, happened, ridge=0.0)
    theirs = PHReg(until, values, status=happened, ties="breslow").fit()
    np.testing.assert_allclose(ours.beta_F, theirs.params, atol=1e-5)
    times, before, _ = theirs.baseline_cumulative_hazard[0]  # just before each time
    # statsmodels counts tied events one by one in its baseline; without ties the curves are equal
    if not ties:
        ours_before = np.cumsum(ours.jump_T) - ours.jump_T
        np.testing.assert_allclose(ours_before, before[np.searchsorted(times, ours.time_T)], rtol=1e-4)


def test_collinear_and_extreme_values_do_not_run_away():
    values, until, happened, _ = followed()
    values = np.c_[values, values[:, 0], np.where(np.arange(600) == 7, 40.0, 0.0), np.zeros(600)]
    fitted = fit_hazard(values, until, happened, ridge=1.0)
    assert np.isfinite(fitted.beta_F).all()
    assert fitted.beta_F[0] == pytest.approx(fitted.beta_F[3])
    assert fitted.beta_F[5] == 0


def true_risk(values: np.ndarray) -> np.ndarray:
    one = RATES[0] * np.exp(values @ [0.7, -0.4, 0.0])
    two = RATES[1] * np.exp(values @ [0.3, 0.0, 0.5])
    return one / (one + two) * (1 - np.exp(-(one + two) * HORIZON))


def test_the_risk_is_that_of_the_world_and_ignoring_the_competing_event_overstates_it():
    values, until, happened, ended = followed(20_000, seed=1)
    event = fit_hazard(values, until, happened, ridge=0.0)
    competing = fit_hazard(values, until, ended, ridge=0.0)
    some = values[:500]
    assert np.abs(risk(some, event, competing, HORIZON) - true_risk(some)).mean() < 0.01
    alone = risk(some, event, None, HORIZON)
    assert (alone - true_risk(some)).mean() > 0.05  # the negative control


def test_without_competition_the_risk_is_one_minus_survival_up_to_the_horizon():
    values, until, happened, _ = followed()
    event = fit_hazard(values, until, happened, ridge=0.0)
    early = event.time_T <= 3
    expected = 1 - np.exp(-event.jump_T[early].sum() * np.exp(values @ event.beta_F))
    np.testing.assert_allclose(risk(values, event, None, 3.0), expected)


def test_a_row_of_weight_two_counts_as_two_rows():
    values, until, happened, _ = followed(200, ties=True)
    copies = 1 + np.arange(200) % 3
    weighed = fit_hazard(values, until, happened, 2.0, copies)
    repeated = fit_hazard(*(np.repeat(each, copies, axis=0) for each in (values, until, happened)), 2.0)
    np.testing.assert_allclose(weighed.beta_F, repeated.beta_F, atol=1e-7)
    np.testing.assert_allclose(weighed.jump_T, repeated.jump_T, rtol=1e-6)
    alike = fit_hazard(values, until, happened, 2.0)
    assert np.abs(alike.beta_F - weighed.beta_F).max() > 0.01  # the negative control
