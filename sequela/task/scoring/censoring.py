"""Inverse probability of censoring weights: patients who were followed long enough stand in for those who were not.

Dropping censored patients biases a cohort: an early outcome makes a label known at once, its absence only after the
whole horizon, so outcomes are over-represented among the known labels. The remedy is inverse probability of censoring
weighting (IPCW; Robins and Finkelstein 2000): a patient whose label became known at t counts 1 / G(t-), where G(t-) is
the probability of being followed at least until t, by Kaplan and Meier on the same patients, with censoring as the
event. It assumes that censoring does not depend on the patient's risk.
"""

from __future__ import annotations

import numpy as np


def censoring_weights(until_N: np.ndarray, decided_N: np.ndarray, copies_N: np.ndarray) -> np.ndarray:
    """Weights 1 / G(until-) of patients whose label is known; 0 for censored ones.

    If a label becomes known at the very time of a censoring, the label counts as earlier.

    The second of four patients is lost after 2 days; the two who were followed longer stand in for it:

    >>> censoring_weights(np.array([1.0, 2.0, 3.0, 4.0]), np.array([True, False, True, True]), np.ones(4))
    array([1. , 0. , 1.5, 1.5])

    Args:
        until_N: days until the label was known, or until the patient was lost.
        decided_N: bool, whether the label is known.
        copies_N: how often each patient counts (1 each, or the draws of a bootstrap); [N] or [N, R] for R resamples,
            each with a Kaplan-Meier curve of its own.

    Returns:
        Float64 of the shape of `copies_N`, multiplied by it. The weights sum to the number of patients, unless the last
        patient to be followed was lost.
    """
    order = np.lexsort((~decided_N, until_N))
    copies = copies_N[order].astype(np.float64)
    lost = ~decided_N[order]
    at_risk = np.cumsum(copies[::-1], axis=0)[::-1]
    # one lost patient at a time: equals the usual grouped factor, because the products telescope
    leaving = np.zeros_like(copies)
    leaving[lost] = copies[lost]
    np.divide(leaving, at_risk, out=leaving, where=at_risk > 0)
    followed = np.cumprod(1 - leaving, axis=0)
    sorted_weights = np.divide(copies, followed, out=np.zeros_like(copies), where=followed > 0)
    sorted_weights[lost] = 0.0
    weights = np.empty_like(sorted_weights)
    weights[order] = sorted_weights
    return weights
