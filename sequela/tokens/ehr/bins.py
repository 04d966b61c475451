"""Numeric values as ten shared quantile tokens, with cut points per code."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sequela.tokens.ehr.values import Values


@dataclass(frozen=True)
class Bins:
    """Cut points and centres per code: `cuts` [C, Q-1], `centres` [C, Q], in the unit of the code."""

    codes: tuple[str, ...]
    cuts: np.ndarray
    centres: np.ndarray

    @staticmethod
    def fit(names: tuple[str, ...], values: Values, quantiles: int) -> Bins:
        """Fit on the counted values of training events: cuts at 1/Q .. (Q-1)/Q, centre = mean of a bin.

        Codes without a value have no bins. Exact where the values were counted exactly.
        """
        number, bounds = values.numbers(), values.bounds()
        size = np.diff(bounds)
        valued = np.array(sorted(np.flatnonzero(size), key=lambda row: names[row]), np.int64)
        cuts = _quantiles(number, values.count, bounds[valued], bounds[valued + 1], quantiles)
        row = np.zeros(len(size), np.int32)
        row[valued] = np.arange(len(valued))
        own = row[values.code]  # of each cell
        which = own * np.int32(quantiles)
        for cut in cuts.T:
            which += cut[own] < number
        shape = (len(valued), quantiles)
        count = np.bincount(which, weights=values.count, minlength=len(valued) * quantiles).reshape(shape)
        total = np.bincount(which, weights=number * values.count, minlength=count.size).reshape(shape)
        # An empty bin (ties) is never encoded; its centre only matters if a model samples it, so: the nearest cut.
        near = np.hstack([cuts[:, :1], (cuts[:, :-1] + cuts[:, 1:]) / 2, cuts[:, -1:]])
        centres = np.where(count > 0, total / np.maximum(count, 1), near)
        return Bins(tuple(names[row] for row in valued), cuts, centres)

    def only(self, codes: set[str]) -> Bins:
        """The bins of the given codes."""
        rows = [row for row, code in enumerate(self.codes) if code in codes]
        return Bins(tuple(self.codes[row] for row in rows), self.cuts[rows], self.centres[rows])

    @cached_property
    def rows(self) -> dict[str, int]:
        """Code -> its row."""
        return {code: row for row, code in enumerate(self.codes)}

    @cached_property
    def _cuts_below(self) -> np.ndarray:
        """The largest float32 [Q-1, C] at or below each cut: a float32 exceeds the cut exactly if it exceeds this."""
        near = self.cuts.astype(np.float32)
        return np.where(near > self.cuts, np.nextafter(near, np.float32(-np.inf)), near).T.copy()

    def encode(self, code: np.ndarray, value: np.ndarray) -> np.ndarray:
        """Rows of `codes` [N] (-1: has no bins) and values float32 [N] (NaN: none) -> bin 0..Q-1 int64 [N], or -1."""
        known = np.flatnonzero((code >= 0) & ~np.isnan(value))
        row, number = code[known], value[known].astype(np.float32)
        which = np.zeros(len(known), np.int64)
        for cut in self._cuts_below:
            which += cut[row] < number
        out = np.full(len(code), -1, np.int64)
        out[known] = which
        return out


def _quantiles(
    x: np.ndarray, count: np.ndarray, first: np.ndarray, end: np.ndarray, quantiles: int
) -> np.ndarray:
    """`np.quantile` at 1/Q .. (Q-1)/Q of each of C runs [first, end) of sorted values `x`, which occur `count` times.

    float64 [C, Q-1].
    """
    upto = np.cumsum(count)
    before = (upto[first] - count[first])[:, None]
    last = upto[end - 1][:, None] - before - 1
    place = np.arange(1, quantiles) / quantiles * last
    low = np.floor(place).astype(np.int64)
    rest = place - low
    below = x[np.searchsorted(upto, before + low, side="right")]
    above = x[np.searchsorted(upto, before + np.minimum(low + 1, last), side="right")]
    return np.where(rest > 0, below + (above - below) * rest, below)
