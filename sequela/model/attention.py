"""Attention as a strategy, so that the decoder knows nothing of packing, masks, or caches.

Shape letters: B rows, T positions, H query heads, G key-value heads, D head dimension.
A strategy is called once per layer with q [B, H, T, D], k and v [B, G, T, D], and returns [B, H, T, D].

A packed row may hold positions *aside*: such a position sees what comes before it in its segment, and itself, but no
other position sees it. So it reads the model's state there, and all the others compute what they would without it.
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
    """Every position sees itself and earlier positions of its row; enough if rows are padded at the end."""

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


@dataclass(frozen=True)
class Masked:
    """Attention under any mask: the reference that the fast strategies are tested against."""

    mask_BTT: Bool[Tensor, "B T T"]

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask_BTT[:, None], enable_gqa=True)

    @staticmethod
    def packed(segments: np.ndarray, aside: np.ndarray | None = None) -> "Masked":
        """Mask of packed rows: `segments` int [B, T] numbers the patient of each position, -1 is padding; `aside` as in
        `packed` below."""
        segment = torch.from_numpy(segments)
        same = segment[:, :, None] == segment[:, None, :]
        mask = same & torch.ones(segment.shape[1], segment.shape[1], dtype=torch.bool).tril()
        if aside is not None:
            mask &= ~torch.from_numpy(aside)[:, None, :] | torch.eye(segment.shape[1], dtype=torch.bool)
        return Masked(mask)


def packed(
    segments: np.ndarray, device: torch.device | str = "cpu", aside: np.ndarray | None = None
) -> Attention:
    """Attention within each segment of packed rows, by the fastest exact strategy on the device.

    Args:
        segments: int [B, T], the segment of each position, numbered along its row; -1 is padding, whose result is
            finite and otherwise undefined.
        aside: bool [B, T], the positions that no other position sees; they see the earlier ones of their segment that
            are not aside, and themselves. None: no position is.
    """
    if torch.device(device).type == "cuda":
        from sequela.model.flex import Flex

        return Flex(segments, device, aside)
    from sequela.model.tiles import Tiled

    return Tiled(segments, aside=aside)
