"""What a decoder is trained to do: objectives are functions of (model, batch)."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sequela.model.attention import Packed
from sequela.model.decoder import Decoder
from sequela.tokens.pack import Batch


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
    device = model.embedding.weight.device
    ids, positions = (torch.from_numpy(x).to(device) for x in (batch.ids, batch.positions))
    hidden = model.hidden(ids, positions, Packed(batch.segments, device))
    targets = batch.targets.ravel()
    places = np.flatnonzero(targets >= 0)
    chosen = hidden.flatten(0, 1)[torch.from_numpy(places).to(device)]
    return Scored(model.head(chosen).float(), torch.from_numpy(targets[places]).to(device), places)


def next_token(model: Decoder, batch: Batch) -> tuple[Tensor, int]:
    """Sum over the batch of -ln p(next token), in nats, and the number of tokens predicted."""
    found = scored(model, batch)
    return F.cross_entropy(found.logits, found.targets, reduction="sum"), len(found.places)
