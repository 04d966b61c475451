"""Keys and values of a prefix, computed once and shared by all its rollouts.

Shape letters: P prefixes, n rollouts of each, L prefix length, S suffix length, H query heads, G key-value heads,
D head dimension. Both classes are attention strategies of `model.attention`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from sequela.model.config import ModelConfig


class Prefill:
    """Causal attention that keeps each layer's keys and values [P, G, L, D]."""

    def __init__(self) -> None:
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.keys.append(k)
        self.values.append(v)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


class Fork:
    """n rollouts per prefix, one new position at a time: rows are prefix-major, [P * n, H, 1, D].

    The rollouts of a prefix are folded into the query length, so the prefix is read once for all of them; what each
    rollout added itself lies beside it, [P, G, n, S, D].
    """

    def __init__(self, config: ModelConfig, prefill: Prefill, lengths: Tensor, n: int, room: int):
        """`lengths` int [P]: true length of each prefix (the rest of L is padding); `room`: most new positions."""
        self.keys, self.values = prefill.keys, prefill.values
        prefixes, groups, longest, dim = self.keys[0].shape
        outside = torch.arange(longest, device=lengths.device) >= lengths[:, None]
        self.hidden = torch.zeros(outside.shape, device=lengths.device).masked_fill_(outside, -torch.inf)
        shape = (prefixes, groups, n, room, dim)
        self.new_keys = [torch.empty(shape, device=lengths.device) for _ in range(config.layers)]
        self.new_values = [torch.empty(shape, device=lengths.device) for _ in range(config.layers)]
        self.used = 0

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        prefixes, groups, n, _, dim = self.new_keys[layer].shape
        rows, heads = q.shape[:2]
        now = self.used + 1

        def by_group(x: Tensor) -> Tensor:  # [P * n, G * r, 1, D] -> [P, G, n, r, D]
            return x.view(prefixes, n, groups, -1, dim).transpose(1, 2)

        self.new_keys[layer][:, :, :, self.used] = by_group(k).squeeze(3)
        self.new_values[layer][:, :, :, self.used] = by_group(v).squeeze(3)
        q_PGnrD = by_group(q) * dim**-0.5
        folded = q_PGnrD.flatten(2, 3)
        old = folded @ self.keys[layer].transpose(-1, -2) + self.hidden[:, None, None]
        new = q_PGnrD @ self.new_keys[layer][:, :, :, :now].transpose(-1, -2)
        weight = torch.cat([old, new.flatten(2, 3)], -1).softmax(-1)
        old, new = weight.split([old.shape[-1], now], -1)
        out = old @ self.values[layer]
        new = new.unflatten(2, (n, -1)) @ self.new_values[layer][:, :, :, :now]
        return (out.unflatten(2, (n, -1)) + new).transpose(1, 2).reshape(rows, heads, 1, dim)

    def advance(self) -> None:
        """Call once after every layer has seen the new position."""
        self.used += 1

    def keep(self, prefixes: Tensor, rollouts: Tensor) -> None:
        """Go on with prefixes [P'] and, of each, rollouts [P', n'] only; the rest is forgotten."""
        self.keys = [x[prefixes] for x in self.keys]
        self.values = [x[prefixes] for x in self.values]
        self.hidden = self.hidden[prefixes]
        for cache in (self.new_keys, self.new_values):
            for layer, x in enumerate(cache):
                smaller = x.new_empty((*rollouts.shape[:1], x.shape[1], rollouts.shape[1], *x.shape[3:]))
                smaller[..., : self.used, :] = x[prefixes[:, None], :, rollouts, : self.used].transpose(1, 2)
                cache[layer] = smaller
