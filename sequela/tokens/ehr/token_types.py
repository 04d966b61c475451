"""What tokens are about: diagnoses, labs, time, values and so on, because a mean hides what is not learned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sequela.tokens.ehr.clock import TIME_PREFIX
from sequela.tokens.ehr.family import FAMILIES, family
from sequela.tokens.ehr.tokenizer import RESERVED, Tokenizer
from sequela.tokens.vocabulary import SPECIAL

BACKGROUND, TIME, VALUE = "background", "time", "value"
NAMES = (*FAMILIES, BACKGROUND, TIME, VALUE)
"""The families are of events; background is sex, race, age and calendar period."""


@dataclass(frozen=True)
class Kinds:
    """What the tokens of a vocabulary are about, as numbers from 0.

    Attributes:
        token: int64 [V], the kind of what a token tells.
        names: one for each kind.
        counts: bool [V] or None (all): whether a token is a thing of its kind, rather than more of the one before.
        group: int64 [V] or None: tokens that tell the same first and differ in what they tell beyond it, such as the
            fused tokens of one code with its quantiles.
        beyond: int64 [V] or None, with `group`: the kind of what a token tells beyond its group; -1: nothing.
    """

    token: np.ndarray
    names: tuple[str, ...]
    counts: np.ndarray | None = None
    group: np.ndarray | None = None
    beyond: np.ndarray | None = None


def kinds_of(tokenizer: Tokenizer) -> Kinds:
    """One of `NAMES` for each token; a code in several tokens counts once, a fused one tells its value beyond it."""
    number = {name: i for i, name in enumerate(NAMES)}
    kind = np.array([number[family(code)] for code in tokenizer.codes])
    kind[: len(SPECIAL)] = number["other"]
    for prefix in RESERVED:
        kind[tokenizer.vocabulary.matching(prefix)] = number[BACKGROUND]
    kind[tokenizer.vocabulary.matching(TIME_PREFIX)] = number[TIME]
    told = tokenizer.quantile >= 0
    apart = told & ~np.isin(tokenizer.place, (0, 1))
    kind[apart] = number[VALUE]
    counts = ~np.isin(tokenizer.place, (2, 3))
    if not tokenizer.settings.fused:
        return Kinds(kind, NAMES, counts)
    group = np.unique(tokenizer.codes, return_inverse=True)[1]
    return Kinds(kind, NAMES, counts, group, np.where(told & ~apart, number[VALUE], -1))
