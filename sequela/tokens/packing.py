"""Patients in windows, windows in rows: what one pass of a model takes, each window alone in its segment."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from sequela.tokens.ragged import Ragged, offsets_of, within
from sequela.tokens.vocabulary import PAD


@dataclass(frozen=True)
class Batch:
    """One packed row, T tokens of N windows one after another and less than `multiple` of padding. All int64 [1, T]:
    `ids`; `positions`, from 0 for each window, see `Windows`; `segments`, the window's number in its row (-1: padding);
    `targets`, the next token of the same window (-1: none)."""

    ids: np.ndarray
    positions: np.ndarray
    segments: np.ndarray
    targets: np.ndarray


class Rows(Protocol):
    """Token rows of different lengths, in memory or not."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> np.ndarray: ...

    @property
    def lengths(self) -> np.ndarray:
        """Length of each row."""


@dataclass(frozen=True)
class Windows:
    """The patients in windows of at most `context` tokens: longer ones in several, demographics and age in every one.

    Each window after a patient's first starts with the patient's demographics and, of each group in `carried` (age
    bands, calendar periods), the token last seen before it. Only the cuts and these fronts are held in memory.

    Attributes:
        tokens: the patients.
        clock: minutes since the patient's first event at each token, where time is told by position; else None.
        patient, start, stop: int64 [W], which tokens of which patient each window holds behind its front.
        fronts: what stands in front of each window.
    """

    tokens: Rows
    clock: Rows | None
    patient: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    fronts: Ragged

    @staticmethod
    def of(
        tokens: Rows,
        head: np.ndarray,
        carried: tuple[np.ndarray, ...],
        context: int,
        clock: Rows | None = None,
    ) -> Windows:
        """Cut patients longer than `context`. `head`: the tokens that are demographics."""
        lengths = tokens.lengths
        long = np.flatnonzero(lengths > context)
        cuts = [_cuts(tokens[patient], head, carried, context) for patient in long]
        count = np.ones(len(lengths), np.int64)
        count[long] = [len(one) for one in cuts]
        patient = np.repeat(np.arange(len(lengths)), count)
        start, stop, front = np.zeros_like(patient), lengths[patient], np.zeros_like(patient)
        cut = count[patient] > 1
        flat = [one for of_patient in cuts for one in of_patient]
        start[cut], stop[cut] = [one[0] for one in flat], [one[1] for one in flat]
        front[cut] = [len(one[2]) for one in flat]
        fronts = np.concatenate([np.zeros(0, np.int64), *(one[2] for one in flat)])
        return Windows(tokens, clock, patient, start, stop, Ragged(fronts, offsets_of(front)))

    def __len__(self) -> int:
        return len(self.patient)

    def __getitem__(self, window: int) -> np.ndarray:
        own = self.tokens[self.patient[window]][self.start[window] : self.stop[window]]
        return np.concatenate([self.fronts[window], own]) if self.start[window] else own

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each window, front included, int64 [W]."""
        return self.stop - self.start + self.fronts.lengths

    def positions(self, window: int) -> np.ndarray:
        """The place of each token of a window: 0, 1, .. and, where time is told by position, plus the hours passed."""
        place = np.arange(self.lengths[window])
        if self.clock is None:
            return place
        minutes = self.clock[self.patient[window]]
        start, stop = self.start[window], self.stop[window]
        hours = (minutes[start:stop] - minutes[start]) // 60
        return place + np.append(np.zeros(len(place) - len(hours), np.int64), hours)


class _Front:
    """What stands in front of a window of one patient: demographics, and of each carried group the token last seen."""

    def __init__(self, ids: np.ndarray, head: np.ndarray, carried: tuple[np.ndarray, ...]):
        self.ids = ids
        self.static = ids[: np.argmin(np.isin(ids, head))]
        self.groups = [np.flatnonzero(np.isin(ids, group)) for group in carried]

    def of(self, start: int) -> np.ndarray:
        """The front of a window that begins at token `start`."""
        seen = [np.searchsorted(places, start) for places in self.groups]
        latest = [places[count - 1] for places, count in zip(self.groups, seen, strict=True) if count]
        return np.concatenate([self.static, self.ids[np.array(latest, np.int64)]])


def _cuts(
    ids: np.ndarray, head: np.ndarray, carried: tuple[np.ndarray, ...], context: int
) -> list[tuple[int, int, np.ndarray]]:
    """(start, stop, front) of each window of one patient."""
    fronts, start = _Front(ids, head, carried), context
    cuts = [(0, context, ids[:0])]
    while start < len(ids):
        front = fronts.of(start)
        stop = min(start + context - len(front), len(ids))
        cuts.append((start, stop, front))
        start = stop
    return cuts


def newest(ids: np.ndarray, head: np.ndarray, carried: tuple[np.ndarray, ...], length: int) -> np.ndarray:
    """The last `length` tokens of one patient, demographics and age band kept in front."""
    if len(ids) <= length:
        return ids
    fronts, start = _Front(ids, head, carried), len(ids) - length
    while True:
        row = np.concatenate([fronts.of(start), ids[start:]])
        if len(row) <= length:
            return row
        start += len(row) - length


def best_fit(lengths: np.ndarray, size: int) -> list[list[int]]:
    """Items of the given lengths into bins of `size`, each into the fullest that takes it.

    Items above a quarter of a bin go first, the longest before the others; then the rest as they come. Longest first
    throughout would fill a little better, but each bin with items of one length.
    """
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free tokens, bin), sorted
    for item in np.argsort(-np.where(4 * lengths > size, lengths, 0), kind="stable"):
        need = int(lengths[item])
        place = bisect_left(room, (need, -1))
        if place == len(room):
            bins.append([int(item)])
            insort(room, (size - need, len(bins) - 1))
        else:
            free, number = room.pop(place)
            bins[number].append(int(item))
            insort(room, (free - need, number))
    return bins


def collate(windows: Windows, row: Sequence[int] | np.ndarray, multiple: int = 8) -> Batch:
    """The windows of one row, one after another, padded to a multiple of `multiple` tokens."""
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
    return Batch(ids, positions, segments, targets)
