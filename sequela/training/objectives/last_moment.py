"""The last moment of a record: nothing else came at it, and only a time token can come next.

No token says so, because the row stops with the record. Where records mostly end with some token (a discharge), the
model would therefore learn what follows one only from those for whom something did: death in the same minute, for
example, would follow every discharge. So behind such a token, where it ends a row, the model learns that time passes.

Shape letters: M rows that end so, C hidden width, V vocabulary, I time tokens.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sequela.tokens.corpus import Corpus
from sequela.tokens.packing import Windows

OFTEN = 1 / 20
"""A token that ends fewer rows than this share of its occurrences is left alone: the others show what follows it."""


def closing_tokens(data: Corpus) -> np.ndarray:
    """Tokens that often end the row of a patient who goes on, bool [V]; none where tokens tell no time."""
    tokenizer = data.tokenizer
    size = len(tokenizer.vocabulary)
    moves = tokenizer.minutes_V > 0
    if not moves.any():
        return np.zeros(size, bool)
    ends, every = np.zeros(size, np.int64), np.zeros(size, np.int64)
    for rows in data.tokens.parts:
        ends += np.bincount(rows.flat[rows.offsets[1:][rows.lengths > 0] - 1], minlength=size)
        every += np.bincount(rows.flat, minlength=size)
    closing = (ends > 0) & (ends >= OFTEN * every) & ~moves
    closing[tokenizer.final] = False
    return closing


def last_moments(windows: Windows, row: np.ndarray, closing: np.ndarray) -> np.ndarray:
    """Where in a packed row of these windows a patient's tokens end with a closing one, int64 [M]."""
    patient = windows.patient[row]
    last = np.cumsum(windows.lengths[row]) - 1
    whole = windows.stop[row] == windows.tokens.lengths[patient]
    ids = np.array([windows.tokens[number][-1] for number in patient[whole]], np.int64)
    return last[whole][closing[ids]]


def time_passes(hidden: Tensor, weight: Tensor, moving: Tensor) -> Tensor:
    """Sum of -ln p(any time token), in nats, fp32.

    Args:
        hidden: [M, C]; the products are computed in its type, the rest in fp32.
        weight: [V, C].
        moving: int64 [I], the time tokens.
    """
    scores = (hidden @ weight.to(hidden.dtype).t()).float()
    return (torch.logsumexp(scores, -1) - torch.logsumexp(scores[:, moving], -1)).sum()
