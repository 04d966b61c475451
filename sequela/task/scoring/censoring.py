"""Censoring: some patients are not followed long enough to know their answer; the others must speak for them.

Dropping the undecidable biases a cohort: an early outcome decides a label at once, its absence only after the whole
horizon, so that outcomes are over-represented among the decidable. The cure is inverse probability of censoring
weighting (IPCW; Robins and Finkelstein 2000): who was seen until t counts 1 / G(t-), where G(t-) is the probability of
being followed at least until t, estimated by Kaplan and Meier on the same patients with the censorings as the events.
It assumes that censoring does not depend on the patient's risk.
"""

from __future__ import annotations

import numpy as np


def censoring_weights(until_N: np.ndarray, decided_N: np.ndarray, copies_N: np.ndarray) -> np.ndarray:
    """Weights 1 / G(until-) of the decided patients; 0 for the undecided.

    A decision and a censoring at the same time count as a decision that came first.

    Args:
        until_N: days until the label was decided, or until the patient was lost.
        decided_N: bool, whether the label was decided.
        copies_N: how often each patient counts (1 each, or the draws of a bootstrap); [N] or [N, R] for R resamples,
            each with a Kaplan-Meier curve of its own.

    Returns:
        Float64 of the shape of `copies_N`, multiplied by it. The weights sum to the number of patients, unless the
        last one followed was lost.
    """
    order = np.lexsort((~decided_N, until_N))
    copies = copies_N[order].astype(np.float64)
    lost = ~decided_N[order]
    at_risk = np.cumsum(copies[::-1], axis=0)[::-1]
    # who is lost leaves one by one: equal to the usual grouped factor, since the products telescope
    leaving = np.zeros_like(copies)
    leaving[lost] = copies[lost]
    np.divide(leaving, at_risk, out=leaving, where=at_risk > 0)
    followed = np.cumprod(1 - leaving, axis=0)
    sorted_weights = np.divide(copies, followed, out=np.zeros_like(copies), where=followed > 0)
    sorted_weights[lost] = 0.0
    weights = np.empty_like(sorted_weights)
    weights[order] = sorted_weights
    return weights
