"""Which windows each step of a run trains on: a lazy stream that can be left at any step and taken up there again."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sequela.tokens.pack import best_fit

ROWS_PER_STRETCH = 256
"""So many rows are packed at a time: enough for best-fit to fill them, few enough to keep the order random."""


@dataclass(frozen=True)
class Step:
    """One step of a run.

    Attributes:
        rows: the numbers of the windows in each row, int64.
        tokens: tokens of the run before this step.
        after: where the stream stands behind it (see `Batches.state`).
    """

    rows: list[np.ndarray]
    tokens: int
    after: dict[str, int]


class Batches:
    """The steps of a run, until it has seen `total_tokens`; a step has `rows_per_step` rows, the last one what is left.

    Every epoch holds every window once, in a random order of its own. The order is packed stretch by stretch: each
    stretch best-fit into rows of at most `row_tokens`, and these shuffled. Seed and epoch decide everything, so the
    place in the stream is four whole numbers. Only one permutation and the rows of one stretch are in memory.
    """

    def __init__(
        self, lengths: np.ndarray, row_tokens: int, rows_per_step: int, total_tokens: int, seed: int = 0
    ):
        """`lengths`: tokens of each window, int64 [W], none above `row_tokens`."""
        if not 0 < lengths.min() <= lengths.max() <= row_tokens:
            raise ValueError(f"windows must have 1 to {row_tokens} tokens each")
        self.lengths, self.row_tokens, self.seed = lengths, row_tokens, seed
        self.rows_per_step, self.total_tokens = rows_per_step, total_tokens
        self.stretch_windows = math.ceil(ROWS_PER_STRETCH * row_tokens / lengths.mean())
        self.start_at({"epoch": 0, "stretch": 0, "row": 0, "tokens": 0})

    def state(self) -> dict[str, int]:
        """Where the stream stands: epoch, stretch of it, row of that, and the tokens given out so far."""
        return {"epoch": self.epoch, "stretch": self.stretch, "row": self.row, "tokens": self.tokens}

    def start_at(self, state: dict[str, int]) -> None:
        """Go on from `state`, as the stream did that said it."""
        self.epoch, self.stretch, self.row = state["epoch"], state["stretch"], state["row"]
        self.tokens = state["tokens"]
        self._order = self._epoch_order()
        self._rows = self._stretch_rows()

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Step:
        before, rows = self.tokens, []
        while len(rows) < self.rows_per_step and self.tokens < self.total_tokens:
            rows.append(self._next_row())
            self.tokens += int(self.lengths[rows[-1]].sum())
        if not rows:
            raise StopIteration
        return Step(rows, before, self.state())

    def _next_row(self) -> np.ndarray:
        while self.row == len(self._rows):
            self.stretch, self.row = self.stretch + 1, 0
            if self.stretch * self.stretch_windows >= len(self.lengths):
                self.epoch, self.stretch = self.epoch + 1, 0
                self._order = self._epoch_order()
            self._rows = self._stretch_rows()
        self.row += 1
        return self._rows[self.row - 1]

    def _epoch_order(self) -> np.ndarray:
        return np.random.default_rng([self.seed, self.epoch]).permutation(len(self.lengths))

    def _stretch_rows(self) -> list[np.ndarray]:
        start = self.stretch * self.stretch_windows
        part = self._order[start : start + self.stretch_windows]
        rows = [part[row] for row in best_fit(self.lengths[part], self.row_tokens)]
        shuffled = np.random.default_rng([self.seed, self.epoch, self.stretch]).permutation(len(rows))
        return [rows[i] for i in shuffled]
