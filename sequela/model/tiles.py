"""Exact attention of packed rows by dense products over tiles: the fastest strategy on a CPU.

Shape letters: B rows, T positions, H heads, D head dimension.

A tile is a run of consecutive queries and the keys they may see. Long segments are cut into tiles of at most `QUERIES`
queries, which see their segment up to their own end; adjacent short segments share a tile under a mask. So no token is
copied or padded, little is computed only to be masked out, and every product is large enough for a CPU. Measured
against PyTorch's flash attention in docs/records/training.md.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

QUERIES = 192
KEPT_BYTES = 2**26
"""The probabilities of a layer are kept for the backward pass if they take no more, else recomputed."""


@dataclass(frozen=True)
class Tile:
    """Queries see keys under a mask; both are slices of the flattened rows with the same end.

    `mask` is [n, n] over the n queries and the last n keys, 0 or -inf. `hidden` int64 [M] are those of the keys before
    them that no query sees; None for none.
    """

    queries: slice
    keys: slice
    mask: Tensor
    hidden: Tensor | None = None

    @property
    def area(self) -> int:
        """Number of pairs computed."""
        return (self.queries.stop - self.queries.start) * (self.keys.stop - self.keys.start)


class Tiled:
    """Attention within each segment of packed rows, tile by tile."""

    def __init__(self, segments: np.ndarray, queries: int = QUERIES, aside: np.ndarray | None = None):
        """`segments` int [B, T]: the segment of each position, numbered along its row; -1 is padding. `aside` bool
        [B, T]: the positions that no other sees."""
        causal = torch.full((queries, queries), -torch.inf).triu_(1)
        tiles = [
            Tile(slice(start, stop), slice(first, stop), _mask(inside, causal))
            for first, start, stop, inside in _cut(*_segments(segments), queries)
        ]
        if aside is not None:
            tiles = [_hiding(tile, torch.from_numpy(aside.ravel())) for tile in tiles]
        self.tiles = {torch.float32: tiles}
        self.all_real = bool((segments >= 0).all())

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows, heads, length, _ = q.shape
        if (shared := heads // k.shape[1]) > 1:
            k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
        if q.dtype not in self.tiles:
            self.tiles[q.dtype] = [
                replace(tile, mask=tile.mask.to(q.dtype)) for tile in self.tiles[torch.float32]
            ]
        flat = (x.transpose(0, 1).flatten(1, 2) for x in (q, k, v))  # views if there is one row
        seen = _Attend.apply(*flat, self.tiles[q.dtype], self.all_real)
        return seen.unflatten(1, (rows, length)).transpose(0, 1)


def _segments(segments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Start and length of each segment of the flattened rows."""
    new = np.flatnonzero(np.diff(segments, axis=1, prepend=segments[:, :1] - 1).ravel())
    length = np.diff(np.append(new, segments.size))
    real = segments.ravel()[new] >= 0
    return new[real], length[real]


def _cut(starts: np.ndarray, lengths: np.ndarray, queries: int) -> list[tuple[int, int, int, list[int]]]:
    """(first key, first query, after the last query, lengths of the segments of the queries) of each tile."""
    tiles: list[tuple[int, int, int, list[int]]] = []
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        if length > queries:
            pieces = -(-length // queries)
            cuts = [start + length * piece // pieces for piece in range(pieces + 1)]
            tiles += [(start, a, b, []) for a, b in pairwise(cuts)]
            continue
        first, _, stop, inside = tiles[-1] if tiles else (0, 0, -1, [])
        if stop == start and inside and start + length - first <= queries:
            tiles[-1] = (first, first, start + length, [*inside, length])
        else:
            tiles.append((start, start, start + length, [length]))
    return [(first, a, b, inside or [b - a]) for first, a, b, inside in tiles]


def _mask(inside: list[int], causal: Tensor) -> Tensor:
    size = sum(inside)
    mask = causal[:size, :size]
    if len(inside) > 1:
        number = torch.repeat_interleave(torch.arange(len(inside)), torch.tensor(inside))
        mask = mask.masked_fill(number[:, None] != number, -torch.inf)
    return mask


def _hiding(tile: Tile, aside: Tensor) -> Tile:
    """The tile without the keys that are aside, but for each such query its own; `aside` bool over all positions."""
    mask, inside = tile.mask, aside[tile.queries]
    if inside.any():
        mask = mask.masked_fill(inside & ~torch.eye(len(mask), dtype=torch.bool), -torch.inf)
    hidden = aside[tile.keys.start : tile.queries.start].nonzero().flatten()
    return replace(tile, mask=mask, hidden=hidden if len(hidden) else None)


class _Attend(torch.autograd.Function):
    """softmax(q k' / sqrt(D) + mask) v, tile by tile; q, k, v [H, T, D]."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, tiles: list[Tile], all_real: bool) -> Tensor:
        out = _like(q, zeros=not all_real)
        keep = sum(tile.area for tile in tiles) * len(q) * q.element_size() <= KEPT_BYTES
        kept = []
        for tile in tiles:
            p = _probabilities(q[:, tile.queries], k[:, tile.keys], tile)
            torch.bmm(p, v[:, tile.keys], out=out[:, tile.queries])
            if keep:
                kept.append(p)
        ctx.save_for_backward(q, k, v, *kept)
        ctx.tiles, ctx.all_real = tiles, all_real
        return out

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        whole_q, whole_k, whole_v, *kept = ctx.saved_tensors
        of_q, of_k, of_v = _like(whole_q, not ctx.all_real), _like(whole_k), _like(whole_v)
        scale = whole_q.shape[-1] ** -0.5
        for number, tile in enumerate(ctx.tiles):
            q, g = whole_q[:, tile.queries], gradient[:, tile.queries]
            k, v = whole_k[:, tile.keys], whole_v[:, tile.keys]
            p = kept[number] if kept else _probabilities(q, k, tile)
            of_v[:, tile.keys].baddbmm_(p.mT, g)
            of_p = torch.bmm(g, v.mT)
            of_s = torch._softmax_backward_data(of_p, p, -1, of_p.dtype)
            of_queries = of_q[:, tile.queries]
            torch.baddbmm(of_queries, of_s, k, beta=0, alpha=scale, out=of_queries)
            of_k[:, tile.keys].baddbmm_(of_s.mT, q, alpha=scale)
        return of_q, of_k, of_v, None, None


def _probabilities(q: Tensor, k: Tensor, tile: Tile) -> Tensor:
    """The attention probabilities of a tile, [H, queries, keys], from its queries and keys."""
    scores = q.new_empty(len(q), q.shape[1], k.shape[1])
    torch.baddbmm(scores, q, k.mT, beta=0, alpha=q.shape[-1] ** -0.5, out=scores)
    scores[..., -len(tile.mask) :].add_(tile.mask)
    if tile.hidden is not None:
        scores.index_fill_(-1, tile.hidden, -torch.inf)
    return scores.softmax(-1)


def _like(x: Tensor, zeros: bool = True) -> Tensor:
    """[H, T, D] with the heads of a position adjacent in memory, as the next product reads them."""
    heads, length, dim = x.shape
    make = x.new_zeros if zeros else x.new_empty
    return make(length, heads, dim).transpose(0, 1)
