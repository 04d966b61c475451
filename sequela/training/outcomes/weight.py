"""Which tokens are outcomes, and how much each counts in the loss.

Diagnoses and deaths are what tasks ask for and a small share of all tokens, so most of a gradient is about other
things. With class weights w the loss of a token y is

    w_y (-ln softmax(z + ln w)_y)

Its optimum is softmax(z) = p, the true probability: the rarer outcomes pull harder, and hazards stay what they are. A
weighted loss without the offset ln w would end at w times the odds.

Shape letters: V vocabulary.
"""

from __future__ import annotations

import numpy as np

from sequela.errors import InputError, nearest
from sequela.tokens.corpus import Corpus
from sequela.tokens.tokenizer import Tokenizer
from sequela.training.data import token_counts
from sequela.training.settings import TrainSettings


def outcome_tokens(tokenizer: Tokenizer, kinds: tuple[str, ...]) -> np.ndarray:
    """Tokens of these kinds of events, every part of a code and every fused value among them, bool [V].

    None where the tokenizer tells no kinds apart.

    Raises:
        InputError: for a kind of event that the tokenizer does not know.
    """
    types = tokenizer.types
    if types is None:
        return np.zeros(len(tokenizer.vocabulary), bool)
    known = [
        name for name, event in zip(types.names, _events(types.names, types.events), strict=True) if event
    ]
    for kind in kinds:
        if kind not in known:
            raise InputError(
                f"`outcomes` names {kind!r}, which is no kind of event{nearest(kind, known)}: choose among "
                f"{', '.join(known)}."
            )
    return np.isin(types.token, [types.names.index(kind) for kind in kinds])


def _events(names: tuple[str, ...], events: np.ndarray | None) -> np.ndarray:
    return np.ones(len(names), bool) if events is None else events


def class_weights(data: Corpus, settings: TrainSettings) -> np.ndarray | None:
    """What each token counts in the loss, float32 [V]: `outcome_weight` times as much for outcomes.

    Divided by their mean over the training tokens, so that learning rates and clipping mean what they mean without
    weights. It is one number for the whole run: a step divided by its own sum of weights would count an outcome less
    the fewer tokens are beside it, which biases hazards. None where every token counts alike.
    """
    outcome = outcome_tokens(data.tokenizer, settings.outcomes)
    if settings.outcome_weight == 1 or not outcome.any():
        return None
    weights = np.where(outcome, settings.outcome_weight, 1.0)
    counts = token_counts(data)
    return (weights * (counts.sum() / max(1.0, weights @ counts))).astype(np.float32)
