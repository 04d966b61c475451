"""A few steps of training, by one process or by those that torchrun starts: `ranks.py OUT` runs them all ways."""

import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.train import state
from sequela.train.optimizer import optimisers
from sequela.train.parallel import World, accumulating, clip, joined, parallelise, whole
from sequela.train.settings import TrainSettings

STEPS, SAVED = 6, 3
SAME = {"seed": 0}
WAYS = [("ddp", "adamw"), ("ddp", "muon"), ("fsdp", "adamw"), ("fsdp", "muon")]


class NextToken(nn.Module):
    """Nats of a row, summed, and tokens predicted."""

    def __init__(self, decoder: Decoder):
        super().__init__()
        self.decoder = decoder

    def forward(self, ids_1T: Tensor) -> tuple[Tensor, int]:
        logits = self.decoder.head(self.decoder.hidden(ids_1T))[0, :-1]
        return F.cross_entropy(logits, ids_1T[0, 1:], reduction="sum"), len(logits)


def rows_of(step: int) -> list[Tensor]:
    """Four rows of very different lengths; the last step has three, which two processes cannot share evenly."""
    random = torch.Generator().manual_seed(step)
    lengths = [61, 9, 30, 5][: 3 if step == STEPS - 1 else 4]
    return [torch.randint(0, 50, (1, length), generator=random) ** 2 % 50 for length in lengths]


def small(optimiser: str, world: World, kind: str) -> tuple[nn.Module, NextToken, list]:
    """The module to call, the objective inside it and its optimisers."""
    config = ModelConfig.of_depth(2, 50, 64)
    objective = NextToken(Decoder(config).initialise(0)).to(world.device)
    module = parallelise(objective, kind, world)
    settings = TrainSettings(optimiser=optimiser, learning_rate=6e-3, matrix_rate=6e-3)
    return module, objective, optimisers(objective.decoder, settings)


def run(
    kind: str, optimiser: str, world: World, folder: Path, *, resume: bool = False, means: bool = False
) -> dict:
    """Losses, gradient norms and last weights of the steps, with a checkpoint after SAVED; `means`: the wrong mean."""
    module, objective, steppers = small(optimiser, world, kind)
    facts = state.restore(folder, objective, steppers, SAME, world) if resume else {"step": 0}
    losses, norms = [], []
    for step in range(facts["step"], STEPS):
        rows = world.share(rows_of(step))
        tokens = sum(row.shape[1] - 1 for row in rows_of(step))
        if means:
            tokens = world.size * sum(row.shape[1] - 1 for row, _ in rows)
        module.zero_grad()
        total = 0.0
        for number, (row, weight) in enumerate(rows):
            with accumulating(module, last=number == len(rows) - 1):
                nats, _ = module(row.to(world.device))
                (nats * (weight * world.size / tokens)).backward()
            total += nats.item() * weight
        norms.append(clip(objective, 0.5))
        for stepper in steppers:
            stepper.step()
        losses.append(world.sum(total / tokens)[0])
        if step + 1 == SAVED and not resume:
            state.save(folder, step + 1, objective, steppers, {"step": step + 1}, SAME, world)
    decoder = whole(objective.decoder)
    return {"losses": losses, "norms": norms, "weights": [w.sum().item() for w in decoder.parameters()]}


def main(out: Path) -> None:
    torch.set_num_threads(1)
    found: dict = {}
    with joined() as world:
        for kind, optimiser in WAYS:
            name = f"{kind}-{optimiser}"
            found[name] = run(kind, optimiser, world, out / name)
            found[f"{name} resumed"] = run(kind, optimiser, world, out / name, resume=True)
            found[f"{name} from one"] = run(kind, optimiser, world, out / f"none-{optimiser}", resume=True)
        found["means"] = run("ddp", "adamw", world, out / "means", means=True)
        if world.leads:
            (out / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
