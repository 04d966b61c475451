"""Weighted sums over rows, prepared once and made for many sets of weights.

Whatever depends on the rows alone, their order and their groups, is worked out before the first. Up to MANY rows are
summed for a batch of resamples at once, which spares calls; more of them one resample at a time, which then stays in
the cache. The two differ by rounding alone.

Shapes: N rows, G groups, K values a row, R resamples; weights are [N] or [N, R].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

MANY = 1 << 14


def many(rows: int) -> bool:
    """Whether so many rows are summed one resample at a time."""
    return rows > MANY


@dataclass(frozen=True, eq=False)
class GroupSums:
    """Sums over G groups of rows: each the rows `order[first[g]:first[g + 1]]`, the last to the end of `order`.

    Attributes:
        order: of the rows; None if that is how they come.
        first: increasing [F], of the groups that have rows.
        filled: bool [G], which groups have rows; None for all.
    """

    order: np.ndarray | None
    first: np.ndarray
    filled: np.ndarray | None = None

    @staticmethod
    def of(order: np.ndarray, first: np.ndarray, count: int) -> GroupSums:
        """Of some of `count` rows; `first` is equal to the next where a group has no rows."""
        as_they_come = len(order) == count and bool((order == np.arange(count)).all())
        filled = np.diff(first, append=len(order)) > 0
        return GroupSums(None if as_they_come else order, first[filled], None if filled.all() else filled)

    def __matmul__(self, weights: np.ndarray) -> np.ndarray:
        """[G] or [G, R]; 0 for a group without rows.

        >>> (GroupSums.of(np.array([2, 0, 1]), np.array([0, 1]), 3) @ np.array([1.0, 2.0, 4.0])).tolist()
        [4.0, 3.0]
        """
        if not len(self.first):
            return np.zeros((0 if self.filled is None else len(self.filled), *weights.shape[1:]))
        ordered = weights if self.order is None else weights[self.order]
        sums = np.add.reduceat(ordered, self.first, axis=0)
        if self.filled is None:
            return sums
        spread = np.zeros((len(self.filled), *weights.shape[1:]))
        spread[self.filled] = sums
        return spread


@dataclass(frozen=True, eq=False)
class PlacedSums:
    """Sums of K weighted `values` [K, N], in the order of `groups`, at the `places` of the groups among `size`."""

    values: np.ndarray
    groups: GroupSums
    places: np.ndarray
    size: int

    def __matmul__(self, weights: np.ndarray) -> np.ndarray:
        order = self.groups.order
        ordered = weights if order is None else weights[order]
        sums = np.zeros((len(self.values), self.size, *weights.shape[1:]))
        for value, row in zip(self.values, sums, strict=True):
            row[self.places] = np.add.reduceat((value * ordered.T).T, self.groups.first, axis=0)
        return sums.reshape(-1, *weights.shape[1:])


def placed(values: np.ndarray, place: np.ndarray, size: int) -> Any:
    """What, times weights of the rows (`@`), adds up the weighted `values` by `place`: [K x size] or [K x size, R].

    >>> (placed(np.array([[1.0, 2.0]]), np.array([1, 1]), 3) @ np.array([10.0, 1.0])).tolist()
    [0.0, 12.0, 0.0]

    Args:
        values: [K, N].
        place: int [N], from 0 to `size` - 1.
    """
    rows = len(place)
    if not many(rows):
        return ((place == np.arange(size)[:, None]) * values[:, None]).reshape(-1, rows)
    order = np.argsort(place, kind="stable")
    places, first = np.unique(place[order], return_index=True)
    return PlacedSums(values[:, order], GroupSums.of(order, first, rows), places, size)
