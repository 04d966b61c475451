"""Muon for the matrices, AdamW for the rest, and their learning rate."""

import math

import torch

from sequela.model.decoder import Decoder
from sequela.train.settings import TrainSettings


def optimisers(model: Decoder, settings: TrainSettings) -> list[torch.optim.Optimizer]:
    """Muon (arXiv 2502.16982, with its scaling to the step size of AdamW) for the matrices inside the blocks; AdamW
    (arXiv 1711.05101), betas 0.9 and 0.95, without decay for embeddings, norms and biases.

    On the NAFLD corpus two epochs with Muon reach the loss of four with AdamW alone (docs/records/optimiser.md).
    """
    inside = [w for name, w in model.named_parameters() if name.startswith("blocks.") and w.dim() == 2]
    chosen = {id(w) for w in inside}
    others = [w for w in model.parameters() if id(w) not in chosen]
    return [
        torch.optim.Muon(
            inside, lr=settings.matrix_rate, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


def schedule(step: int, steps: int, settings: TrainSettings) -> float:
    """Share of the peak rate at step 0..steps-1: linear warm-up, then half a cosine down to `final_rate`.

    >>> settings = TrainSettings(warmup=0.1, final_rate=0.1)
    >>> [round(schedule(step, 100, settings), 2) for step in (0, 9, 99)]
    [0.1, 1.0, 0.1]
    """
    warmup = max(1, round(settings.warmup * steps))
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup + 1) / max(1, steps - warmup)
    return settings.final_rate + (1 - settings.final_rate) * (1 + math.cos(math.pi * done)) / 2
