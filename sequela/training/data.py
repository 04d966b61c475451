"""Training data: which windows each step uses (a sampler that can resume at any step), collated ahead of the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from queue import Full, Queue
from threading import Event, Thread
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from sequela.model.attention import Attention, packed
from sequela.tokens.corpus import Corpus
from sequela.tokens.packing import Batch, Windows, best_fit
from sequela.tokens.ragged import within

ROWS_PER_STRETCH = 256
"""Rows packed at a time: enough for best-fit to fill them, few enough to keep the order random."""
AHEAD = 2
"""Steps collated in advance."""
BLOCK = 1 << 22  # tokens counted at a time

Row = TypeVar("Row")


def windows_of(data: Corpus, context: int) -> Windows:
    """The patients of a split in windows of at most `context` tokens."""
    tokenizer = data.tokenizer
    return Windows.of(data.tokens, tokenizer.head, tokenizer.carried, context, data.clock, tokenizer.breaks)


def token_counts(data: Corpus) -> np.ndarray:
    """How often each token occurs in a split, int64 [V]."""
    counts = np.zeros(len(data.tokenizer.vocabulary), np.int64)
    for rows in data.tokens.parts:
        for start in range(0, len(rows.flat), BLOCK):
            counts += np.bincount(rows.flat[start : start + BLOCK], minlength=len(counts))
    return counts


@dataclass(frozen=True)
class Step:
    """One step of a run.

    Attributes:
        rows: for each row the windows in it, int64.
        tokens: tokens of the run before this step.
        after: the sampler's state after it (`Sampler.state`).
    """

    rows: list[np.ndarray]
    tokens: int
    after: dict[str, int]


class Sampler:
    """The steps of a run, up to `total_tokens`. Each has `rows_per_step` rows, the last one what is left.

    Every epoch holds every window once, in a random order of its own. The order is packed stretch by stretch: each
    stretch best-fit into rows of at most `row_tokens`, and these shuffled. Seed and epoch decide everything, so the
    state is four integers. Only one permutation and the rows of one stretch are in memory.

    Where patients are cut into several windows, those of each patient are spread evenly over the epoch, and packed and
    taken in this order: rows hold long and short patients side by side. Otherwise whole windows, which fill a row
    exactly, would share rows only with each other; a patient with as many tokens as all others together would be alone
    for many steps, in which a model forgets the others.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        row_tokens: int,
        rows_per_step: int,
        total_tokens: int,
        seed: int = 0,
        patient: np.ndarray | None = None,
    ):
        """`lengths`: tokens of each window, int64 [W], none above `row_tokens`; `patient`: of each window, int64 [W],
        ascending. Unless given, no two windows are of one patient."""
        if not 0 < lengths.min() <= lengths.max() <= row_tokens:
            raise ValueError(f"windows must have 1 to {row_tokens} tokens each")
        self.lengths, self.row_tokens, self.seed = lengths, row_tokens, seed
        self.rows_per_step, self.total_tokens = rows_per_step, total_tokens
        cut = patient is not None and len(patient) > 1 and bool((patient[1:] == patient[:-1]).any())
        self.patient = patient if cut else None
        self.stretch_windows = math.ceil(ROWS_PER_STRETCH * row_tokens / lengths.mean())
        self.start_at({"epoch": 0, "stretch": 0, "row": 0, "tokens": 0})

    def state(self) -> dict[str, int]:
        """The epoch, the stretch in it, the row in that, and the tokens handed out so far."""
        return {"epoch": self.epoch, "stretch": self.stretch, "row": self.row, "tokens": self.tokens}

    def start_at(self, state: dict[str, int]) -> None:
        """Continue from what `state` returned."""
        self.epoch, self.stretch, self.row = state["epoch"], state["stretch"], state["row"]
        self.tokens = state["tokens"]
        self._order = self._epoch_order()
        self._rows = self._stretch_rows()

    def __iter__(self) -> Sampler:
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
        while self.row >= len(self._rows):
            self.stretch, self.row = self.stretch + 1, 0
            if self.stretch * self.stretch_windows >= len(self.lengths):
                self.epoch, self.stretch = self.epoch + 1, 0
                self._order = self._epoch_order()
            self._rows = self._stretch_rows()
        self.row += 1
        return self._rows[self.row - 1]

    def _epoch_order(self) -> np.ndarray:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.lengths))
        return order if self.patient is None else spread(order, self.patient)

    def _stretch_rows(self) -> list[np.ndarray]:
        start = self.stretch * self.stretch_windows
        part = self._order[start : start + self.stretch_windows]
        mixed = self.patient is not None
        rows = [part[row] for row in best_fit(self.lengths[part], self.row_tokens, in_order=mixed)]
        if mixed:
            return rows
        shuffled = np.random.default_rng([self.seed, self.epoch, self.stretch]).permutation(len(rows))
        return [rows[i] for i in shuffled]


