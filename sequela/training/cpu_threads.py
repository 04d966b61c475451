"""The rows of a step on a CPU, several at a time: a thread for each does better than many threads in each product.

Where all threads share one product, they wait for each other at its end, some thousand times a step, and what lies
between the products is hardly shared at all (docs/records/training.md).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor, nn

Row = TypeVar("Row")


class Abreast:
    """Works out the gradients of rows on threads, and adds them up in the order of the rows.

    So which row is done first leaves no mark. How many threads a product has may, in the last bits.
    """

    def __init__(self, module: nn.Module, most: int | None = None):
        """At most `most` rows at a time; as many as PyTorch has threads unless given."""
        self.threads = torch.get_num_threads()
        self.module, self.most = module, most or self.threads
        self.pool = ThreadPoolExecutor(self.most, "row")

    def backward(self, loss: Callable[[Row], Tensor], rows: Sequence[Row]) -> list[Tensor]:
        """Add the gradients of each row's loss to those of the weights, and return the losses.

        Args:
            loss: a scalar; called on several threads, so it may not draw random numbers.
        """
        weights = [weight for weight in self.module.parameters() if weight.requires_grad]

        def work(row: Row) -> tuple[Tensor, Sequence[Tensor | None]]:
            found = loss(row)
            return found.detach(), torch.autograd.grad(found, weights, allow_unused=True)

        losses = []
        for found, gradients in self._in_order(work, rows):
            losses.append(found)
            for weight, gradient in zip(weights, gradients, strict=True):
                if weight.grad is None:
                    weight.grad = gradient
                elif gradient is not None:
                    weight.grad += gradient
        return losses

    def _in_order(self, work: Callable, rows: Sequence[Row]) -> Iterator:
        """What `work` makes of each row; no more of them are held than are worked on at a time.

        PyTorch's threads are divided among the rows of the step: where these are few, each has several.
        """
        abreast = min(self.most, len(rows))
        if abreast < 2:
            yield from map(work, rows)
            return
        each = max(1, self.threads // abreast)

        def on_thread(row: Row) -> object:
            torch.set_num_threads(each)  # of this thread alone
            return work(row)

        waiting: deque[Future] = deque()
        for row in rows:
            if len(waiting) == abreast:
                yield waiting.popleft().result()
            waiting.append(self.pool.submit(on_thread, row))
        while waiting:
            yield waiting.popleft().result()
