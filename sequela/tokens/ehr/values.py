"""How often each value of each code occurs, in bounded memory, the same in whatever order shards are merged.

Values are counted exactly while a code has at most `CELLS` distinct ones. Beyond that the lowest bits of the value are
dropped, one after another, until they are few enough: a cell then holds the values of one short interval, at a
relative width of 2 ** (level - 23). The level that the union needs is never below the level of a part, so merging is
associative and commutative, to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CELLS = 4096


@dataclass(frozen=True, eq=False)
class Values:
    """Counted cells, sorted by code and value.

    Attributes:
        code: int32 [K].
        cell: uint32 [K], the values' bits in an order that is that of the numbers; the lowest `level` bits are 0.
        count: int64 [K].
        level: uint8 [C], for each code.
    """

    code: np.ndarray
    cell: np.ndarray
    count: np.ndarray
    level: np.ndarray

    @staticmethod
    def of(code: np.ndarray, number: np.ndarray, codes: int) -> Values:
        """Count `number` float32 [N] (no NaN) under `code` int32 [N], each below `codes`."""
        key = np.sort(code.astype(np.uint64) << np.uint64(32) | _bits(number))
        first = np.flatnonzero(np.append(True, key[1:] != key[:-1])[: len(key)])
        count = np.diff(np.append(first, len(key)))
        return _fitted(key[first], count, np.zeros(codes, np.uint8))

    @staticmethod
    def merge(parts: list[Values], rows: list[np.ndarray], codes: int) -> Values:
        """The union; code i of part p is code `rows[p][i]` of the result."""
        level = np.zeros(codes, np.uint8)
        for part, row in zip(parts, rows, strict=True):
            level[row] = np.maximum(level[row], part.level)
        key = np.concatenate([_key(row[part.code], part.cell) for part, row in zip(parts, rows, strict=True)])
        count = np.concatenate([part.count for part in parts])
        return _fitted(*_summed(_coarse(key, level), count), level)

    def numbers(self) -> np.ndarray:
        """The value that each cell stands for, float64 [K]: itself where a code is counted exactly, else its middle."""
        level = self.level[self.code].astype(np.uint32)
        half = np.where(level > 0, np.uint32(1) << np.maximum(level, 1) - np.uint32(1), 0).astype(np.uint32)
        return _floats(self.cell | half).astype(np.float64)

    def bounds(self) -> np.ndarray:
        """Where the cells of each code begin and end, int64 [C + 1]."""
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
    """Equal keys as one, sorted."""
    order = np.argsort(key, kind="stable")  # a few sorted runs: merged, not sorted from scratch
    key, count = key[order], count[order]
    first = np.flatnonzero(np.append(True, key[1:] != key[:-1])[: len(key)])
    return key[first], np.add.reduceat(count, first) if len(first) else count


def _fitted(key: np.ndarray, count: np.ndarray, level: np.ndarray) -> Values:
    """Raise the level of each code with too many cells until they are few enough."""
    while True:
        code = (key >> np.uint64(32)).astype(np.int32)
        crowded = np.bincount(code, minlength=len(level)) > CELLS
        if not crowded.any():
            return Values(code, key.astype(np.uint32), count, level)
        level = level + crowded.astype(np.uint8)
        key, count = _summed(_coarse(key, level), count)
