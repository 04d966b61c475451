"""Which optimizer trains which weights."""

from collections.abc import Sequence

import torch
from torch.optim import Optimizer

from sequela.model.decoder import Decoder
from sequela.training.muon import Muon
from sequela.training.objectives.objective import Group
from sequela.training.settings import TrainSettings


def decoder_groups(decoder: Decoder) -> list[Group]:
    """The weights of a decoder: the matrices inside the blocks; embeddings, norms, and biases. Of one that is frozen
    but for its adapters, these."""
    trained = [w for w in decoder.parameters() if w.requires_grad]
    if len(trained) < sum(1 for _ in decoder.parameters()):
        return [Group("adapters", trained)]
    inside = [w for name, w in decoder.named_parameters() if name.startswith("blocks.") and w.dim() == 2]
    chosen = {id(w) for w in inside}
    others = [w for w in decoder.parameters() if id(w) not in chosen]
    return [Group("decoder matrices", inside, matrices=True), Group("decoder", others)]


def optimizers(groups: Sequence[Group], settings: TrainSettings) -> list[Optimizer]:
    """One optimizer for each group, at the group's peak rate.

    Muon (arXiv 2502.16982, with its scaling to AdamW's step size) trains groups of matrices, AdamW (arXiv 1711.05101)
    all others, without decay; with `optimizer="adamw"` it trains the matrices too. Muon needs fewer tokens for the same
    loss, and a long second moment keeps rare events near their true probability (docs/records/optimizer.md).
    """
    return [_optimizer(group, settings) for group in groups]


def _optimizer(group: Group, settings: TrainSettings) -> Optimizer:
    betas, decay = (0.9, settings.second_moment), settings.weight_decay
    if not group.matrices:
        rate = group.rate * settings.learning_rate
        return torch.optim.AdamW(group.weights, rate, betas, weight_decay=0.0, fused=True)
    rate = group.rate * settings.matrix_rate
    if settings.optimizer == "muon":
        return Muon(group.weights, rate, decay, adjust_lr_fn="match_rms_adamw")
    rate = group.rate * settings.learning_rate
    return torch.optim.AdamW(group.weights, rate, betas, weight_decay=decay, fused=True)
