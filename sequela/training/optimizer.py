"""Which optimizer trains which weights, and how their rates rise and fall."""

import math

import torch

from sequela.model.decoder import Decoder
from sequela.training.settings import TrainSettings


def optimizers(model: Decoder, settings: TrainSettings) -> list[torch.optim.Optimizer]:
    """The optimizers of a run, each with one group of weights at its peak rate.

    Muon (arXiv 2502.16982, with its scaling to the step size of AdamW) trains the matrices inside the blocks, AdamW
    (arXiv 1711.05101) embeddings, norms and biases, without decay; with "adamw" it trains the matrices too. Muon needs
    fewer tokens for the same loss, and a long second moment keeps rare events near their probability
    (docs/records/optimizer.md).
    """
    inside = [w for name, w in model.named_parameters() if name.startswith("blocks.") and w.dim() == 2]
    chosen = {id(w) for w in inside}
    others = [w for w in model.parameters() if id(w) not in chosen]
    betas, decay = (0.9, settings.second_moment), settings.weight_decay
    rest = torch.optim.AdamW(others, settings.learning_rate, betas, weight_decay=0.0, fused=True)
    if settings.optimizer == "muon":
        matrices = torch.optim.Muon(inside, settings.matrix_rate, decay, adjust_lr_fn="match_rms_adamw")
    else:
        matrices = torch.optim.AdamW(inside, settings.learning_rate, betas, weight_decay=decay, fused=True)
    return [matrices, rest]


def schedule(done: float, settings: TrainSettings) -> float:
    """Share of the peak rate when a share `done` of the run's tokens is seen: linear warm-up, then half a cosine down.

    >>> settings = TrainSettings(warmup=0.1, final_rate=0.1)
    >>> [round(schedule(done, settings), 2) for done in (0.05, 0.1, 1.0)]
    [0.5, 1.0, 0.1]
    """
    if done < settings.warmup:
        return done / settings.warmup
    fallen = (done - settings.warmup) / (1 - settings.warmup)
    return settings.final_rate + (1 - settings.final_rate) * (1 + math.cos(math.pi * fallen)) / 2
