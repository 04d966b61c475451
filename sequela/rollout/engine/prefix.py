"""Prefixes that the model has read: each is computed once and shared by all rollouts that go on from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from sequela.rollout.engine.cache import Prefill

ReadPrefix = Callable[[np.ndarray], tuple[Prefill, Tensor]]
"""Has the model read tokens, int64 [L]: their keys and values, and the hidden state [1, C] at the last one."""


@dataclass(eq=False)
class Prefix:
    """Tokens that the model has read: `ids` int64 [L], and what `ReadPrefix` returned for them.

    `users` counts who goes on from it.
    """

    ids: np.ndarray
    prefill: Prefill
    last: Tensor
    users: int = 0


class Prefixes(Protocol):
    """Gives what the model made of some tokens, and computes it only if it must.

    Prefixes are told apart by their tokens. A hash may find one, but the tokens must confirm it: two prompts that
    share a hash must never share a prefill.

    A tree of prefixes, as a search over steps of reasoning needs, implements the same two methods: `give` looks up the
    longest known beginning of the ids and has only the rest read (a `Prefill` whose keys begin with those of its
    parent), and `release` keeps inner nodes as long as one of their children is in use.
    """

    def give(self, ids: np.ndarray) -> Prefix:
        """What the model made of these tokens, int64 [L]; in use until `release`."""
        ...

    def release(self, prefix: Prefix) -> None:
        """One user less."""
        ...


class WholePrefixes:
    """Shares whole prefixes only, among those in use and the latest one.

    A prefix that is no longer in use is forgotten when another one is given: the rollouts of a prompt are mostly begun
    one after another, some of them after the first ones have ended.
    """

    def __init__(self, read: ReadPrefix):
        self.read = read
        self.known: dict[bytes, Prefix] = {}  # by their tokens

    def give(self, ids: np.ndarray) -> Prefix:
        """See `Prefixes`."""
        content = np.ascontiguousarray(ids, np.int64).tobytes()
        self.known = {key: prefix for key, prefix in self.known.items() if prefix.users or key == content}
        if content not in self.known:
            self.known[content] = Prefix(ids, *self.read(ids))
        prefix = self.known[content]
        prefix.users += 1
        return prefix

    def release(self, prefix: Prefix) -> None:
        """See `Prefixes`."""
        prefix.users -= 1
