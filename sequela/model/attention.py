"""Who sees whom: attention as a strategy, so that the decoder knows nothing of packing, masks or caches.

Shape letters: B rows, T positions, H query heads, G key-value heads, D head dimension.
A strategy is called once per layer with q [B, H, T, D], k and v [B, G, T, D], and returns [B, H, T, D].
"""

# No `from __future__ import annotations`: the shape checks of the tests read the annotations.
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


@runtime_checkable
class Attention(Protocol):
    """One attention strategy for one forward pass."""

    def __call__(
        self,
        layer: int,
        q: Float[Tensor, "B H T D"],
        k: Float[Tensor, "B G T D"],
        v: Float[Tensor, "B G T D"],
    ) -> Float[Tensor, "B H T D"]:
        """Attention of layer `layer`, scaled by 1 / sqrt(D)."""
        ...


@dataclass(frozen=True)
class Causal:
    """Every position sees itself and what came before it in its row; enough where rows are padded at the end."""

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


@dataclass(frozen=True)
class Masked:
    """Attention under any mask; the reference that the fast strategies are tested against."""

    mask_BTT: Bool[Tensor, "B T T"]

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask_BTT[:, None], enable_gqa=True)

    @staticmethod
    def packed(segments: np.ndarray) -> "Masked":
        """Mask of packed rows: `segments` int [B, T] numbers the patient of each position, -1 is padding."""
        segment = torch.from_numpy(segments)
        same = segment[:, :, None] == segment[:, None, :]
        return Masked(same & torch.ones(segment.shape[1], segment.shape[1], dtype=torch.bool).tril())


class Packed:
    """Each patient of a packed row alone, without computing the masked-out rest.

    Patients of similar length are gathered into small padded batches, attended causally (padding comes last, so nobody
    sees it) and scattered back. Exact, and far less work than a mask over whole rows.
    """

    def __init__(self, segments: np.ndarray, device: torch.device | str = "cpu", groups: int = 4):
        """`segments` int [B, T]: the patient of each position, numbered along its row; -1 is padding."""
        flat = segments.ravel()
        row = np.arange(len(flat)) // segments.shape[1]
        new = np.flatnonzero(np.append(True, (flat[1:] != flat[:-1]) | (row[1:] != row[:-1])))
        length = np.diff(np.append(new, len(flat)))
        new, length = new[flat[new] >= 0], length[flat[new] >= 0]
        order = np.argsort(length, kind="stable")
        self.groups: list[Tensor] = []
        back = np.zeros(len(flat), np.int64)
        base = 0
        for members in np.array_split(order, min(groups, len(order))):
            longest = length[members].max()
            step = np.arange(longest)
            inside = step < length[members][:, None]
            place = np.where(inside, new[members][:, None] + step, new[members][:, None])
            back[place[inside]] = base + np.flatnonzero(inside)
            base += place.size
            self.groups.append(torch.from_numpy(place).to(device))
        self.back = torch.from_numpy(back).to(device)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows, heads, length, dim = q.shape
        flat = [x.transpose(1, 2).reshape(rows * length, x.shape[1], dim) for x in (q, k, v)]
        out = []
        for place in self.groups:
            parts = [x[place].transpose(1, 2) for x in flat]
            seen = F.scaled_dot_product_attention(*parts, is_causal=True, enable_gqa=True)
            out.append(seen.transpose(1, 2).reshape(-1, heads, dim))
        return torch.cat(out)[self.back].view(rows, length, heads, dim).transpose(1, 2)
