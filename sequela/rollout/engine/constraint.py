"""The grammar of tokens where the model is: what may come next in each row, and what each row has said so far.

Shape letters: R rows, V vocabulary, B bits, E pairs of a node and a token that may follow only there.
"""

import numpy as np
import torch
from torch import Tensor

from sequela.tokens.ehr.grammar.grammar import Grammar


class Automaton:
    """`Grammar` for tensors. A row's state is its `node` int64 [R] and its `bits` bool [R, B]."""

    def __init__(self, grammar: Grammar, device: torch.device | str = "cpu"):
        def at(x: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(x)).to(device)

        size = len(grammar.base)
        self.size, self.base = size, at(grammar.base)
        self.opens = at(np.where((grammar.place == 0) | (grammar.place == 1), np.arange(size), 0))
        self.sets, self.clears = at(grammar.sets), at(grammar.clears)
        self.pair_key, self.pair_child = at(grammar.pair_key), at(grammar.pair_child)
        self.pair_token = at(grammar.pair_key % size)
        self.offsets = at(np.searchsorted(grammar.pair_key, np.arange(grammar.nodes + 1) * size))
        asks = np.flatnonzero((grammar.needs >= 0) | (grammar.forbids >= 0))
        self.asking = at(asks)
        self.needs, self.forbids = (
            at(grammar.needs[asks].astype(np.int64)),
            at(grammar.forbids[asks].astype(np.int64)),
        )

    def mask(self, mass: Tensor, node: Tensor, bits: Tensor) -> Tensor:
        """Take the mass [R, V] of all tokens away that may not come now, in place; the share that was taken, [R]."""
        before = mass.sum(-1)
        first = self.offsets[node]
        count = self.offsets[node + 1] - first
        row = torch.arange(len(node), device=node.device).repeat_interleave(count)
        pair = torch.arange(len(row), device=node.device) + (first - count.cumsum(0) + count)[row]
        token = self.pair_token[pair]
        kept = mass[row, token]
        mass.mul_(self.base)
        mass[row, token] = kept
        if len(self.asking):
            has = (self.needs < 0) | bits[:, self.needs.clamp(min=0)]
            barred = (self.forbids >= 0) & bits[:, self.forbids.clamp(min=0)]
            mass[:, self.asking] *= has & ~barred
        return (1 - mass.sum(-1) / before).clamp(min=0)

    def advance(self, node: Tensor, bits: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        """The state after one more token [R]. What may not come is treated as if it might."""
        after = self.opens[token]
        if len(self.pair_key):
            key = node * self.size + token
            place = torch.searchsorted(self.pair_key, key).clamp(max=len(self.pair_key) - 1)
            after = torch.where(self.pair_key[place] == key, self.pair_child[place], after)
        return after, (bits | self.sets[token]) & ~self.clears[token]
