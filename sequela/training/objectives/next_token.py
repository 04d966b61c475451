"""What a decoder is trained to do: objectives are modules that hold the model and turn a batch into a loss.

Shape letters: N predicted tokens, C hidden width, V vocabulary.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sequela.model.decoder import Decoder
from sequela.model.precision import computed_in
from sequela.tokens.packing import Batch
from sequela.training.data import Inputs, inputs

CHUNK = 2**22
"""Scores that are held at a time, tokens times vocabulary."""


class NextToken(nn.Module):
    """Predict each token of a window from those before it."""

    def __init__(self, decoder: Decoder, precision: str = "fp32"):
        """`precision`: fp32, or bf16 for the matrix products; the weights and their gradients stay fp32."""
        super().__init__()
        self.decoder = decoder
        self.precision = precision

    def compile_blocks(self, backend: str = "inductor") -> None:
        """Fuse what lies between the products of a block. Pays on a GPU, not on a CPU (docs/records/training.md)."""
        for block in self.decoder.blocks:
            block.compile(backend=backend, dynamic=False)

    def forward(self, batch: Inputs) -> tuple[Tensor, int]:
        """Sum of -ln p(token) over the tokens that are predicted, in nats, and how many they are."""
        with computed_in(self.precision, batch.ids.device):
            hidden = self.decoder.hidden(batch.ids, batch.positions, batch.attention)
            chosen = hidden.flatten(0, 1)[batch.places]
            nats = cross_entropy(chosen, self.decoder.head.weight, batch.targets)
        return nats, len(batch.targets)


def cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int = CHUNK) -> Tensor:
    """Sum over N tokens of -ln softmax(hidden weight')[target], in nats, fp32; at most `chunk` scores at a time.

    Args:
        hidden: [N, C]; the products are in its type, the rest in fp32.
        weight: [V, C].
        targets: int64 [N].
    """
    return _CrossEntropy.apply(hidden, weight, targets, max(1, chunk // len(weight)))


class _CrossEntropy(torch.autograd.Function):
    """The gradients are worked out with the loss, so that no score outlives its chunk."""

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, targets: Tensor, rows: int) -> Tensor:
        nats = hidden.new_zeros((), dtype=torch.float32)
        of_hidden, of_weight = torch.empty_like(hidden), torch.zeros_like(weight, dtype=torch.float32)
        low = weight.to(hidden.dtype)
        for begin in range(0, len(targets), rows):
            part = slice(begin, begin + rows)
            scores = (hidden[part] @ low.t()).float()
            target = targets[part, None]
            whole = scores.logsumexp(-1, keepdim=True)
            nats += (whole - scores.gather(1, target)).sum()
            # softmax minus one at the target: the gradient of the scores
            slope = scores.sub_(whole).exp_().scatter_add_(1, target, torch.full_like(whole, -1.0))
            slope = slope.to(hidden.dtype)
            of_hidden[part] = slope @ low
            of_weight += slope.t() @ hidden[part]
        ctx.save_for_backward(of_hidden, of_weight.to(weight.dtype))
        return nats

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        of_hidden, of_weight = ctx.saved_tensors
        return of_hidden * gradient, of_weight * gradient, None, None


@dataclass(frozen=True)
class Scored:
    """How a model scores the N tokens of a batch that it has to predict; padding and first tokens are none of them.

    Attributes:
        logits: float32 [N, V].
        targets: int64 [N], the tokens.
        places: int64 [N], where in the flattened batch each is predicted, rising.
    """

    logits: Tensor
    targets: Tensor
    places: np.ndarray

    def nats(self) -> Tensor:
        """-ln p(token) of each, float32 [N]."""
        return F.cross_entropy(self.logits, self.targets, reduction="none")

    def group_nats(self, groups: Tensor) -> Tensor:
        """-ln p(any token of the target's group) of each, float32 [N]; `groups` int64 [V] numbers them from 0."""
        chances = self.logits.softmax(-1)
        summed = torch.zeros(len(chances), int(groups.max()) + 1, device=chances.device)
        summed.index_add_(1, groups, chances)
        return -summed.gather(1, groups[self.targets][:, None])[:, 0].log()


def scored(model: Decoder, batch: Batch) -> Scored:
    """Score the batch. Only positions with a target are projected to the vocabulary."""
    read = inputs(batch, model.embedding.weight.device)
    hidden = model.hidden(read.ids, read.positions, read.attention)
    logits = model.head(hidden.flatten(0, 1)[read.places]).float()
    return Scored(logits, read.targets, read.places.numpy(force=True))
