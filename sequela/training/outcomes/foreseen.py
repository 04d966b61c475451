"""Which events a value head foresees: death, the outcomes that people ask about, and the most frequent others.

An event is a set of tokens of which the first counts: all values of a code, say, or all codes of a category.

Shape letters: V vocabulary, E events.
"""

from __future__ import annotations

import numpy as np

from sequela.errors import InputError, closest, coming_near
from sequela.model.hazards import ForeseenEvents
from sequela.record.spelling import matches_code
from sequela.tokens.tokenizer import Tokenizer
from sequela.training.outcomes.weight import outcome_tokens

DEATH = "death"
OR = "|"  # between codes of one event
NEAR = 3  # codes that come near to one without a token


def foreseen_events(
    tokenizer: Tokenizer, counts: np.ndarray, kinds: tuple[str, ...], codes: tuple[str, ...] = (), most: int = 64
) -> ForeseenEvents:
    """The events of a head, by name.

    Args:
        counts: int64 [V], how often each token occurs among the training patients.
        kinds: of events; each code of these kinds is an event (see `outcome_tokens`).
        codes: events of their own: a code, or the beginning of codes with a * behind it, or several with | between.
        most: how many events there are at most, frequent codes among them; death, `kinds` and `codes` come first, and
            are there in any case.

    Raises:
        InputError: for a kind that the tokenizer does not know, or a code that no token stands for.
    """
    category, names = _categories(tokenizer)
    sets = {DEATH: np.sort(tokenizer.final)} if len(tokenizer.final) else {}
    sets |= {event: _matching(event, category, names, tokenizer.vocabulary.tokens) for event in codes}
    free = (category >= 0) & ~np.isin(np.arange(len(category)), [*tokenizer.final, *tokenizer.head])
    asked = np.unique(category[free & outcome_tokens(tokenizer, kinds)])
    seen = np.bincount(category[free], counts[free], len(names))
    frequent = [number for number in np.argsort(-seen, kind="stable") if seen[number] > 0 and number not in asked]
    for number in [*asked, *frequent[: max(0, most - len(sets) - len(asked))]]:
        sets.setdefault(names[number], np.flatnonzero(free & (category == number)))
    tokens = tuple(tuple(tokens.tolist()) for tokens in sets.values())
    return ForeseenEvents(tuple(sets), tokens, tokenizer.vocabulary.hash)


def _categories(tokenizer: Tokenizer) -> tuple[np.ndarray, tuple[str, ...]]:
    """The code that each token is or begins, int64 [V], -1 for none; and their names."""
    if tokenizer.traits is not None:
        return tokenizer.traits.category, tokenizer.traits.categories
    return np.where(tokenizer.minutes_V == 0, np.arange(len(tokenizer.vocabulary)), -1), tokenizer.vocabulary.tokens


def _matching(event: str, category: np.ndarray, names: tuple[str, ...], tokens: tuple[str, ...]) -> np.ndarray:
    """The tokens of an event of several codes, ascending."""
    members: list[int] = []
    for pattern in (one.strip() for one in event.split(OR)):
        matching = [
            token
            for token, number in enumerate(category)
            if number >= 0 and (matches_code(names[number], (pattern,)) or matches_code(tokens[token], (pattern,)))
        ]
        if not matching:
            near = coming_near(closest(pattern.removesuffix("*"), names, NEAR, cutoff=0.5))
            raise InputError(f"`codes` names {pattern!r}, which no token stands for{near}: name another code.")
        members += matching
    return np.unique(np.array(members, np.int64))
