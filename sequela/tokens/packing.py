"""Patients are cut into windows, and windows packed into rows: the input of one forward pass of a model.

Each window is a segment of its own in its row, so that its tokens attend to each other only.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from sequela.tokens.ragged import Ragged, offsets_of, within
from sequela.tokens.vocabulary import PAD

Breaks = Callable[[np.ndarray], np.ndarray | None]


def anywhere(ids: np.ndarray) -> None:
    """A row may be cut anywhere: the `breaks` of most tokenizers."""


@dataclass(frozen=True)
class Batch:
    """One packed row: the tokens of its windows one after another, then padding to T tokens.

    There may be places aside among them: no tokens, but read-only places of a window, where the state of a model behind
    some of its tokens can be read (see `sequela.model.attention`).

    Attributes:
        ids: int64 [1, T]; padding at a place aside.
        positions: int64 [1, T], starting from 0 in each window (see `Windows.positions`); at a place aside one more
            than at the token before.
        segments: int64 [1, T], the number of the window in its row; -1 for padding.
        targets: int64 [1, T], the next token of the same window; -1 for none, as at places aside.
        aside: bool [1, T], which places are aside; None if none was asked for.
    """

    ids: np.ndarray
    positions: np.ndarray
    segments: np.ndarray
    targets: np.ndarray
    aside: np.ndarray | None = None


class TokenRows(Protocol):
    """Token rows of different lengths, in memory or on disk."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> np.ndarray: ...

    @property
    def lengths(self) -> np.ndarray:
        """Length of each row."""


