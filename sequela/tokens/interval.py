"""Elapsed time as tokens: one class per interval, the longest one repeated.

A gap of g minutes becomes floor(g / longest) tokens of the longest interval, each of which says "so long, nothing
happened", and one token for the class of what is left. The censored end of a record becomes longest-interval tokens
only, rounded to the nearest whole number: a patient who is lost within an interval counts as half at risk in it, the
actuarial assumption of the life table. Rounding down instead would inflate every simulated risk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

UNITS = (("mo", 43200), ("w", 10080), ("d", 1440), ("h", 60), ("min", 1))


def spoken(minutes: int) -> str:
    """Minutes in the largest unit that divides them.

    >>> spoken(120), spoken(10080), spoken(43200), spoken(90)
    ('2h', '1w', '1mo', '90min')
    """
    name, size = next((name, size) for name, size in UNITS if minutes % size == 0)
    return f"{minutes // size}{name}"


@dataclass(frozen=True)
class Intervals:
    """Time-interval classes.

    `edges` int64 [I] are lower edges in minutes. `means` int64 [I] is how many minutes a token of each class stands
    for: the mean over the training gaps of that class in whole minutes, and exactly the edge for the longest. Whole
    minutes keep every clock exact, so "at the horizon" and "past the horizon" never blur.
    """

    edges: np.ndarray
    means: np.ndarray

    @staticmethod
    def fit(edges: tuple[int, ...], gaps_minutes: np.ndarray) -> Intervals:
        """Mean duration of each class over the remainders of the training gaps [N], in minutes."""
        bare = Intervals(np.asarray(edges, np.int64), np.zeros(len(edges), np.int64))
        _, kind = bare.encode(gaps_minutes)
        rest = gaps_minutes % edges[-1]
        upper = np.append(bare.edges[1:], bare.edges[-1])
        means = (bare.edges + upper) // 2
        for i in range(len(edges) - 1):
            if (kind == i).any():
                means[i] = round(rest[kind == i].mean())
        return Intervals(bare.edges, means)

    @property
    def names(self) -> list[str]:
        """One token name per class."""
        words = [spoken(int(edge)) for edge in self.edges]
        return [f"TIME//{low}-{high}" for low, high in zip(words, words[1:], strict=False)] + [
            f"TIME//{words[-1]}"
        ]

    def encode(self, minutes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gaps [N] in minutes -> how often the longest token is repeated [N], class of the remainder [N] (-1: none)."""
        repeats, rest = np.divmod(minutes, self.edges[-1])
        return repeats.astype(np.int64), np.searchsorted(self.edges, rest, side="right") - 1

    def tail(self, minutes: np.ndarray) -> np.ndarray:
        """Censored time [N] in minutes -> number of longest tokens [N], to the nearest."""
        return np.floor(minutes / self.edges[-1] + 0.5).astype(np.int64)

    def upper(self) -> np.ndarray:
        """Upper edges [I] in minutes; the longest token stands for at least its edge, so its upper edge is infinite."""
        return np.append(self.edges[1:], np.inf)
