"""AdamW and its learning rate."""

import math

import torch

from sequela.model.decoder import Decoder
from sequela.train.settings import TrainSettings


def adamw(model: Decoder, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW (arXiv 1711.05101), betas 0.9 and 0.95; decay on matrices only."""
    matrices = [w for w in model.parameters() if w.dim() > 1]
    others = [w for w in model.parameters() if w.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.95), fused=True)


def learning_rate(step: int, steps: int, settings: TrainSettings) -> float:
    """Rate of step 0..steps-1: linear warm-up, then a cosine down to a tenth of the peak, CoMET's schedule.

    >>> settings = TrainSettings(learning_rate=1.0, warmup=0.1)
    >>> [round(learning_rate(step, 100, settings), 2) for step in (0, 9, 99)]
    [0.1, 1.0, 0.1]
    """
    warmup = max(1, round(settings.warmup * steps))
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    done = (step - warmup + 1) / max(1, steps - warmup)
    return settings.learning_rate * (0.55 + 0.45 * math.cos(math.pi * done))
