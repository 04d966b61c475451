"""Numeric values: counted per code in bounded memory, then cut into quantile bins that all codes share as tokens.

Values are counted exactly while a code has at most `CELLS` distinct ones. Beyond that the lowest bits of the values are
dropped, one after another, until few enough are left: a cell then holds the values of one short interval, of relative
width 2 ** (level - 23). The level that a union needs is never below the level of a part, so merging is associative and
commutative, to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

CELLS = 4096


@dataclass(frozen=True)
class Bins:
    """Q bins for each of C codes: `cuts` float64 [C, Q-1] and `centers` float64 [C, Q], in the unit of the code."""

    codes: tuple[str, ...]
    cuts: np.ndarray
    centers: np.ndarray

    @staticmethod
    def fit(names: tuple[str, ...], values: ValueCounts, quantiles: int) -> Bins:
        """Fit on the counted values of training events: cut at the quantiles 1/Q .. (Q-1)/Q; a center is a bin's mean.

        Codes without a value get no bins. The fit is exact if the values were counted exactly.

        >>> heights = np.array([150, 160, 170, 180], np.float32)
        >>> bins = Bins.fit(("HEIGHT",), ValueCounts.of(np.zeros(4, np.int32), heights, 1), quantiles=2)
        >>> bins.cuts.tolist(), bins.centers.tolist()
        ([[165.0]], [[155.0, 175.0]])
        >>> bins.encode(np.array([0, 0, -1]), np.array([149, np.nan, 180], np.float32)).tolist()
        [0, -1, -1]
        """
        number, bounds = values.numbers(), values.bounds()
        size = np.diff(bounds)
        valued = np.array(sorted(np.flatnonzero(size), key=lambda row: names[row]), np.int64)
        cuts = _quantiles(number, values.count, bounds[valued], bounds[valued + 1], quantiles)
        row = np.zeros(len(size), np.int32)
        row[valued] = np.arange(len(valued))
        code = row[values.code]  # of each cell
        which = code * np.int32(quantiles)
        for cut in cuts.T:
            which += cut[code] < number
        shape = (len(valued), quantiles)
        count = np.bincount(which, weights=values.count, minlength=len(valued) * quantiles).reshape(shape)
        total = np.bincount(which, weights=number * values.count, minlength=count.size).reshape(shape)
        # Ties can leave a bin empty. It is never encoded, but a model may sample it: its center is the nearest cut.
        near = np.hstack([cuts[:, :1], (cuts[:, :-1] + cuts[:, 1:]) / 2, cuts[:, -1:]])
        centers = np.where(count > 0, total / np.maximum(count, 1), near)
        return Bins(tuple(names[row] for row in valued), cuts, centers)

    def only(self, codes: set[str]) -> Bins:
        """The bins of the given codes."""
        rows = [row for row, code in enumerate(self.codes) if code in codes]
        return Bins(tuple(self.codes[row] for row in rows), self.cuts[rows], self.centers[rows])

    @cached_property
    def rows(self) -> dict[str, int]:
        """Code -> its row."""
        return {code: row for row, code in enumerate(self.codes)}

    @cached_property
    def _cuts_below(self) -> np.ndarray:
        """The largest float32 [Q-1, C] at or below each cut: a float32 exceeds a cut if and only if it exceeds this."""
        near = self.cuts.astype(np.float32)
        return np.where(near > self.cuts, np.nextafter(near, np.float32(-np.inf)), near).T.copy()

    def encode(self, code: np.ndarray, value: np.ndarray) -> np.ndarray:
        """Rows of `codes` [N] (-1: no bins) and values float32 [N] (NaN: none) -> bins int64 [N], 0 to Q-1 or -1."""
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
    """`np.quantile` at 1/Q .. (Q-1)/Q of each of C runs [first, end) of the sorted values `x`, as float64 [C, Q-1].

    Value `x[i]` occurs `count[i]` times.
    """
    upto = np.cumsum(count)
    before = (upto[first] - count[first])[:, None]
    last = upto[end - 1][:, None] - before - 1
    at = np.arange(1, quantiles) / quantiles * last
    low = np.floor(at).astype(np.int64)
    rest = at - low
    below = x[np.searchsorted(upto, before + low, side="right")]
    above = x[np.searchsorted(upto, before + np.minimum(low + 1, last), side="right")]
    return np.where(rest > 0, below + (above - below) * rest, below)


@dataclass(frozen=True, eq=False)
class ValueCounts:
    """How often the values of C codes occur: K cells, sorted by code and value.

    Attributes:
        code: int32 [K].
        cell: uint32 [K], the value's bits, mapped to sort like the numbers; the lowest `level` bits are 0.
        count: int64 [K].
        level: uint8 [C], how many bits are dropped, for each code.
    """

    code: np.ndarray
    cell: np.ndarray
    count: np.ndarray
    level: np.ndarray

    @staticmethod
    def of(code: np.ndarray, number: np.ndarray, codes: int) -> ValueCounts:
        """Count `number` float32 [N] (no NaN) under `code` int32 [N], each below `codes`."""
        key = np.sort(code.astype(np.uint64) << np.uint64(32) | _bits(number))
        first = np.flatnonzero(np.append(True, key[1:] != key[:-1])[: len(key)])
        count = np.diff(np.append(first, len(key)))
        return _fitted(key[first], count, np.zeros(codes, np.uint8))

    @staticmethod
    def merge(parts: list[ValueCounts], rows: list[np.ndarray], codes: int) -> ValueCounts:
        """The union; code i of part p is code `rows[p][i]` of the result."""
        level = np.zeros(codes, np.uint8)
        for part, row in zip(parts, rows, strict=True):
            level[row] = np.maximum(level[row], part.level)
        key = np.concatenate([_key(row[part.code], part.cell) for part, row in zip(parts, rows, strict=True)])
        count = np.concatenate([part.count for part in parts])
        return _fitted(*_summed(_coarse(key, level), count), level)

    def numbers(self) -> np.ndarray:
        """The value that each cell stands for, float64 [K]: exact at level 0, else the middle of its interval."""
        level = self.level[self.code].astype(np.uint32)
        half = np.where(level > 0, np.uint32(1) << np.maximum(level, 1) - np.uint32(1), 0).astype(np.uint32)
        return _floats(self.cell | half).astype(np.float64)

    def bounds(self) -> np.ndarray:
        """The cells of code c are `bounds[c]` up to `bounds[c + 1]`; int64 [C + 1]."""
        return np.searchsorted(self.code, np.arange(len(self.level) + 1))


def _bits(number: np.ndarray) -> np.ndarray:
    bits = (number.astype(np.float32) + np.float32(0)).view(np.uint32)  # + 0 makes -0 the same as 0
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _floats(cell: np.ndarray) -> np.ndarray:
    return np.where(cell >> 31, cell ^ np.uint32(1 << 31), ~cell).astype(np.uint32).view(np.float32)


def _key(code: np.ndarray, cell: np.ndarray) -> np.ndarray:
    return code.astype(np.uint64) << np.uint64(32) | cell


def _coarse(key: np.ndarray, level: np.ndarray) -> np.ndarray:
    drop = level[(key >> np.uint64(32)).astype(np.int64)].astype(np.uint64)
    return key >> drop << drop


def _summed(key: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merge equal keys and sort them."""
    order = np.argsort(key, kind="stable")  # a few sorted runs: merged, not sorted from scratch
    key, count = key[order], count[order]
    first = np.flatnonzero(np.append(True, key[1:] != key[:-1])[: len(key)])
    return key[first], np.add.reduceat(count, first) if len(first) else count


def _fitted(key: np.ndarray, count: np.ndarray, level: np.ndarray) -> ValueCounts:
    """Raise the level of each code that has more than `CELLS` cells until it has not."""
    while True:
        code = (key >> np.uint64(32)).astype(np.int32)
        crowded = np.bincount(code, minlength=len(level)) > CELLS
        if not crowded.any():
            return ValueCounts(code, key.astype(np.uint32), count, level)
        level = level + crowded.astype(np.uint8)
        key, count = _summed(_coarse(key, level), count)
