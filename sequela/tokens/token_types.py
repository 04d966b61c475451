"""What tokens are about, and what they say of a patient, so that a model can be judged by it: a mean hides what has not
been learned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TokenTypes:
    """The type of every token of a vocabulary of V tokens, K types numbered from 0.

    Attributes:
        token: int64 [V], the type of each token.
        names: the K types.
        counts: bool [V] or None (all): whether a token is a thing of its type of its own, rather than a continuation
            of the token before, such as the second part of a code.
        group: int64 [V] or None: tokens of one group say the same thing first and differ in what they say beyond it,
            such as a code fused with each of its quantiles.
        beyond: int64 [V] or None, with `group`: the type of what a token says beyond its group; -1: nothing.
        events: bool [K] or None (all): whether the things of a type are events; time and values, say, are not.
    """

    token: np.ndarray
    names: tuple[str, ...]
    counts: np.ndarray | None = None
    group: np.ndarray | None = None
    beyond: np.ndarray | None = None
    events: np.ndarray | None = None

    @staticmethod
    def single(tokens: int) -> TokenTypes:
        """All tokens of one type, each an event: for a tokenizer that tells no types apart."""
        return TokenTypes(np.zeros(tokens, np.int64), ("all",))


@dataclass(frozen=True)
class Traits:
    """What a patient's tokens so far say of them, for V tokens.

    Attributes:
        category: int64 [V], the category of the code that a token is or begins; -1: none, such as a later part.
        categories: the names of these.
        states: names of what holds for a while, such as a sex, an age band, or a last value.
        switches: int64 [M, 4], rows of (token, token before it or -1 for any, state, 1 or 0): from that token on the
            state holds, or it no longer does.
    """

    category: np.ndarray
    categories: tuple[str, ...]
    states: tuple[str, ...]
    switches: np.ndarray
