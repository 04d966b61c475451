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

from sequela.tokens.packing import Windows


def last_moments(windows: Windows, row: np.ndarray, closing: np.ndarray) -> np.ndarray:
    """Where in a packed row of these windows a patient's tokens end with a closing one, int64 [M].

    Args:
        closing: bool [V], see `sequela.training.data.closing_tokens`.
    """
    patient = windows.patient[row]
    last = np.cumsum(windows.lengths[row]) - 1
    whole = windows.stop[row] == windows.tokens.lengths[patient]
    ids = np.array([windows.tokens[number][-1] for number in patient[whole]], np.int64)
    return last[whole][closing[ids]]


def time_passes(
    hidden: Tensor, weight: Tensor, moving: Tensor, offset: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Sum of -ln p(any time token), in nats, fp32.

    Args:
        hidden: [M, C]; the products are computed in its type, the rest in fp32.
        weight: [V, C].
        moving: int64 [I], the time tokens, all of one weight.
        offset: float32 [V], the logarithms of class weights.

    Returns:
        As `cross_entropy` does, the weighted sum and the plain one.
    """
    scores = (hidden @ weight.to(hidden.dtype).t()).float()
    plain = _any_of(moving, scores)
    if offset is None:
        return plain, plain.detach()
    return offset[moving[0]].exp() * _any_of(moving, scores + offset), plain.detach()


def _any_of(moving: Tensor, scores: Tensor) -> Tensor:
    return (torch.logsumexp(scores, -1) - torch.logsumexp(scores[:, moving], -1)).sum()
