"""Numeric values as ten shared quantile tokens, with cut points per code."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sequela.tokens.values import Values


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
        codes, cuts, centres = [], [], []
        number, bounds = values.numbers(), values.bounds()
        for row in np.argsort(np.array(names, object)) if names else ():
            own = slice(bounds[row], bounds[row + 1])
            if own.start == own.stop:
                continue
            x, count = number[own], values.count[own]
            edges = _quantiles(x, count, np.arange(1, quantiles) / quantiles)
            which = np.searchsorted(edges, x, side="left")
            # An empty bin (ties) is never encoded; its centre only matters if a model samples it, so: the nearest cut.
            near = np.concatenate([edges[:1], (edges[:-1] + edges[1:]) / 2, edges[-1:]])
            held = np.bincount(which, weights=count, minlength=quantiles)
            total = np.bincount(which, weights=x * count, minlength=quantiles)
            codes.append(names[row])
            cuts.append(edges)
            centres.append(np.where(held > 0, total / np.maximum(held, 1), near))
        shape = (len(codes), quantiles)
        return Bins(tuple(codes), np.reshape(cuts, (shape[0], quantiles - 1)), np.reshape(centres, shape))

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


def _quantiles(x: np.ndarray, count: np.ndarray, share: np.ndarray) -> np.ndarray:
    """`np.quantile` of the sorted values `x`, each of which occurs `count` times."""
    upto = np.cumsum(count)
    place = share * (upto[-1] - 1)
    low = np.floor(place).astype(np.int64)
    rest = place - low
    below = x[np.searchsorted(upto, low, side="right")]
    above = x[np.searchsorted(upto, np.minimum(low + 1, upto[-1] - 1), side="right")]
    return np.where(rest > 0, below + (above - below) * rest, below)
