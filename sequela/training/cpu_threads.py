"""Rows of a step on several CPU threads: one thread a row beats many threads in each matrix product.

Threads that share one product wait for each other at its end, some thousand times a step, and what lies between the
products is hardly shared at all (docs/records/training.md).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor, nn

Row = TypeVar("Row")
Result = TypeVar("Result")


class ParallelRows:
    """Computes the gradients of rows on threads and adds them up in the order of the rows.

    So it does not matter which row finishes first. How many threads a product has may, in the last bits.
    """

    def __init__(self, module: nn.Module, limit: int | None = None):
        """`limit`: rows at a time; as many as PyTorch has threads unless given."""
        self.threads = torch.get_num_threads()
        self.module, self.limit = module, limit or self.threads
        self.pool = ThreadPoolExecutor(self.limit, "row")

    def backward(self, loss: Callable[[Row], tuple[Tensor, Result]], rows: Sequence[Row]) -> list[Result]:
        """Add the gradients of each row's loss to those of the weights.

        Args:
            loss: returns a scalar and whatever else the caller wants back. It is called on several threads, so it must
                neither draw random numbers nor change state.

        Returns:
            What `loss` returned beside the scalar, row by row.
        """
        weights = [weight for weight in self.module.parameters() if weight.requires_grad]

        def work(row: Row) -> tuple[Result, Sequence[Tensor | None]]:
            scalar, result = loss(row)
            return result, torch.autograd.grad(scalar, weights, allow_unused=True)

        results = []
        for result, gradients in self._in_order(work, rows):
            results.append(result)
            for weight, gradient in zip(weights, gradients, strict=True):
                if weight.grad is None:
                    weight.grad = gradient
                elif gradient is not None:
                    weight.grad += gradient
        return results

    def _in_order(self, work: Callable, rows: Sequence[Row]) -> Iterator:
        """`work` of each row, holding no more results than there are rows in progress.

        PyTorch's threads are divided among the rows of the step; where there are few rows, each gets several threads.
        """
        at_once = min(self.limit, len(rows))
        if at_once < 2:
            yield from map(work, rows)
            return
        threads = max(1, self.threads // at_once)

        def on_thread(row: Row) -> object:
            torch.set_num_threads(threads)  # of this thread alone
            return work(row)

        waiting: deque[Future] = deque()
        for row in rows:
            if len(waiting) == at_once:
                yield waiting.popleft().result()
            waiting.append(self.pool.submit(on_thread, row))
        while waiting:
            yield waiting.popleft().result()
