"""The end of a record: nothing else came at its last moment, nor until the end of follow-up.

No token says so, because the row stops with the record. A model that learned from the tokens alone would learn what
follows an event only from those for whom something did: death, for example, would follow every discharge of a record
that mostly ends with one. So at the last token of each record the loss is that of what is known: that a time token
comes, and that it stands for a longer time than is left of the record,

    -ln sum over time tokens c of p(c) S_c(rest)

with the survival S_c of the gaps of a class. This is the likelihood of a censored observation, and exact but
for the distribution of gaps within a class. Time that is left beyond whole longest intervals is in tokens already.

Shape letters: M records that end, C hidden width, V vocabulary, I time tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sequela.tokens.packing import Windows
from sequela.tokens.tokenizer import Tokenizer
from sequela.training.data import NO_ENDS, Ends


def ends_of(windows: Windows, row: np.ndarray, rest: np.ndarray | None, tokenizer: Tokenizer) -> Ends:
    """The ends of records in a packed row of these windows.

    Args:
        rest: of each patient, see `sequela.tokens.tokenizer.Encoded`; None: nothing is known of any.
    """
    if rest is None:
        return NO_ENDS
    patient = windows.patient[row]
    known = (windows.stop[row] == windows.tokens.lengths[patient]) & (rest[patient] >= 0)
    last = np.cumsum(windows.lengths[row]) - 1
    return Ends(last[known], tokenizer.survival(rest[patient[known]]).astype(np.float32))


def time_passes(
    hidden: Tensor, weight: Tensor, moving: Tensor, survival: Tensor, offset: Tensor | None, chunk: int
) -> tuple[Tensor, Tensor]:
    """Sum of -ln p(a time token that stands for long enough), in nats, fp32; holds at most `chunk` logits at a time.

    Args:
        hidden: [M, C]; the products are computed in its type, the rest in fp32.
        weight: [V, C].
        moving: int64 [I], the time tokens, all of one class weight.
        survival: float32 [M, I], how likely each is to stand for long enough; above 0 for one at least.
        offset: float32 [V], the logarithms of class weights; None: all alike.

    Returns:
        As `cross_entropy` does, the weighted sum, which has a gradient, and the plain one, which has none.
    """
    return _TimePasses.apply(hidden, weight, moving, survival, offset, max(1, chunk // len(weight)))


class _TimePasses(torch.autograd.Function):
    """Computes the gradients together with the loss, so that no logits outlive their chunk."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, moving: Tensor, survival: Tensor, offset: Tensor | None, rows: int
    ) -> tuple[Tensor, Tensor]:
        nats, plain = (hidden.new_zeros((), dtype=torch.float32) for _ in range(2))
        of_hidden, of_weight = torch.empty_like(hidden), torch.zeros_like(weight, dtype=torch.float32)
        low = weight.to(hidden.dtype)
        counts = 1.0 if offset is None else offset[moving[0]].exp()
        for begin in range(0, len(hidden), rows):
            part = slice(begin, begin + rows)
            scores = (hidden[part] @ low.t()).float()
            likely = scores[:, moving] + survival[part].log()
            known = likely.logsumexp(-1, keepdim=True)
            plain += (scores.logsumexp(-1, keepdim=True) - known).sum()
            if offset is not None:
                scores += offset
                known += offset[moving[0]]
            whole = scores.logsumexp(-1, keepdim=True)
            nats += counts * (whole - known).sum()
            # softmax minus the share of each time token in what is known: the gradient of the scores
            slope = scores.sub_(whole).exp_().index_add_(1, moving, -likely.softmax(-1))
            slope = (counts * slope).to(hidden.dtype)
            of_hidden[part] = slope @ low
            of_weight += slope.t() @ hidden[part]
        ctx.save_for_backward(of_hidden, of_weight.to(weight.dtype))
        ctx.mark_non_differentiable(plain)
        return nats, plain

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        of_hidden, of_weight = ctx.saved_tensors
        return of_hidden * gradient, of_weight * gradient, None, None, None, None
