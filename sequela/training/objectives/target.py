"""The target of a joint-embedding objective: the same decoder, its weights a moving average of those that are trained.

Shape letters: F futures, C hidden width.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sequela.model.decoder import Decoder
from sequela.model.precision import computed_in
from sequela.tokens.ragged import Ragged
from sequela.training.data import Inputs, inputs
from sequela.training.objectives.futures import packed


def rising(start: float, done: float) -> float:
    """The decay of a moving average: `start` at first, 1 at the end, by a cosine (BYOL, arXiv 2006.07733).

    >>> rising(0.99, 0.0), rising(0.99, 1.0)
    (0.99, 1.0)
    """
    return 1 - (1 - start) * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class Encodable:
    """Futures side by side in packed rows, for the target.

    Attributes:
        inputs: None if there are none.
        which: int64, the future of each of their tokens; `count` for padding.
        count: how many there are.
    """

    inputs: Inputs | None
    which: Tensor
    count: int

    @staticmethod
    def of(futures: Ragged, multiple: int, device: torch.device) -> Encodable:
        """Of ragged tokens."""
        if not len(futures):
            return Encodable(None, torch.zeros(0, dtype=torch.int64, device=device), 0)
        side_by_side = packed(futures, multiple)
        which = np.where(side_by_side.segments < 0, len(futures), side_by_side.segments).ravel()
        return Encodable(inputs(side_by_side, device), torch.from_numpy(which).to(device), len(futures))


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
    def means(self, futures: Encodable, precision: str) -> Tensor:
        """The mean hidden state of each future, float32 [F, C]."""
        if futures.inputs is None:
            return self.decoder.norm.weight.new_zeros(0, self.decoder.config.hidden_size)
        flat = self.hidden(futures.inputs, precision).flatten(0, 1).float()
        return means_by(flat, futures.which, futures.count)


def means_by(flat: Tensor, which: Tensor, count: int) -> Tensor:
    """The mean of the rows of each of `count` groups, [count, C]; `which` int64: their groups, `count` for none."""
    sums = flat.new_zeros(count + 1, flat.shape[1]).index_add(0, which, flat)
    rows = torch.bincount(which, minlength=count + 1).clamp_min(1)
    return (sums / rows[:, None])[:count]


def normalized(x: Tensor) -> Tensor:
    """Layer normalization without weights, as targets have it."""
    return F.layer_norm(x, x.shape[-1:])
