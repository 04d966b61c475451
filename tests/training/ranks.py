"""A few steps of training, by one process or by those that torchrun starts: `ranks.py OUT` runs them all ways."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.tokens.packing import Batch
from sequela.training import checkpoint
from sequela.training.checkpoint import Trained
from sequela.training.data import Inputs, inputs
from sequela.training.objectives.next_token import NextToken
from sequela.training.optimizer import optimizers
from sequela.training.parallel import ProcessGroup, accumulating, clip, joined, parallelize, whole
from sequela.training.settings import TrainSettings

STEPS, SAVED = 6, 3
SAME = {"seed": 0}
WAYS = [("ddp", "adamw"), ("ddp", "muon"), ("fsdp", "adamw"), ("fsdp", "muon")]


def row(random: np.random.Generator, length: int, group: ProcessGroup) -> Inputs:
    """One window, whose tokens are not all as frequent."""
    ids = random.integers(0, 50, (1, length)) ** 2 % 50
    targets = np.append(ids[:, 1:], [[-1]], axis=1)
    return inputs(Batch(ids, np.arange(length)[None], np.zeros_like(ids), targets), group.device)


def rows_of(step: int, group: ProcessGroup) -> list[Inputs]:
    """Four rows of very different lengths; the last step has three, which two processes cannot share evenly."""
    random = np.random.default_rng(step)
    lengths = [61, 9, 30, 5][: 3 if step == STEPS - 1 else 4]
    return [row(random, length, group) for length in lengths]


def small(optimizer: str, group: ProcessGroup, kind: str) -> tuple[nn.Module, NextToken, list]:
    """The module to call, the objective inside it and its optimizers."""
    config = ModelConfig.of_depth(2, 50, 64)
    objective = NextToken(Decoder(config).initialize(0)).to(group.device)
    module = parallelize(objective, kind, group)
    settings = TrainSettings(optimizer=optimizer, learning_rate=6e-3, matrix_rate=6e-3)
    return module, objective, optimizers(objective.groups(), settings)


def run(
    kind: str, optimizer: str, group: ProcessGroup, folder: Path, *, resume: bool = False, means: bool = False
) -> dict:
    """Losses, gradient norms and last weights of the steps, with a checkpoint after SAVED; `means`: the wrong mean."""
    module, objective, trainers = small(optimizer, group, kind)
    trained = Trained(objective, trainers)
    progress = checkpoint.read_latest(folder, trained, SAME, group) if resume else {"step": 0}
    losses, norms = [], []
    for step in range(progress["step"], STEPS):
        rows = rows_of(step, group)
        tokens = sum(len(row.targets) for row in rows)
        rows = group.share(rows)
        if means:
            tokens = group.size * sum(len(row.targets) for row, _ in rows)
        module.zero_grad()
        total = 0.0
        for number, (row, weight) in enumerate(rows):
            with accumulating(module, last=number == len(rows) - 1):
                nats = module(row).total
                (nats * (weight * group.size / tokens)).backward()
            total += nats.item() * weight
        norms.append(clip(objective, 0.5))
        for trainer in trainers:
            trainer.step()
        losses.append(group.sum(total / tokens)[0])
        if step + 1 == SAVED and not resume:
            checkpoint.write_step(folder, step + 1, trained, {"step": step + 1}, SAME, group)
    decoder = whole(objective, lambda: NextToken(Decoder(objective.decoder.config))).decoder
    return {"losses": losses, "norms": norms, "weights": [w.sum().item() for w in decoder.parameters()]}


def main(out: Path) -> None:
    torch.set_num_threads(1)
    found: dict = {}
    with joined() as group:
        for kind, optimizer in WAYS:
            name = f"{kind}-{optimizer}"
            found[name] = run(kind, optimizer, group, out / name)
            found[f"{name} resumed"] = run(kind, optimizer, group, out / name, resume=True)
            found[f"{name} from one"] = run(kind, optimizer, group, out / f"none-{optimizer}", resume=True)
        found["means"] = run("ddp", "adamw", group, out / "means", means=True)
        if group.leads:
            (out / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
