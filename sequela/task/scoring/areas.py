"""The areas under the ROC and the precision-recall curve, of predictions that are sorted once for many weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sequela.task.scoring.sums import GroupSums


@dataclass(frozen=True, eq=False)
class Ranking:
    """Predictions by group, highest first.

    A group is a distinct prediction, or a run of predictions without a case: merging those changes neither area, and
    leaves little to add up if cases are few.

    Attributes:
        every: what, times weights (`@`), gives the weight of each group.
        cases: the same of the cases alone.
    """

    every: GroupSums
    cases: GroupSums

    @staticmethod
    def of(outcome_N: np.ndarray, prediction_N: np.ndarray) -> Ranking:
        """Predictions, sorted; an outcome above 0 is a case."""
        order = np.argsort(-prediction_N, kind="stable")
        ranked, case_N = prediction_N[order], outcome_N[order] > 0
        tie_N = np.cumsum(np.r_[True, ranked[1:] != ranked[:-1]]) - 1
        has_case_N = np.bincount(tie_N, case_N)[tie_N] > 0
        first = np.flatnonzero(np.r_[True, (tie_N[1:] != tie_N[:-1]) & (has_case_N[1:] | has_case_N[:-1])])
        cases = np.flatnonzero(case_N)
        return Ranking(
            GroupSums.of(order, first, len(order)),
            GroupSums.of(order[cases], np.searchsorted(cases, first), len(order)),
        )

    def areas(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """AUROC and average precision, numbers or [R]; NaN where they are not defined."""
        total, cases = self.every @ weights, self.cases @ weights
        controls = total - cases
        above = np.cumsum(controls, axis=0) - controls / 2
        all_pairs = cases.sum(axis=0) * controls.sum(axis=0)
        reached = np.cumsum(total, axis=0)
        precision = np.divide(
            np.cumsum(cases, axis=0), reached, out=np.zeros_like(reached), where=reached > 0
        )
        return (
            1 - ratio((cases * above).sum(axis=0), all_pairs),
            ratio((cases * precision).sum(axis=0), cases.sum(axis=0)),
        )


def ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """top / bottom, NaN if the bottom is 0."""
    out = np.full(np.broadcast_shapes(np.shape(top), np.shape(bottom)), np.nan)
    return np.divide(top, bottom, out=out, where=bottom != 0)
