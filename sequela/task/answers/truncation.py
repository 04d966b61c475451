"""Truncated rollouts: what they have shown counts, and what they could still have shown is a bound.

A rollout that ran into its limit of tokens before the question was settled has a score up to its clock, `seen`. What
would have come lies between nothing and the outcome for sure, so a risk lies between the means with the one and the
other for every truncated rollout. In between, each takes for the rest what the question's rollouts tell that were
undecided at its clock and went on: the share with the outcome, where truncated ones among them hand their weight on to
those after them. With the events of rollouts alone that is the estimate of Aalen and Johansen (self-consistency, Efron
1967). Leaving truncated rollouts out would choose short futures, in which an outcome is what ended the wait.

Shape letters: Q questions, N rollouts per question (column j is rollout number j).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class CompletedScores:
    """Scores [Q, N], NaN where there is none.

    Attributes:
        scores: with what truncated rollouts take for the rest.
        least, most: with nothing, and with the outcome for sure.
        truncated: which of them are, bool.
    """

    scores: np.ndarray
    least: np.ndarray
    most: np.ndarray
    truncated: np.ndarray


def completed(
    scores_QN: np.ndarray, seen_QN: np.ndarray, came_QN: np.ndarray, until_QN: np.ndarray
) -> CompletedScores:
    """The scores of whole and of truncated rollouts. A question without any whole rollout has none at all.

    >>> nan = np.nan
    >>> whole, seen = np.array([[1.0, nan, 0, 1]]), np.array([[nan, 0.0, nan, nan]])
    >>> found = completed(whole, seen, whole, np.array([[1.0, 2, 9, 3]]))
    >>> [part.tolist() for part in (found.scores, found.least, found.most)]
    [[[1.0, 0.5, 0.0, 1.0]], [[1.0, 0.0, 0.0, 1.0]], [[1.0, 1.0, 0.0, 1.0]]]

    Args:
        scores_QN: of whole rollouts, else NaN.
        seen_QN: of truncated rollouts, up to their clock; else NaN.
        came_QN: 1 if the outcome came, 0 if it did not, NaN if nobody knows: then the rest counts as nothing.
        until_QN: days until each was decided or truncated.
    """
    whole = ~np.isnan(scores_QN)
    truncated = ~whole & ~np.isnan(seen_QN) & whole.any(1)[:, None]
    rest = np.zeros(scores_QN.shape)
    for row in np.flatnonzero(truncated.any(1)):
        rest[row] = _rest(whole[row], truncated[row], came_QN[row], until_QN[row])

    def filled(more: np.ndarray | float) -> np.ndarray:
        return np.where(truncated, seen_QN + more, scores_QN)

    return CompletedScores(filled(rest), filled(0.0), filled(1.0), truncated)


def _rest(whole: np.ndarray, truncated: np.ndarray, came: np.ndarray, until: np.ndarray) -> np.ndarray:
    """The share with the outcome [N] among the rollouts of one question that went on after each."""
    known = whole & ~np.isnan(came)
    order = np.lexsort((truncated, np.where(whole | truncated, until, np.inf)))[: (whole | truncated).sum()]
    left = len(order) - np.arange(len(order))
    decided = known[order].astype(float)
    before = np.cumprod(np.append(1.0, 1 - decided / left))[:-1]
    mass = before / left * decided
    outcome = mass * np.where(known, came, 0)[order]
    later, later_came = (x[::-1].cumsum()[::-1] for x in (mass, outcome))
    everyone = outcome.sum() / mass.sum() if mass.sum() > 0 else 0.0
    out = np.zeros(len(whole))
    out[order] = np.where(later > 0, later_came / np.where(later > 0, later, 1), everyone)
    return out
