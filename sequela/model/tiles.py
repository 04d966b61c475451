"""Exact attention of packed rows by dense products over tiles: the fastest way on a CPU.

Shape letters: B rows, T positions, H heads, D head dimension.

A tile is a stretch of queries and the keys that they may see. Long segments are cut into tiles of at most `QUERIES`
queries, which see their segment up to their own end; neighbouring short segments share a tile under a mask. So no
token is copied or padded, little that is masked out is computed, and every product is large enough for a CPU.
Measured against PyTorch's flash attention in docs/records/training.md.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

QUERIES = 256
KEPT_BYTES = 2**26
"""Below this many, the probabilities of a layer are kept for the backward pass, else computed again."""


@dataclass(frozen=True)
class Tile:
    """Queries `queries` of row `row` see keys `keys`, which end where they end, under `mask`.

    `mask` is [n, n] over the n queries and the last n keys, 0 or -inf, and holds for all that a query must not see.
    """

    row: int
    queries: slice
    keys: slice
    mask: Tensor


class Tiled:
    """Each segment of packed rows alone, tile by tile, as an attention strategy."""

    def __init__(self, segments: np.ndarray, queries: int = QUERIES):
        """`segments` int [B, T]: the segment of each position, numbered along its row; -1 is padding."""
        causal = torch.full((queries, queries), -torch.inf).triu_(1)
        self.tiles = [
            Tile(row, slice(start, stop), slice(first, stop), _mask(inside, causal))
            for row, numbers in enumerate(segments)
            for first, start, stop, inside in _cut(*_stretches(numbers), queries)
        ]
        self.masks: dict[torch.dtype, list[Tile]] = {torch.float32: self.tiles}

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if (shared := q.shape[1] // k.shape[1]) > 1:
            k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
        return _Attend.apply(q, k, v, self._tiles(q.dtype))

    def _tiles(self, dtype: torch.dtype) -> list[Tile]:
        if dtype not in self.masks:
            self.masks[dtype] = [Tile(t.row, t.queries, t.keys, t.mask.to(dtype)) for t in self.tiles]
        return self.masks[dtype]


def _stretches(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Start and length of each segment of one row."""
    new = np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 1))
    length = np.diff(np.append(new, len(numbers)))
    real = numbers[new] >= 0
    return new[real], length[real]


def _cut(starts: np.ndarray, lengths: np.ndarray, queries: int) -> list[tuple[int, int, int, list[int]]]:
    """(first key, first query, after the last query, lengths of the segments of the queries) of each tile of a row."""
    tiles: list[tuple[int, int, int, list[int]]] = []
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        if length <= queries:
            first, _, stop, inside = tiles[-1] if tiles else (0, 0, -1, [])
            if stop == start and inside and start + length - first <= queries:
                tiles[-1] = (first, first, start + length, [*inside, length])
            else:
                tiles.append((start, start, start + length, [length]))
            continue
        pieces = -(-length // queries)
        cuts = [start + length * piece // pieces for piece in range(pieces + 1)]
        tiles += [(start, a, b, []) for a, b in pairwise(cuts)]
    return [(first, a, b, inside or [b - a]) for first, a, b, inside in tiles]


def _mask(inside: list[int], causal: Tensor) -> Tensor:
    size = sum(inside)
    mask = causal[:size, :size]
    if len(inside) > 1:
        number = torch.repeat_interleave(torch.arange(len(inside)), torch.tensor(inside))
        mask = mask.masked_fill(number[:, None] != number, -torch.inf)
    return mask


class _Attend(torch.autograd.Function):
    """softmax(q k' / sqrt(D) + mask) v, tile by tile; q, k, v [B, H, T, D]."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, tiles: list[Tile]) -> Tensor:
        out = _like(q)
        area = sum((t.queries.stop - t.queries.start) * (t.keys.stop - t.keys.start) for t in tiles)
        kept = []
        for tile in tiles:
            p = _probabilities(q, k, tile)
            torch.bmm(p, v[tile.row, :, tile.keys], out=out[tile.row, :, tile.queries])
            if area * q.shape[1] * q.element_size() <= KEPT_BYTES:
                kept.append(p)
        ctx.save_for_backward(q, k, v, *kept)
        ctx.tiles = tiles
        return out

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, *kept = ctx.saved_tensors
        dq, dk, dv = _like(q), _like(k), _like(v)
        scale = q.shape[-1] ** -0.5
        for number, tile in enumerate(ctx.tiles):
            queries, keys = (tile.row, slice(None), tile.queries), (tile.row, slice(None), tile.keys)
            p = kept[number] if kept else _probabilities(q, k, tile)
            dv[keys].baddbmm_(p.mT, gradient[queries])
            dp = torch.bmm(gradient[queries], v[keys].mT)
            ds = torch._softmax_backward_data(dp, p, -1, dp.dtype)
            torch.baddbmm(dq[queries], ds, k[keys], beta=0, alpha=scale, out=dq[queries])
            dk[keys].baddbmm_(ds.mT, q[queries], alpha=scale)
        return dq, dk, dv, None


def _probabilities(q: Tensor, k: Tensor, tile: Tile) -> Tensor:
    """What each query of a tile makes of each key, [H, queries, keys]."""
    q, k = q[tile.row, :, tile.queries], k[tile.row, :, tile.keys]
    scores = q.new_empty(q.shape[0], q.shape[1], k.shape[1])
    torch.baddbmm(scores, q, k.mT, beta=0, alpha=q.shape[-1] ** -0.5, out=scores)
    scores[..., -q.shape[1] :].add_(tile.mask)
    return scores.softmax(-1)


def _like(x: Tensor) -> Tensor:
    """Zeros [B, H, T, D], laid out so that the heads of a position lie side by side, as the next product reads them."""
    rows, heads, length, dim = x.shape
    return x.new_zeros(rows, length, heads, dim).transpose(1, 2)
