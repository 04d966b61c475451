"""Rows of windows made into what a model reads, ahead of the step that reads it, by a thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from queue import Full, Queue
from threading import Event, Thread

import numpy as np
import torch
from torch import Tensor

from sequela.model.attention import Attention, packed
from sequela.tokens.pack import Batch, Windows, collate
from sequela.train.batches import Step

AHEAD = 2  # steps


@dataclass(frozen=True)
class Inputs:
    """One packed row on the device of the model.

    Attributes:
        ids, positions: int64 [B, T], see `Batch`.
        attention: who sees whom.
        places: int64 [N], where in the flattened row a token is predicted, rising.
        targets: int64 [N], these tokens.
    """

    ids: Tensor
    positions: Tensor
    attention: Attention
    places: Tensor
    targets: Tensor


def inputs(batch: Batch, device: torch.device | str = "cpu") -> Inputs:
    """What a model on `device` reads of a batch."""
    targets = batch.targets.ravel()
    places = np.flatnonzero(targets >= 0)
    arrays = batch.ids, batch.positions, places, targets[places]
    ids, positions, where, what = (_moved(torch.from_numpy(array), device) for array in arrays)
    return Inputs(ids, positions, packed(batch.segments, device), where, what)


def _moved(tensor: Tensor, device: torch.device | str) -> Tensor:
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def padded_to(row_tokens: int, device: torch.device | str) -> int:
    """Of how many tokens rows are a multiple: on a GPU all have one length, so that its kernels are compiled once."""
    return row_tokens if torch.device(device).type == "cuda" else 8


def alone(rows: Sequence[np.ndarray]) -> list[tuple[np.ndarray, float]]:
    """The share of one process: every row, with weight 1."""
    return [(row, 1.0) for row in rows]


def feed(
    steps: Iterable[Step],
    windows: Windows,
    device: torch.device | str = "cpu",
    share: Callable[[Sequence[np.ndarray]], list[tuple[np.ndarray, float]]] = alone,
    multiple: int = 8,
) -> Iterator[tuple[Step, list[tuple[Inputs, float]]]]:
    """Each step with the rows that this process takes of it, and their weights.

    A thread works up to `AHEAD` steps ahead; what goes wrong in it is raised here. It ends with the iterator. Rows are
    padded to a multiple of `multiple` tokens.
    """
    made: Queue = Queue(AHEAD)
    done = Event()

    def put(thing: object) -> bool:
        while not done.is_set():
            try:
                made.put(thing, timeout=0.1)
                return True
            except Full:
                continue
        return False

    def work() -> None:
        try:
            # otherwise this thread would pin its memory by way of the first GPU
            if (number := torch.device(device).index) is not None:
                torch.cuda.set_device(number)
            for step in steps:
                passes = [
                    (inputs(collate(windows, row, multiple), device), weight)
                    for row, weight in share(step.rows)
                ]
                if not put((step, passes)):
                    return
            put(None)
        except BaseException as error:  # told to the one who waits
            put(error)

    thread = Thread(target=work, name="feed", daemon=True)
    thread.start()
    try:
        while (thing := made.get()) is not None:
            if isinstance(thing, BaseException):
                raise thing
            yield thing
    finally:
        done.set()
        thread.join()
