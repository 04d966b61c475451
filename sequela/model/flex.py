"""Exact attention of packed rows on a GPU: FlexAttention (arXiv 2412.05496) under a mask of blocks.

Shape letters: B rows, T positions, H heads, D head dimension.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

BLOCK = 128


class Flex:
    """Attention within each segment of packed rows.

    Which blocks of keys a block of queries sees follows from where the segments start, so it is computed on the CPU,
    without looking at every pair of positions.
    """

    def __init__(self, segments: np.ndarray, device: torch.device | str, aside: np.ndarray | None = None):
        """`segments` int [B, T]: the segment of each position, numbered along its row; -1 is padding. `aside` bool
        [B, T]: the positions that no other sees."""
        self.mask = block_mask(segments, device, aside)
        self.on_gpu = torch.device(device).type == "cuda"

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # otherwise it is part of a compiled block, or of a test
        alone = self.on_gpu and not torch.compiler.is_compiling()
        attend = _compiled() if alone else flex_attention
        return attend(q, k, v, block_mask=self.mask, enable_gqa=q.shape[1] != k.shape[1])


@cache
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(flex_attention, dynamic=False)


def block_mask(
    segments: np.ndarray, device: torch.device | str, aside: np.ndarray | None = None
) -> BlockMask:
    """Which blocks of queries see which blocks of keys: entirely, partly, or not at all."""
    length = segments.shape[1]
    position = np.arange(length)
    new = np.diff(segments, axis=1, prepend=segments[:, :1] - 1) != 0
    start = np.maximum.accumulate(
        np.where(new, position, 0), axis=1
    )  # where the segment of each position starts
    blocks = -(-length // BLOCK)
    first, last = position[::BLOCK], np.minimum(position[::BLOCK] + BLOCK, length) - 1
    number = np.arange(blocks)
    below = number[:, None] > number
    # the earliest key that any query of the block sees, and the earliest that all of its queries see
    seen = below & (last >= start[:, first][..., None])
    full = below & (first >= start[:, last][..., None])
    if aside is not None:  # a block with a hidden key is seen in part
        full &= ~np.logical_or.reduceat(aside, first, axis=1)[:, None]
    partial = (seen & ~full) | (number[:, None] == number)
    starts = torch.from_numpy(start).to(device)

    def visible(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (key >= starts[row, query])

    mask_mod = visible if aside is None else _hiding(visible, torch.from_numpy(aside).to(device))
    return BlockMask.from_kv_blocks(
        *_listed(partial, device), *_listed(full, device), BLOCK_SIZE=BLOCK, mask_mod=mask_mod,
        seq_lengths=(length, length),
    )  # fmt: skip


def _hiding(visible: Callable[..., Tensor], aside: Tensor) -> Callable[..., Tensor]:
    """`visible` without the keys that are aside, but for each such query its own."""

    def others(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return visible(row, head, query, key) & (~aside[row, key] | (key == query))

    return others


def _listed(which: np.ndarray, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """How many blocks of keys each block of queries sees, [B, 1, Q], and which, [B, 1, Q, K], followed by the rest."""
    count = which.sum(-1, dtype=np.int32)
    index = np.argsort(~which, axis=-1, kind="stable").astype(np.int32)
    return tuple(torch.from_numpy(x)[:, None].to(device) for x in (count, index))
