"""Inverse probability of censoring weights: patients who were followed long enough stand in for those who were not.

Dropping censored patients biases a cohort: an early outcome makes a label known at once, its absence only after the
whole horizon, so outcomes are over-represented among the known labels. The remedy is inverse probability of censoring
weighting (IPCW; Robins and Finkelstein 2000): a patient whose label became known at t counts 1 / G(t-), where G(t-) is
the probability of being followed at least until t, by Kaplan and Meier on the same patients, with censoring as the
event. It assumes that censoring does not depend on the patient's risk.

Where G falls to 0, nobody stands for those who were still waiting: a horizon that nobody could be followed to, however
many outcomes are known before it. `Censoring.unseen` is their share; what they would have shown is not identified.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sequela.task.scoring.areas import ratio
from sequela.task.scoring.sums import GroupSums

UNSEEN = 0.05  # with a larger share of patients for whom nobody stands, nothing about the whole cohort is identified


@dataclass(frozen=True, eq=False)
class Censoring:
    """Who was lost when, sorted once for many `weights`.

    Attributes:
        earlier: int [N], how many patients were lost before this one's label was known.
        leaving: int [L], the lost patients in order of time.
        staying: sums of the copies between one loss and the next, [L].
        timed: whether anything tells how long patients were followed; else the lost are dropped, and nobody stands
            for them.
    """

    earlier: np.ndarray
    leaving: np.ndarray
    staying: GroupSums
    timed: bool

    @staticmethod
    def of(until_N: np.ndarray, decided_N: np.ndarray) -> Censoring:
        """Sorted; the arguments are those of `censoring_weights`."""
        order = in_time(until_N, decided_N)
        lost = ~decided_N[order]
        earlier = np.empty(len(order), np.int64)
        earlier[order] = np.cumsum(lost)
        first = np.flatnonzero(lost)
        return Censoring(
            earlier, order[lost], GroupSums.of(order, first, len(order)), bool((until_N > 0).any())
        )

    def weights(self, copies_N: np.ndarray) -> np.ndarray:
        """The weights when each patient counts `copies_N` times (see `censoring_weights`)."""
        copies = copies_N.astype(np.float64, copy=False)
        if not len(self.leaving):
            return copies.copy()
        at_risk = np.cumsum((self.staying @ copies)[::-1], axis=0)[::-1]
        # one lost patient at a time: equals the usual grouped factor, because the products telescope
        leaving = copies[self.leaving]
        np.divide(leaving, at_risk, out=leaving, where=at_risk > 0)
        followed = np.concatenate([np.ones((1, *copies.shape[1:])), np.cumprod(1 - leaving, axis=0)])
        followed[followed <= 0] = np.inf  # nobody was followed so long: weight 0
        weights = copies / followed[self.earlier]
        weights[self.leaving] = 0.0
        return weights

    def unseen(self, weights: np.ndarray, copies: np.ndarray) -> np.ndarray:
        """The share of patients for whom nobody stands, a number or [R]; 0 if the last to be followed is decided.

        One outcome is known after half a day, and three of four patients are lost after a day:

        >>> censoring = Censoring.of(np.array([0.5, 1.0, 1.0, 1.0]), np.array([True, False, False, False]))
        >>> float(censoring.unseen(censoring.weights(np.ones(4)), np.ones(4)))
        0.75
        """
        if not self.timed or not len(self.leaving):
            return np.zeros(copies.shape[1:])
        return 1 - ratio(weights.sum(axis=0), copies.sum(axis=0))


def in_time(until_N: np.ndarray, decided_N: np.ndarray) -> np.ndarray:
    """The order of the rows by `until`, the decided before those lost at the same time."""
    return np.lexsort((~decided_N, until_N))


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
    return Censoring.of(until_N, decided_N).weights(copies_N)
