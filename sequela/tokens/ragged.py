"""Rows of different lengths in one flat array."""

from __future__ import annotations

from dataclasses import dataclass

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
        """The given rows, in that order, a row as often as it is named."""
        lengths = self.lengths[rows]
        return Ragged(
            self.flat[np.repeat(self.offsets[:-1][rows], lengths) + within(lengths)], offsets_of(lengths)
        )


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """Row lengths [R] -> offsets [R + 1]."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def within(lengths: np.ndarray) -> np.ndarray:
    """0, 1, .. of each row, rows one after another.

    >>> within(np.array([2, 0, 3])).tolist()
    [0, 1, 0, 1, 2]
    """
    return np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def interleave(columns: list[Ragged]) -> Ragged:
    """Rows of several ragged arrays joined row by row: row r is columns[0][r], then columns[1][r], and so on.

    >>> a, b = Ragged.of([[1], [2, 3]]), Ragged.of([[], [9]])
    >>> interleave([a, b]).flat.tolist()
    [1, 2, 3, 9]
    """
    offsets = offsets_of(np.sum([column.lengths for column in columns], axis=0))
    flat = np.empty(offsets[-1], np.int64)
    place = offsets[:-1].copy()
    for column in columns:
        lengths = column.lengths
        flat[np.repeat(place, lengths) + within(lengths)] = column.flat
        place += lengths
    return Ragged(flat, offsets)


def optional(values: np.ndarray) -> Ragged:
    """One value a row [R], or none where it is negative."""
    keep = values >= 0
    return Ragged(values[keep].astype(np.int64), offsets_of(keep.astype(np.int64)))
