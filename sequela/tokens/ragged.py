"""Rows of different lengths in one flat array."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Ragged:
    """R rows: row r is `flat[offsets[r] : offsets[r + 1]]`; `flat` may be memory-mapped."""

    flat: np.ndarray
    offsets: np.ndarray

    @staticmethod
    def of(rows: list[np.ndarray] | list[list[int]]) -> Ragged:
        """Rows as given."""
        lengths = np.array([len(row) for row in rows], np.int64)
        flat = (
            np.concatenate([np.asarray(row, np.int64) for row in rows])
            if len(rows)
            else np.zeros(0, np.int64)
        )
        return Ragged(flat, offsets_of(lengths))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.flat[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Length of each row [R]."""
        return np.diff(self.offsets)

    def take(self, rows: np.ndarray) -> Ragged:
        """The given rows, in the given order, repeated as often as given."""
        lengths = self.lengths[rows]
        return Ragged(
            self.flat[np.repeat(self.offsets[:-1][rows], lengths) + within(lengths)], offsets_of(lengths)
        )


@dataclass(frozen=True)
class StackedRows:
    """The rows of several ragged arrays, one array after another."""

    parts: tuple[Ragged, ...]

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum([len(part) for part in self.parts])

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.parts else 0

    def __getitem__(self, row: int) -> np.ndarray:
        part = int(np.searchsorted(self._ends, row, side="right"))
        return self.parts[part][row - (self._ends[part] - len(self.parts[part]))]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Length of each row [R]."""
        return np.concatenate([np.zeros(0, np.int64), *(part.lengths for part in self.parts)])


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """Row lengths [R] -> offsets [R + 1]."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def within(lengths: np.ndarray) -> np.ndarray:
    """The index of each element within its row: 0, 1, .. for every row.

    >>> within(np.array([2, 0, 3])).tolist()
    [0, 1, 0, 1, 2]
    """
    return np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)


@dataclass(frozen=True)
class TokenColumn:
    """Tokens for some rows of a table: `tokens` (one, or one per row) in each of `rows` (increasing; None: all rows).

    `times` says how often each token is repeated; None: once.
    """

    tokens: np.ndarray | int
    rows: np.ndarray | None = None
    times: np.ndarray | None = None


def interleave(columns: list[TokenColumn], rows: int, dtype: type = np.int64) -> Ragged:
    """Join columns row by row: row r holds its tokens of the first column, then of the second, and so on.

    >>> second = TokenColumn(9, np.array([1]))
    >>> twice = TokenColumn(7, np.array([0]), np.array([2]))
    >>> joined = interleave([TokenColumn(np.array([1, 2])), second, twice], 2)
    >>> [joined[0].tolist(), joined[1].tolist()]
    [[1, 7, 7], [2, 9]]
    """
    lengths = np.zeros(rows, np.int64)
    for column in columns:
        lengths[_all_of(column)] += 1 if column.times is None else column.times
    offsets = offsets_of(lengths)
    flat = np.empty(offsets[-1], dtype)
    position = offsets[:-1].copy()
    for column in columns:
        at = position[_all_of(column)]
        if column.times is None:
            flat[at] = column.tokens
            position[_all_of(column)] += 1
        else:
            flat[np.repeat(at, column.times) + within(column.times)] = (
                np.repeat(column.tokens, column.times) if np.ndim(column.tokens) else column.tokens
            )
            position[_all_of(column)] += column.times
    return Ragged(flat, offsets)


def _all_of(column: TokenColumn) -> np.ndarray | slice:
    return slice(None) if column.rows is None else column.rows
