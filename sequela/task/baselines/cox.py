"""Cox regression with a ridge penalty, and the risk at a horizon with competing events.

The PHReg of statsmodels takes Newton steps without a penalty, which diverge on the collinear columns of a history
(last, mean, least and greatest of the same values), and its penalized fit takes minutes. Without a penalty the two
agree (tested).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NEWTON_STEPS = 30
TOLERANCE = 1e-8  # of a coefficient


@dataclass(frozen=True, eq=False)
class CoxHazard:
    """A proportional hazard: exp(x . beta) times a baseline that jumps at the T observed event times.

    Attributes:
        beta_F: log hazard ratios.
        time_T: days, increasing.
        jump_T: the increments of Breslow's cumulative baseline hazard.
    """

    beta_F: np.ndarray
    time_T: np.ndarray
    jump_T: np.ndarray


def fit_hazard(
    values_NF: np.ndarray,
    until_N: np.ndarray,
    happened_N: np.ndarray,
    ridge: float,
    weights_N: np.ndarray | None = None,
) -> CoxHazard:
    """Maximize the Cox partial likelihood (Breslow's ties) minus ridge / 2 |beta|^2 by a damped Newton method.

    With Breslow's baseline H(t) the gradient is the sum of x over events, minus X' (exp(eta) H(until)), so neither a
    loop over event times nor a matrix per patient is needed.

    Args:
        values_NF: standardized covariates.
        until_N: days until the event, or until the patient was last seen without it.
        happened_N: bool, whether it was the event.
        weights_N: how much each row counts, above 0; None: 1 each.
    """
    x_NF = values_NF.astype(np.float64)
    weight_N = np.ones(len(x_NF)) if weights_N is None else weights_N.astype(np.float64)
    events_N = weight_N[happened_N]
    time_T, of = np.unique(until_N[happened_N], return_inverse=True)
    deaths_T = np.bincount(of, events_N, minlength=len(time_T))
    order = np.argsort(-until_N, kind="stable")
    # the last in that order who is still at risk
    still_T = np.searchsorted(-until_N[order], -time_T, side="right") - 1
    before_N = np.searchsorted(time_T, until_N, side="right")  # event times up to `until`

    def at_risk(relative: np.ndarray) -> np.ndarray:
        return np.cumsum(relative[order], axis=0)[still_T]

    def likelihood(beta_F: np.ndarray) -> float:
        eta_N = x_NF @ beta_F
        # no overflow while a step is still too long
        log_s0_T = np.logaddexp.accumulate((eta_N + np.log(weight_N))[order])[still_T]
        return float(events_N @ eta_N[happened_N] - deaths_T @ log_s0_T - ridge / 2 * beta_F @ beta_F)

    beta_F = np.zeros(x_NF.shape[1])
    reached = likelihood(beta_F)
    for _ in range(NEWTON_STEPS):
        relative_N = weight_N * np.exp(x_NF @ beta_F)
        s0_T, s1_TF = at_risk(relative_N), at_risk(relative_N[:, None] * x_NF)
        hazard_N = relative_N * np.r_[0.0, np.cumsum(deaths_T / s0_T)][before_N]
        mean_TF = s1_TF / s0_T[:, None]
        gradient_F = events_N @ x_NF[happened_N] - hazard_N @ x_NF - ridge * beta_F
        curvature_FF = (x_NF * hazard_N[:, None]).T @ x_NF - (mean_TF * deaths_T[:, None]).T @ mean_TF
        step_F = np.linalg.solve(curvature_FF + ridge * np.eye(len(beta_F)), gradient_F)
        while np.abs(step_F).max() > TOLERANCE and likelihood(beta_F + step_F) < reached:
            step_F = step_F / 2
        beta_F = beta_F + step_F
        reached = likelihood(beta_F)
        if np.abs(step_F).max() <= TOLERANCE:
            break
    return CoxHazard(beta_F, time_T, deaths_T / at_risk(weight_N * np.exp(x_NF @ beta_F)))


def risk(values_NF: np.ndarray, event: CoxHazard, competing: CoxHazard | None, horizon_days: float) -> np.ndarray:
    """Probability [N] of the event by the horizon: sum over its times of P(neither yet) P(event now).

    A competing event (death before the diagnosis) removes patients from risk; treating it as censoring, as 1 - exp(-H)
    does, would count diagnoses of the dead.
    """
    hazards = [event] if competing is None else [event, competing]
    time = np.concatenate([hazard.time_T for hazard in hazards])
    jump = np.concatenate([hazard.jump_T for hazard in hazards])
    cause = np.repeat(np.arange(len(hazards)), [len(hazard.time_T) for hazard in hazards])
    relative = [np.exp(values_NF.astype(np.float64) @ hazard.beta_F) for hazard in hazards]
    free_N, risk_N = np.ones(len(values_NF)), np.zeros(len(values_NF))
    for k in np.argsort(time, kind="stable"):
        if time[k] > horizon_days:
            break
        stays_N = np.exp(-jump[k] * relative[cause[k]])
        if cause[k] == 0:
            risk_N += free_N * (1 - stays_N)
        free_N *= stays_N
    return risk_N
