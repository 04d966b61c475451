"""What a decoder is trained to do: objectives are functions of (model, batch)."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sequela.model.attention import Packed
from sequela.model.decoder import Decoder
from sequela.tokens.pack import Batch


def next_token(model: Decoder, batch: Batch) -> tuple[Tensor, int]:
    """Sum over the batch of -ln p(next token), in nats, and the number of tokens predicted.

    Only positions with a target are projected to the vocabulary; padding and each patient's last position have none.
    """
    device = model.embedding.weight.device
    ids, positions = (torch.from_numpy(x).to(device) for x in (batch.ids, batch.positions))
    hidden = model.hidden(ids, positions, Packed(batch.segments, device))
    targets = batch.targets.ravel()
    scored = np.flatnonzero(targets >= 0)
    chosen = hidden.flatten(0, 1)[torch.from_numpy(scored).to(device)]
    target = torch.from_numpy(targets[scored]).to(device)
    return F.cross_entropy(model.head(chosen).float(), target, reduction="sum"), len(scored)
