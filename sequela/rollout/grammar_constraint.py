"""The grammar of EHR tokens on the model's device: what may come next in each row.

Shape letters: R rows, V vocabulary, B bits.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sequela.tokens.ehr.grammar.grammar import Grammar


class GrammarConstraint:
    """The grammar of tokens as tensors: a `Constraint` of the engine.

    Args:
        device: of the model.
        masks: False: only follow where rows are in an event, and let anything be sampled.
    """

    def __init__(self, grammar: Grammar, device: torch.device | str = "cpu", *, masks: bool = True):
        def at(x: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(x)).to(device)

        size = len(grammar.base)
        self.masks, self.size, self.base = masks, size, at(grammar.base)
        self.opens = at(np.where((grammar.place == 0) | (grammar.place == 1), np.arange(size), 0))
        self.sets, self.clears = at(grammar.sets), at(grammar.clears)
        self.pair_key, self.pair_child = at(grammar.pair_key), at(grammar.pair_child)
        self.pair_token = at(grammar.pair_key % size)
        self.offsets = at(np.searchsorted(grammar.pair_key, np.arange(grammar.nodes + 1) * size))
        ruled = np.flatnonzero((grammar.needs >= 0) | (grammar.forbids >= 0))
        self.ruled = at(ruled)
        self.needs = at(grammar.needs[ruled].astype(np.int64))
        self.forbids = at(grammar.forbids[ruled].astype(np.int64))

    def mask(self, mass: Tensor, node: Tensor, bits: Tensor) -> Tensor:
        """Set the mass [R, V] of tokens that may not come now to 0, in place; return the share taken away, [R]."""
        before = mass.sum(-1)
        first = self.offsets[node]
        count = self.offsets[node + 1] - first
        row = torch.arange(len(node), device=node.device).repeat_interleave(count)
        pair = torch.arange(len(row), device=node.device) + (first - count.cumsum(0) + count)[row]
        token = self.pair_token[pair]
        kept = mass[row, token]
        mass.mul_(self.base)
        mass[row, token] = kept
        if len(self.ruled):
            has = (self.needs < 0) | bits[:, self.needs.clamp(min=0)]
            barred = (self.forbids >= 0) & bits[:, self.forbids.clamp(min=0)]
            mass[:, self.ruled] *= has & ~barred
        return (1 - mass.sum(-1) / before).clamp(min=0)

    def advance(self, node: Tensor, bits: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        """The state after one more token [R]. A token that may not come is treated as if it might."""
        after = self.opens[token]
        if len(self.pair_key):
            key = node * self.size + token
            pair = torch.searchsorted(self.pair_key, key).clamp(max=len(self.pair_key) - 1)
            after = torch.where(self.pair_key[pair] == key, self.pair_child[pair], after)
        return after, (bits | self.sets[token]) & ~self.clears[token]
