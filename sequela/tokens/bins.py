"""Numeric values as ten shared quantile tokens, with cut points per code."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl


@dataclass(frozen=True)
class Bins:
    """Cut points and centres per code: `cuts` [C, Q-1], `centres` [C, Q], in the unit of the code."""

    codes: tuple[str, ...]
    cuts: np.ndarray
    centres: np.ndarray

    @staticmethod
    def fit(values: pl.DataFrame, quantiles: int) -> Bins:
        """Fit on training events (columns code, numeric_value): cuts at 1/Q .. (Q-1)/Q, centre = mean of a bin."""
        codes, cuts, centres = [], [], []
        for (code,), group in (
            values.drop_nulls("numeric_value").sort("code").group_by("code", maintain_order=True)
        ):
            x = np.sort(group["numeric_value"].to_numpy().astype(np.float64))
            edges = np.quantile(x, np.arange(1, quantiles) / quantiles)
            which = np.searchsorted(edges, x, side="left")
            # An empty bin (ties) is never encoded; its centre only matters if a model samples it, so: the nearest cut.
            near = np.concatenate([edges[:1], (edges[:-1] + edges[1:]) / 2, edges[-1:]])
            count = np.bincount(which, minlength=quantiles)
            total = np.bincount(which, weights=x, minlength=quantiles)
            codes.append(str(code))
            cuts.append(edges)
            centres.append(np.where(count > 0, total / np.maximum(count, 1), near))
        shape = (len(codes), quantiles)
        return Bins(tuple(codes), np.reshape(cuts, (shape[0], quantiles - 1)), np.reshape(centres, shape))

    def encode(self, code: np.ndarray, value: np.ndarray) -> np.ndarray:
        """Rows of `codes` [N] (-1: has no bins) and values [N] (NaN: none) -> bin 0..Q-1 [N], or -1."""
        out = np.full(len(code), -1, np.int64)
        known = (code >= 0) & ~np.isnan(value)
        out[known] = (self.cuts[code[known]] < value[known, None]).sum(1)
        return out