@dataclass(frozen=True)
class Windows:
    """Patients cut into W windows of at most `context` tokens.

    Each window after a patient's first starts with a front: the tokens that opened the patient (the `head`) and, of
    each group in `carried`, the latest token before the window. For EHR these are demographics, age band and calendar
    period; for text, which is cut between days, what opens it. Only the cuts and the fronts are held in memory.

    Attributes:
        tokens: the patients.
        clock: minutes since the patient's first event at each token, if positions come from the clock; else None.
        patient, start, stop: int64 [W], which tokens of which patient each window holds behind its front.
        fronts: ragged [W], the front of each window.
    """

    tokens: TokenRows
    clock: TokenRows | None
    patient: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    fronts: Ragged

    @staticmethod
    def of(
        tokens: TokenRows,
        head: np.ndarray,
        carried: tuple[np.ndarray, ...],
        context: int,
        clock: TokenRows | None = None,
        breaks: Breaks = anywhere,
    ) -> Windows:
        """Cut the patients longer than `context`; `head`, `carried` and `breaks` as in `Tokenizer`."""
        lengths = tokens.lengths
        long = np.flatnonzero(lengths > context)
        cuts = [_cuts(tokens[patient], head, carried, context, breaks) for patient in long]
        count = np.ones(len(lengths), np.int64)
        count[long] = [len(windows) for windows in cuts]
        patient = np.repeat(np.arange(len(lengths)), count)
        start, stop, front = np.zeros_like(patient), lengths[patient], np.zeros_like(patient)
        cut = count[patient] > 1
        flat = [window for windows in cuts for window in windows]
        start[cut], stop[cut] = [window[0] for window in flat], [window[1] for window in flat]
        front[cut] = [len(window[2]) for window in flat]
        fronts = np.concatenate([np.zeros(0, np.int64), *(window[2] for window in flat)])
        return Windows(tokens, clock, patient, start, stop, Ragged(fronts, offsets_of(front)))

    def __len__(self) -> int:
        return len(self.patient)

    def __getitem__(self, window: int) -> np.ndarray:
        held = self.tokens[self.patient[window]][self.start[window] : self.stop[window]]
        return np.concatenate([self.fronts[window], held]) if self.start[window] else held

    @cached_property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each window, front included, int64 [W]."""
        return self.stop - self.start + self.fronts.lengths

    def positions(self, window: int) -> np.ndarray:
        """Positions of the tokens of a window: 0, 1, .. and, with a clock, plus the hours since the window began."""
        steps = np.arange(self.lengths[window])
        if self.clock is None:
            return steps
        minutes = self.clock[self.patient[window]]
        start, stop = self.start[window], self.stop[window]
        hours = (minutes[start:stop] - minutes[start]) // 60
        return steps + np.append(np.zeros(len(steps) - len(hours), np.int64), hours)


class _Front:
    """The fronts of one patient's windows: the head, and of each carried group the latest token.

    Where a patient is cut at breaks only, the head is what is before the first, unless it would fill half a window.
    """

    def __init__(
        self, ids: np.ndarray, head: np.ndarray, carried: tuple[np.ndarray, ...], context: int, breaks: Breaks
    ):
        self.ids, self.breaks = ids, breaks(ids)
        self.head = ids[: np.argmin(np.isin(ids, head))]
        if self.breaks is not None and len(self.breaks) and self.breaks[0] <= context // 2:
            self.head = ids[: self.breaks[0]]
        first = len(self.head)  # what the head holds is in every front already
        self.groups = [first + np.flatnonzero(np.isin(ids[first:], group)) for group in carried]

    def of(self, start: int) -> np.ndarray:
        """The front of a window that begins at token `start`."""
        before = [np.searchsorted(at, start) for at in self.groups]
        latest = [at[count - 1] for at, count in zip(self.groups, before, strict=True) if count]
        return np.concatenate([self.head, self.ids[np.array(latest, np.int64)]])

    def at_or_after(self, start: int) -> int:
        """The first break from `start` on; `start` itself where there is none."""
        later = [] if self.breaks is None else self.breaks[self.breaks >= start]
        return int(later[0]) if len(later) else start

    def at_or_before(self, start: int, stop: int) -> int:
        """The last break behind `start` and up to `stop`; `stop` itself where there is none, or nothing is cut off."""
        inside = [] if self.breaks is None else self.breaks[(self.breaks > start) & (self.breaks <= stop)]
        return int(inside[-1]) if len(inside) and stop < len(self.ids) else stop


def _cuts(
    ids: np.ndarray, head: np.ndarray, carried: tuple[np.ndarray, ...], context: int, breaks: Breaks
) -> list[tuple[int, int, np.ndarray]]:
    """(start, stop, front) of each window of one patient."""
    fronts = _Front(ids, head, carried, context, breaks)
    start = fronts.at_or_before(len(fronts.head), context)
    cuts = [(0, start, ids[:0])]
    while start < len(ids):
        front = fronts.of(start)
        stop = fronts.at_or_before(start, min(start + context - len(front), len(ids)))
        cuts.append((start, stop, front))
        start = stop
    return cuts


def newest(ids: np.ndarray, head: np.ndarray, carried: tuple[np.ndarray, ...], length: int) -> np.ndarray:
    """The last `length` tokens of one patient, with the front of a window (see `Windows`) before them."""
    start, front = front_of(ids, head, carried, length)
    return np.concatenate([front, ids[start:]]) if start else ids


def front_of(
    ids: np.ndarray,
    head: np.ndarray,
    carried: tuple[np.ndarray, ...],
    length: int,
    breaks: Breaks = anywhere,
) -> tuple[int, np.ndarray]:
    """Where the last window of at most `length` tokens of one patient begins, and its front."""
    if len(ids) <= length:
        return 0, ids[:0]
    fronts, start = _Front(ids, head, carried, length, breaks), len(ids) - length
    while True:
        front = fronts.of(start)
        over = len(front) + len(ids) - start - length
        if over <= 0:
            start = fronts.at_or_after(start)
            return start, fronts.of(start)
        start += over


def best_fit(lengths: np.ndarray, size: int, *, in_order: bool = False) -> list[list[int]]:
    """Pack items of the given lengths into bins of `size`, each into the fullest bin that takes it.

    Items longer than a quarter of a bin go first, longest first, then the rest in the order given. Longest first
    throughout would pack a little tighter, but fill each bin with items of the same length.

    Args:
        in_order: all items in the order given, so that neighbors in it share a bin or are in bins beside each other.
    """
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free tokens, bin), sorted
    order = np.argsort(-np.where(4 * lengths > size, lengths, 0), kind="stable")
    for item in range(len(lengths)) if in_order else order:
        need = int(lengths[item])
        fits = bisect_left(room, (need, -1))
        if fits == len(room):
            bins.append([int(item)])
            insort(room, (size - need, len(bins) - 1))
        else:
            free, number = room.pop(fits)
            bins[number].append(int(item))
            insort(room, (free - need, number))
    return bins


def collate(
    windows: Windows,
    row: Sequence[int] | np.ndarray,
    multiple: int = 8,
    behind: Sequence[np.ndarray] | None = None,
) -> Batch:
    """Join the windows of one row and pad them to a multiple of `multiple` tokens.

    Args:
        behind: int64 [S] for each window of the row, ascending: a place aside stands behind that many of its tokens,
            its front included; from 1 to all of them. None: no places aside. Each takes room in the row as a token
            does.
    """
    lengths = windows.lengths[np.asarray(row, np.int64)]
    filled = int(lengths.sum())
    shape = (1, -(-filled // multiple) * multiple)
    ids, positions = np.full(shape, PAD, np.int64), np.zeros(shape, np.int64)
    segments, targets = np.full(shape, -1), np.full(shape, -1)
    np.concatenate([windows[window] for window in row], out=ids[0, :filled])
    positions[0, :filled] = (
        within(lengths)
        if windows.clock is None
        else np.concatenate([windows.positions(window) for window in row])
    )
    segments[0, :filled] = np.repeat(np.arange(len(lengths)), lengths)
    targets[0, : filled - 1] = ids[0, 1:filled]
    targets[0, np.cumsum(lengths) - 1] = -1
    batch = Batch(ids, positions, segments, targets)
    return batch if behind is None else _with_aside(batch, lengths, behind, multiple)


def _with_aside(
    batch: Batch, lengths: np.ndarray, behind: Sequence[np.ndarray], multiple: int
) -> Batch:
    """The batch of windows of these lengths [W], with places aside among its tokens; `behind` as in `collate`."""
    count = np.array([len(places) for places in behind], np.int64)
    each = np.concatenate([np.zeros(0, np.int64), *behind])
    window = np.repeat(np.arange(len(count)), count)
    if len(count) != len(lengths) or (each < 1).any() or (each > lengths[window]).any():
        raise ValueError("every window needs its places aside, each behind 1 to all of its tokens")
    before = (np.cumsum(lengths) - lengths)[window] + each  # tokens of the row before each
    if (np.diff(before) < 0).any():
        raise ValueError("the places aside of a window must be in ascending order")
    filled = int(lengths.sum())
    total = filled + len(before)
    shape = (1, -(-total // multiple) * multiple)
    aside = np.zeros(shape, bool)
    aside[0, before + np.arange(len(before))] = True
    token = np.flatnonzero(~aside[0])[:filled]
    ids, positions = np.full(shape, PAD, np.int64), np.zeros(shape, np.int64)
    segments, targets = np.full(shape, -1), np.full(shape, -1)
    for made, given in ((ids, batch.ids), (positions, batch.positions), (targets, batch.targets)):
        made[0, token] = given[0, :filled]
    positions[aside] = batch.positions[0, before - 1] + 1
    segments[0, :total] = np.repeat(np.arange(len(lengths)), lengths + count)
    return Batch(ids, positions, segments, targets, aside)
