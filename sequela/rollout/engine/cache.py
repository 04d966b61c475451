"""Keys and values: those of a prefix, computed once and shared by all its rollouts, and those each rollout adds.

Shape letters: n rollouts, L prefix length, S new positions, H query heads, G key-value heads, r = H / G, D head
dimension.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from sequela.model.config import ModelConfig

FEWEST = 4
"""Rows are computed in multiples of this. For fewer rows, and for a remainder that does not fill a vector register, CPU
libraries choose other kernels, which round differently: a rollout would depend on how many are computed beside it."""
SMALLEST = 400  # multiplications in a product; below that, PyTorch chooses yet another kernel
CHUNK = 32  # new positions by which a branch grows: products of whole blocks of memory need no copies


class Prefill:
    """Causal attention over one prefix; keeps each layer's keys and values [G, L, D]."""

    def __init__(self) -> None:
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.keys.append(k[0].contiguous())
        self.values.append(v[0].contiguous())
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    @property
    def length(self) -> int:
        """L."""
        return self.keys[0].shape[1]


class Branch:
    """n rollouts of one prefix that began together, so all have the same number of new positions: nothing is padded."""

    def __init__(self, config: ModelConfig, prompt: Prefill, n: int):
        self.prompt, self.n, self.used = prompt, n, 0
        self.heads, self.groups, self.dim = config.heads, config.kv_heads, config.head_dim
        keys = prompt.keys[0]
        self.fewest = max(FEWEST, -(-SMALLEST // (prompt.length * self.dim)))
        # Keys and values in one piece: [2, layers, n, G, room, D]
        self.added = keys.new_zeros((2, config.layers, n, self.groups, CHUNK, self.dim))

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of one new position of each rollout. q [n, H, D], k and v [n, G, D] -> [n, H, D].

        The prefix's keys are read once for all rollouts, whose queries lie side by side in one product.
        """
        n, groups, dim, room = self.n, self.groups, self.dim, self.added.shape[4]
        added_k, added_v = self.added[0, layer, :n], self.added[1, layer, :n]
        added_k[:, :, self.used], added_v[:, :, self.used] = k, v
        q = (q * dim**-0.5).view(n, groups, -1, dim)

        def side_by_side(x: Tensor) -> Tensor:  # [n, G, r, X] -> [G, n * r, X], with rows of padding if few
            x = x.transpose(0, 1).flatten(1, 2)
            return x if x.shape[1] >= self.fewest else F.pad(x, (0, 0, 0, self.fewest - x.shape[1]))

        def apart(x: Tensor) -> Tensor:  # and back
            return x[:, : self.heads // groups * n].unflatten(1, (n, -1)).transpose(0, 1)

        old = torch.bmm(side_by_side(q), self.prompt.keys[layer].transpose(1, 2))
        new = torch.bmm(q.flatten(0, 1), added_k.flatten(0, 1).transpose(1, 2)).view(n, groups, -1, room)
        new[..., self.used + 1 :] = -torch.inf
        weight = torch.cat([old, side_by_side(new)], -1).softmax(-1)
        old, new = weight.split([old.shape[-1], room], -1)
        out = apart(torch.bmm(old, self.prompt.values[layer]))
        new = torch.bmm(apart(new).reshape(n * groups, -1, room), added_v.flatten(0, 1))
        out = out + new.view(n, groups, -1, dim)
        return out.reshape(n, self.heads, dim)

    def advance(self) -> None:
        """Call once after every layer has seen the new position."""
        self.used += 1
        if self.used == self.added.shape[4]:
            self.added = F.pad(self.added[:, :, : self.n], (0, 0, 0, CHUNK))

    def keep(self, rows: list[int]) -> None:
        """Go on with these rollouts only, in this order. Only those that change their index are moved."""
        moved = [index for index, row in enumerate(rows) if index != row]
        if moved:
            source = torch.tensor([rows[index] for index in moved], device=self.added.device)
            self.added[:, :, torch.tensor(moved, device=self.added.device), :, : self.used] = self.added[
                :, :, source, :, : self.used
            ]
        self.n = len(rows)


class Branches:
    """Attention of one new position of every row, where rows are branch after branch: [R, H, 1, D]."""

    def __init__(self) -> None:
        self.branches: list[Branch] = []

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out, start = [], 0
        for branch in self.branches:
            rows = slice(start, start + branch.n)
            out.append(branch.attend(layer, q[rows, :, 0], k[rows, :, 0], v[rows, :, 0]))
            start += branch.n
        if start < len(q):  # rows of padding
            out.append(torch.zeros_like(q[start:, :, 0]))
        return (torch.cat(out) if len(out) > 1 else out[0])[:, :, None]

    def advance(self) -> None:
        """Call once after every layer has seen the new position."""
        for branch in self.branches:
            branch.advance()
