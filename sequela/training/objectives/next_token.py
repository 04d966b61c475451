"""Next-token prediction: each token of a window from the tokens before it.

Shape letters: N predicted tokens, C hidden width, V vocabulary.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sequela.model import checkpoint, flops
from sequela.model.decoder import Decoder
from sequela.model.precision import computed_in
from sequela.tokens.corpus import Corpus
from sequela.tokens.packing import Windows, collate
from sequela.training.data import Inputs, inputs
from sequela.training.objectives.last_moment import ends_of, time_passes
from sequela.training.objectives.objective import Group, Loss, Setup, Validation
from sequela.training.optimizer import decoder_groups
from sequela.training.outcomes.residual import compared
from sequela.training.outcomes.weight import outcome_tokens
from sequela.training.score import losses

CHUNK = 2**22
"""Most logits held at a time: tokens times vocabulary."""
WEIGHTED = "weighted_bits_per_token"
ENOUGH = 100  # outcomes for their loss to be watched: that of fewer says little, and that of all tokens says more


class NextToken(nn.Module):
    """The sum of -ln p(token), divided by the number of predicted tokens; shown in bits.

    With class weights (see `sequela.training.outcomes.weight`) a weighted loss is minimized, and the plain one is still
    what is shown.
    """

    name = "next_token"
    unit = "bits_per_token"
    pure = True

    def __init__(self, decoder: Decoder, setup: Setup | None = None):
        super().__init__()
        self.decoder = decoder
        self.setup = setup or Setup()
        minutes = np.zeros(0) if self.setup.tokenizer is None else self.setup.tokenizer.minutes_V
        moving = torch.from_numpy(np.flatnonzero(minutes > 0))
        self.register_buffer("moving", moving, persistent=False)
        weights = self.setup.class_weights
        offset = None if weights is None else torch.from_numpy(np.log(weights))
        self.register_buffer("offset", offset, persistent=False)

    def collate(self, windows: Windows, row: np.ndarray) -> Inputs:
        """A packed row on the decoder's device; its weight is the number of predicted tokens."""
        batch = collate(windows, row, self.setup.row_multiple)
        ends = ends_of(windows, row, self.setup.rest, self.setup.tokenizer)
        return inputs(batch, self.decoder.embedding.weight.device, ends)

    def forward(self, batch: Inputs) -> Loss:
        """Sum of -ln p(token) over the predicted tokens, and of -ln p(what is known) behind records, in nats."""
        with computed_in(self.setup.precision, batch.ids.device):
            return self.read(self.decoder.hidden(batch.ids, batch.positions, batch.attention), batch)

    def read(self, hidden: Tensor, batch: Inputs) -> Loss:
        """The same from the hidden states [B, T, C] of a row, for objectives that read more from them."""
        flat, weight = hidden.flatten(0, 1), self.decoder.head.weight
        nats, plain = cross_entropy(flat[batch.places], weight, batch.targets, self.offset)
        if len(batch.ended):
            more, plain_more = time_passes(
                flat[batch.ended], weight, self.moving, batch.survival, self.offset, CHUNK
            )
            nats, plain = nats + more, plain + plain_more
        return Loss(nats, {} if self.offset is None else {self.unit: plain, WEIGHTED: nats.detach()})

    def groups(self) -> list[Group]:
        """The decoder's."""
        return decoder_groups(self.decoder)

    def after_step(self, done: float) -> None:
        """Nothing changes between steps."""

    def flops(self, lengths: np.ndarray) -> int:
        """Of one forward and one backward pass."""
        return flops.train(self.decoder.config, lengths)

    def shown(self, loss: float) -> float:
        """Bits for nats."""
        return loss / math.log(2)

    def figures(self, mean: float) -> dict[str, float]:
        """Bits per event, at the corpus's events per token, and bits per token."""
        return {"bits_per_event": mean * (1 / self.setup.events_per_token), self.unit: mean}

    def validate(self, corpus: Corpus, patients: np.ndarray | None = None) -> Validation | None:
        """Bits per outcome (if there are enough), token and event, and bits per event of each kind (`score.losses`)."""
        outcome = outcome_tokens(corpus.tokenizer, self.setup.settings.outcomes)
        details = losses(self.decoder, corpus, patients, outcome)
        if details is None:
            return None
        watched = ["bits_per_outcome"] if details.get("outcomes", 0) >= ENOUGH else []
        figures = {name: details[name] for name in (*watched, self.unit, "bits_per_event")}
        by_kind = {f"bits_per_event_of/{kind}": part["bits_per_event"] for kind, part in details["kinds"].items()}
        return Validation(figures | by_kind, details)

    def compared(self, corpus: Corpus, patients: np.ndarray) -> dict | None:
        """Observed over expected outcomes (`sequela.training.outcomes.residual`)."""
        return compared(self.decoder, corpus, self.setup.settings.outcomes, patients)

    def take_over(self, folder: Path) -> None:
        """There is nothing beside the decoder."""

    def save(self, folder: Path) -> None:
        """Write the decoder's checkpoint."""
        checkpoint.save(self.decoder, folder)


def cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, offset: Tensor | None = None, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """Sum over N tokens of -ln softmax(hidden weight')[target], in nats, fp32; holds at most `chunk` logits at a time.

    Args:
        hidden: [N, C]; the products are computed in its type, the rest in fp32.
        weight: [V, C].
        targets: int64 [N].
        offset: float32 [V], the logarithms ln w of class weights.

    Returns:
        The sum of w[target] (-ln softmax(hidden weight' + ln w)[target]), which has a gradient; and the plain sum,
        which has none. The same without weights.
    """
    return _CrossEntropy.apply(hidden, weight, targets, offset, max(1, chunk // len(weight)))


class _CrossEntropy(torch.autograd.Function):
    """Computes the gradients together with the loss, so that no logits outlive their chunk."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, offset: Tensor | None, rows: int
    ) -> tuple[Tensor, Tensor]:
        nats, plain = (hidden.new_zeros((), dtype=torch.float32) for _ in range(2))
        of_hidden, of_weight = torch.empty_like(hidden), torch.zeros_like(weight, dtype=torch.float32)
        low = weight.to(hidden.dtype)
        for begin in range(0, len(targets), rows):
            part = slice(begin, begin + rows)
            scores = (hidden[part] @ low.t()).float()
            target = targets[part, None]
            if offset is not None:
                scores += offset
            whole = scores.logsumexp(-1, keepdim=True)
            lost = whole - scores.gather(1, target)
            # softmax minus one at the target: the gradient of the scores
            slope = scores.sub_(whole).exp_()
            if offset is not None:
                # by the sum of exp(scores) without the offset, and the target's
                plain += (lost + (slope @ (-offset).exp()).log()[:, None] + offset[target]).sum()
                lost *= offset[target].exp()
            nats += lost.sum()
            slope.scatter_add_(1, target, torch.full_like(whole, -1.0))
            if offset is not None:
                slope *= offset[target].exp()
            slope = slope.to(hidden.dtype)
            of_hidden[part] = slope @ low
            of_weight += slope.t() @ hidden[part]
        ctx.save_for_backward(of_hidden, of_weight.to(weight.dtype))
        plain = nats.clone() if offset is None else plain
        ctx.mark_non_differentiable(plain)
        return nats, plain

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        of_hidden, of_weight = ctx.saved_tensors
        return of_hidden * gradient, of_weight * gradient, None, None, None
