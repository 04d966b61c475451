"""Token rows of patients laid into rows of one length, each patient alone in its segment."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np

from sequela.tokens.ragged import Ragged
from sequela.tokens.vocabulary import PAD


@dataclass(frozen=True)
class Batch:
    """Packed rows. All [B, T]: `ids`; `positions`, from 0 for each patient; `segments`, the patient's number in its row
    (-1: padding); `targets`, the next token of the same patient (-1: none)."""

    ids: np.ndarray
    positions: np.ndarray
    segments: np.ndarray
    targets: np.ndarray


def windows(tokens: Ragged, head_names: np.ndarray, age_names: np.ndarray, context: int) -> Ragged:
    """Rows of at most `context` tokens: longer patients in consecutive windows, demographics and age in every one.

    `head_names`, `age_names`: the tokens that are demographics, and that are age bands. Each window after the first
    starts with the patient's demographics and the age band last seen before it.
    """
    if (tokens.lengths <= context).all():
        return tokens
    rows: list[np.ndarray] = []
    for row in range(len(tokens)):
        rows.extend(_windows_of_one(np.asarray(tokens[row], np.int64), head_names, age_names, context))
    return Ragged.of(rows)


def _windows_of_one(
    ids: np.ndarray, head_names: np.ndarray, age_names: np.ndarray, context: int
) -> list[np.ndarray]:
    rows, start = [ids[:context]], context
    while start < len(ids):
        head = head_of(ids, start, head_names, age_names)
        stop = start + context - len(head)
        rows.append(np.concatenate([head, ids[start:stop]]))
        start = stop
    return rows


def head_of(ids: np.ndarray, start: int, head_names: np.ndarray, age_names: np.ndarray) -> np.ndarray:
    """What a window of one patient that begins at `start` is preceded by: demographics, age band before `start`."""
    static = ids[: np.argmin(np.isin(ids, head_names))]
    ages = ids[:start][np.isin(ids[:start], age_names)]
    return np.concatenate([static, ages[-1:]])


def newest(ids: np.ndarray, head_names: np.ndarray, age_names: np.ndarray, length: int) -> np.ndarray:
    """The last `length` tokens of one patient, demographics and age band kept in front."""
    if len(ids) <= length:
        return ids
    # The head has one token a demographic and an age band: its length does not depend on where the window starts.
    head = head_of(ids, len(ids) - length, head_names, age_names)
    start = len(ids) - length + len(head)
    return np.concatenate([head_of(ids, start, head_names, age_names), ids[start:]])


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
    tokens: Ragged, context: int, rows_per_batch: int, random: np.random.Generator
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


def collate(tokens: Ragged, rows: list[list[int]], context: int) -> Batch:
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
            positions[r, here] = np.arange(len(one))
            segments[r, here] = number
            targets[r, at : at + len(one) - 1] = one[1:]
            at += len(one)
    return Batch(ids, positions, segments, targets)