def spread(order: np.ndarray, patient: np.ndarray) -> np.ndarray:
    """An order in which the windows of each patient are equally far from each other: the first of a patient's n windows
    comes at a random place in the first n-th of the order. A patient with a single window stays where it is.

    Args:
        order: a random order of the windows, int64 [W].
        patient: of each window, int64 [W], ascending.

    >>> spread(np.array([1, 2, 3, 0, 4, 5]), np.array([0, 0, 0, 1, 2, 3])).tolist()
    [1, 3, 2, 4, 0, 5]
    """
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    first = np.flatnonzero(np.diff(patient, prepend=patient[0] - 1))
    count = np.diff(first, append=len(patient))
    key = np.empty(len(order))
    key[np.lexsort((place, patient))] = (
        within(count) + np.repeat(place[first], count) / len(order)
    ) / np.repeat(count, count)
    return np.lexsort((place, key))


@dataclass(frozen=True)
class Ends:
    """Where records end in a packed row, M of them, and how long each is known to go on without an event.

    Attributes:
        places: int64 [M], the last token of each, counted without places aside.
        survival: float32 [M, I], how likely each of the I time tokens is to stand for a longer time than that.
    """

    places: np.ndarray
    survival: np.ndarray


NO_ENDS = Ends(np.zeros(0, np.int64), np.zeros((0, 0), np.float32))


@dataclass(frozen=True)
class Inputs:
    """One packed row on the device of the model.

    Attributes:
        ids, positions: int64 [B, T], see `Batch`.
        attention: who sees whom.
        places: int64 [N], ascending: where in the flattened row a token is predicted.
        targets: int64 [N], these tokens.
        ended: int64 [M], where a record ends and time passes next, see `Ends`.
        survival: float32 [M, I], see `Ends`.
        aside: int64 [S], ascending: where in the flattened row places aside are, see `Batch`.
    """

    ids: Tensor
    positions: Tensor
    attention: Attention
    places: Tensor
    targets: Tensor
    ended: Tensor
    survival: Tensor
    aside: Tensor

    @property
    def weight(self) -> int:
        """The number of predicted tokens, those after the end of a record included."""
        return len(self.targets) + len(self.ended)


def inputs(batch: Batch, device: torch.device | str = "cpu", ends: Ends = NO_ENDS) -> Inputs:
    """A batch as a model on `device` reads it."""
    targets = batch.targets.ravel()
    places = np.flatnonzero(targets >= 0)
    aside, ended = np.zeros(0, np.int64), ends.places
    if batch.aside is not None:
        aside, ended = np.flatnonzero(batch.aside), np.flatnonzero(~batch.aside)[ended]
    arrays = batch.ids, batch.positions, places, targets[places], ended, ends.survival, aside
    ids, positions, where, what, last, longer, read = (
        _moved(torch.from_numpy(array), device) for array in arrays
    )
    attention = packed(batch.segments, device, batch.aside)
    return Inputs(ids, positions, attention, where, what, last, longer, read)


def _moved(tensor: Tensor, device: torch.device | str) -> Tensor:
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def padded_to(row_tokens: int, device: torch.device | str) -> int:
    """What row lengths are a multiple of: on a GPU all rows have one length, so that its kernels compile once."""
    return row_tokens if torch.device(device).type == "cuda" else 8


def alone(rows: Sequence[np.ndarray]) -> list[tuple[np.ndarray, float]]:
    """The share of a single process: every row, with weight 1."""
    return [(row, 1.0) for row in rows]


def feed(
    steps: Iterable[Step],
    collate: Callable[[np.ndarray], Row],
    device: torch.device | str = "cpu",
    share: Callable[[Sequence[np.ndarray]], list[tuple[np.ndarray, float]]] = alone,
) -> Iterator[tuple[Step, list[tuple[Row, float]]]]:
    """Each step with the rows that this process takes of it, collated, and their weights.

    A thread works up to `AHEAD` steps ahead; an error in it is raised here. It ends with the iterator.

    Args:
        collate: makes of the windows of a row what `Objective.forward` takes; called on the thread.
        device: where `collate` puts it.
        share: the rows of a step that this process takes.
    """
    made: Queue = Queue(AHEAD)
    done = Event()

    def put(item: object) -> bool:
        while not done.is_set():
            try:
                made.put(item, timeout=0.1)
                return True
            except Full:
                continue
        return False

    def work() -> None:
        try:
            # Otherwise this thread would pin memory through the first GPU
            if (number := torch.device(device).index) is not None:
                torch.cuda.set_device(number)
            for step in steps:
                passes = [(collate(row), weight) for row, weight in share(step.rows)]
                if not put((step, passes)):
                    return
            put(None)
        except BaseException as error:  # raised in the consumer
            put(error)

    thread = Thread(target=work, name="feed", daemon=True)
    thread.start()
    try:
        while (item := made.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        done.set()
        thread.join()
