"""The target of a joint-embedding objective: the same decoder, its weights a moving average of those that are trained.

Shape letters: F futures, C hidden width.
"""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sequela.model.decoder import Decoder
from sequela.model.precision import computed_in
from sequela.training.data import Inputs


def rising(start: float, done: float) -> float:
    """The decay of a moving average: `start` at first, 1 at the end, by a cosine (BYOL, arXiv 2006.07733).

    >>> rising(0.99, 0.0), rising(0.99, 1.0)
    (0.99, 1.0)
    """
    return 1 - (1 - start) * (1 + math.cos(math.pi * done)) / 2


class Target(nn.Module):
    """Encodes futures by themselves. Its weights are fp32, for in bf16 the small steps of an average would vanish; they
    have no gradient, and checkpoints of a run keep them."""

    def __init__(self, decoder: Decoder):
        super().__init__()
        self.decoder = copy.deepcopy(decoder).requires_grad_(False)

    @torch.no_grad()
    def follow(self, decoder: Decoder, decay: float) -> None:
        """Move to `decay` times itself and the rest of `decoder`; 0 makes it a copy."""
        for mine, theirs in zip(self.decoder.parameters(), decoder.parameters(), strict=True):
            mine.lerp_(theirs.detach(), 1 - decay)

    @torch.no_grad()
    def hidden(self, row: Inputs, precision: str) -> Tensor:
        """Hidden states of packed rows, [B, T, C]."""
        with computed_in(precision, row.ids.device):
            return self.decoder.hidden(row.ids, row.positions, row.attention)

    @torch.no_grad()
    def means(self, futures: Inputs, which: Tensor, count: int, precision: str) -> Tensor:
        """The mean hidden state of each future, float32 [F, C].

        Args:
            futures: packed rows, each future a segment of its own.
            which: int64 [T], the future of each token of the flattened rows; `count` for padding.
        """
        flat = self.hidden(futures, precision).flatten(0, 1).float()
        sums = flat.new_zeros(count + 1, flat.shape[1]).index_add_(0, which, flat)
        tokens = torch.bincount(which, minlength=count + 1)
        return sums[:count] / tokens[:count, None]


def normalized(x: Tensor) -> Tensor:
    """Layer normalization without weights, as targets have it."""
    return F.layer_norm(x, x.shape[-1:])
