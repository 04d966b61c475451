"""Times in the records of a packed row at which a world model reads a state.

An anchor is the end of some moment of a record, or a time after it and before the next one. Neither the moment nor the
time after it may be chosen by what comes next, or rates of what comes would be off: a time that is a share of the gap
would come the sooner before the next event the shorter the gap is, and a record that death cuts short would have more
anchors for its length than others. So the time is drawn by itself, where the next event comes first there is no anchor,
and each anchor says of how many it is one.

Shape letters: S anchors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sequela.model.states import YEAR
from sequela.tokens.packing import Windows
from sequela.tokens.tokenizer import Tokenizer

LONGEST = 10 * YEAR  # minutes after an event at which an anchor may be


@dataclass(frozen=True, eq=False)
class Timed:
    """The tokens of a patient, the minutes at each, and until when the record is known; `inf` after death.

    Attributes:
        events: the places of tokens that are no passing of time.
        now: the minutes at these, ascending.
    """

    ids: np.ndarray
    minutes: np.ndarray
    events: np.ndarray
    now: np.ndarray
    until: float


@dataclass(frozen=True, eq=False)
class Records:
    """The windows of a split, and how far each token moves the clock; `rest`: see `Encoded`."""

    windows: Windows
    minutes_V: np.ndarray
    rest: np.ndarray | None

    @staticmethod
    def of(windows: Windows, tokenizer: Tokenizer, rest: np.ndarray | None) -> Records:
        """Of a corpus."""
        return Records(windows, tokenizer.minutes_V, rest)

    def timed(self, patient: int) -> Timed:
        """One patient."""
        ids = np.asarray(self.windows.tokens[patient], np.int64)
        moves = self.minutes_V[ids]
        clock = self.windows.clock
        minutes = np.cumsum(moves) if clock is None else np.asarray(clock[patient], np.int64)
        rest = 0 if self.rest is None else int(self.rest[patient])
        until = np.inf if rest < 0 else float(minutes[-1] + rest)
        events = np.flatnonzero(moves == 0)
        return Timed(ids, minutes, events, minutes[events], until)


@dataclass(frozen=True, eq=False)
class Anchors:
    """Of one row, window after window.

    Attributes:
        behind: for each window, int64, ascending: an anchor stands behind so many tokens of it.
        window: int64 [S], the place of its window in the row.
        last: int64 [S], the place of the last event among the patient's tokens.
        idle: int64 [S], minutes from the last event to the anchor.
        drawn_of: float32 [S], of how many moments of its window it is one that was drawn.
    """

    behind: list[np.ndarray]
    window: np.ndarray
    last: np.ndarray
    idle: np.ndarray
    drawn_of: np.ndarray


def anchors_of(
    records: Records, row: np.ndarray, most: int, random: np.random.Generator, later_share: float = 0.5
) -> Anchors:
    """Draw at most `most` anchors in each of the windows `row`: at the end of a moment, or with probability
    `later_share` at a time after it."""
    windows = records.windows
    behind, last, idle, drawn_of = [], [], [], []
    for window in row:
        record = records.timed(int(windows.patient[window]))
        start, stop = int(windows.start[window]), int(windows.stop[window])
        gap = np.append(record.now[1:], record.until) - record.now
        ends = (gap > 0) & (record.events >= start) & (record.events < stop)
        chosen = np.sort(random.permutation(np.flatnonzero(ends))[:most])
        later = np.exp(random.uniform(0, np.log(LONGEST), len(chosen))).astype(np.int64)
        later[random.random(len(chosen)) >= later_share] = 0
        later[np.isinf(gap[chosen])] = 0
        before = later < gap[chosen]
        drawn_of.append(np.full(before.sum(), max(1.0, ends.sum() / most), np.float32))
        chosen, later = chosen[before], later[before]
        last.append(record.events[chosen])
        idle.append(later)
        behind.append(int(windows.fronts.lengths[window]) + last[-1] - start + 1)
    number = np.repeat(np.arange(len(row)), [len(places) for places in behind])
    nothing = np.zeros(0, np.int64)
    return Anchors(
        behind, number, np.concatenate([nothing, *last]), np.concatenate([nothing, *idle]),
        np.concatenate([nothing.astype(np.float32), *drawn_of]),
    )  # fmt: skip
