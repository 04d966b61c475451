"""Token rows of patients laid into rows of one length, each patient alone in its segment."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sequela.tokens.vocabulary import PAD


@dataclass(frozen=True)
class Batch:
    """Packed rows. All [B, T]: `ids`; `positions`, from 0 for each patient, see `Windows`; `segments`, the patient's
    number in its row (-1: padding); `targets`, the next token of the same patient (-1: none)."""

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
    """Rows of at most `context` tokens: longer patients in consecutive windows, demographics and age in every one.

    Each window after a patient's first starts with the patient's demographics and, of each group in `carried` (age
    bands, calendar periods), the token last seen before it. Only the cuts are held in memory; a row is put together
    when it is asked for.

    Attributes:
        tokens: the patients.
        clock: minutes since the patient's first event at each token, where time is told by position; else None.
        patient, start, stop: int64 [W], which tokens of which patient each window holds behind its head.
        lengths: int64 [W], head included.
    """

    tokens: Rows
    clock: Rows | None
    head: np.ndarray
    carried: tuple[np.ndarray, ...]
    patient: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    lengths: np.ndarray

    @staticmethod
    def of(
        tokens: Rows,
        head: np.ndarray,
        carried: tuple[np.ndarray, ...],
        context: int,
        clock: Rows | None = None,
    ) -> Windows:
        """Cut patients longer than `context`. `head`: the tokens that are demographics."""
        cuts: list[tuple[int, int, int, int]] = []
        lengths = tokens.lengths
        for patient in np.flatnonzero(lengths > context):
            cuts += [(int(patient), *cut) for cut in _cuts(tokens[patient], head, carried, context)]
        short = np.flatnonzero(lengths <= context)
        whole = np.stack([short, np.zeros_like(short), lengths[short], lengths[short]], 1)
        table = np.concatenate([whole, np.array(cuts, np.int64).reshape(-1, 4)]).astype(np.int64)
        table = table[np.lexsort((table[:, 1], table[:, 0]))]
        return Windows(tokens, clock, head, carried, *table.T)

    def __len__(self) -> int:
        return len(self.patient)

    def __getitem__(self, row: int) -> np.ndarray:
        ids, start = self.tokens[self.patient[row]], self.start[row]
        own = ids[start : self.stop[row]]
        return np.concatenate([head_of(ids, start, self.head, self.carried), own]) if start else own

    def positions(self, row: int) -> np.ndarray:
        """The place of each token of a window: 0, 1, .. and, where time is told by position, plus the hours passed."""
        place = np.arange(self.lengths[row])
        if self.clock is None:
            return place
        minutes = self.clock[self.patient[row]]
        start, stop = self.start[row], self.stop[row]
        hours = (minutes[start:stop] - minutes[start]) // 60
        return place + np.append(np.zeros(len(place) - len(hours), np.int64), hours)


def _cuts(
    ids: np.ndarray, head: np.ndarray, carried: tuple[np.ndarray, ...], context: int
) -> list[tuple[int, int, int]]:
    """(start, stop, length with the head) of each window of one patient."""
    cuts, start = [(0, context, context)], context
    while start < len(ids):
        front = len(head_of(ids, start, head, carried))
        stop = min(start + context - front, len(ids))
        cuts.append((start, stop, front + stop - start))
        start = stop
    return cuts


def head_of(ids: np.ndarray, start: int, head: np.ndarray, carried: tuple[np.ndarray, ...]) -> np.ndarray:
    """What a window of one patient that begins at `start` is preceded by: demographics, age band before `start`."""
    static = ids[: np.argmin(np.isin(ids, head))]
    latest = [ids[:start][np.isin(ids[:start], group)][-1:] for group in carried]
    return np.concatenate([static, *latest])


def newest(ids: np.ndarray, head: np.ndarray, carried: tuple[np.ndarray, ...], length: int) -> np.ndarray:
    """The last `length` tokens of one patient, demographics and age band kept in front."""
    if len(ids) <= length:
        return ids
    start = len(ids) - length
    while True:
        row = np.concatenate([head_of(ids, start, head, carried), ids[start:]])
        if len(row) <= length:
            return row
        start += len(row) - length


def best_fit(lengths: np.ndarray, context: int) -> list[list[int]]:
    """Items of the given lengths into bins of size `context`: longest first, each into the fullest that takes it."""
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free tokens, bin), sorted
    for item in np.argsort(-lengths, kind="stable"):
        need = int(lengths[item])
        place = bisect_left(room, (need, -1))
        if place == len(room):
            bins.append([int(item)])
            insort(room, (context - need, len(bins) - 1))
        else:
            free, number = room.pop(place)
            bins[number].append(int(item))
            insort(room, (free - need, number))
    return bins


def epoch(
    tokens: Rows, context: int, rows_per_batch: int, random: np.random.Generator
) -> list[list[list[int]]]:
    """All patients once, in random order: batches of rows of patient numbers."""
    order = random.permutation(len(tokens))
    lengths = tokens.lengths
    # Packing stretch by stretch keeps the order random while each stretch fills its rows almost completely.
    stretch = 4096
    rows = [
        [int(part[i]) for i in row]
        for start in range(0, len(order), stretch)
        for part in (order[start : start + stretch],)
        for row in best_fit(lengths[part], context)
    ]
    shuffled = [rows[i] for i in random.permutation(len(rows))]
    return [shuffled[i : i + rows_per_batch] for i in range(0, len(shuffled), rows_per_batch)]


def collate(tokens: Windows, rows: list[list[int]], context: int) -> Batch:
    """The patients of each row, one after another."""
    shape = (len(rows), context)
    ids = np.full(shape, PAD, np.int64)
    positions, segments, targets = np.zeros(shape, np.int64), np.full(shape, -1), np.full(shape, -1)
    for r, row in enumerate(rows):
        at = 0
        for number, patient in enumerate(row):
            one = tokens[patient]
            here = slice(at, at + len(one))
            ids[r, here] = one
            positions[r, here] = tokens.positions(patient)
            segments[r, here] = number
            targets[r, at : at + len(one) - 1] = one[1:]
            at += len(one)
    return Batch(ids, positions, segments, targets)
