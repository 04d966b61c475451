"""A few steps of training, by one process or by those that torchrun starts (`ranks.py OUT CORPUS`), in all ways."""

import json
import sys
from contextlib import closing
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
from sequela.training.run import Run, RunPlan
from sequela.training.settings import TrainSettings

STEPS, SAVED = 6, 3
SAME = {"seed": 0}
KILLED = (2, 6)  # before the target starts, and while it follows
STAGES = (
    "stages=[{share=0.4, tokens=1}, {share=0.2, tokens=1, futures=1, only_heads=true, synced=true}, "
    "{share=0.4, tokens=0.2, futures=1}]"
)
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


def world_model(
    kind: str, group: ProcessGroup, corpus: Path, folder: Path, resumed: int | None = None
) -> dict[str, list[float]]:
    """A run of `state_jepa` whose target starts late: its weights at the end, and those of the target.

    Args:
        resumed: the step after which a run was killed that goes on here, and validates after every step. Otherwise it
            is saved after `KILLED`, each into a folder of its own.
    """
    settings = TrainSettings(
        objective="state_jepa", options=(STAGES, "decay=0.7"), layers=1, width=16, heads=2, context=256, row_tokens=256,
        batch_tokens=512, tokens=512 * 9, optimizer="adamw", checks=0, parallel=kind,
    )  # fmt: skip
    plan = RunPlan.of(corpus, settings)
    run = Run(plan, group)
    if resumed is not None:
        assert run.restore(folder / f"{resumed}"), "a checkpoint of the run"
        assert run.steps == resumed
    with closing(run.feed()) as steps:
        for step, passes in steps:
            run.take(step, passes)
            if resumed is None and run.steps in KILLED:
                run.save(folder / f"{run.steps}")
            if resumed is not None:
                whole = run.whole()
                group.broadcast(whole.validate(plan.tuning, plan.sample(1)).watched if group.leads else None)
            if run.over:
                break
    whole = run.whole()
    parts = {"decoder": whole.decoder, "target": whole.terms["futures"].target.decoder, "all": whole}
    return {"steps": [run.steps]} | {
        name: [x for weight in part.state_dict().values() for x in weight.detach().double().flatten().tolist()]
        for name, part in parts.items()
    }


def main(out: Path, corpus: Path) -> None:
    torch.set_num_threads(1)
    found: dict = {}
    with joined() as group:
        for kind, optimizer in WAYS:
            name = f"{kind}-{optimizer}"
            found[name] = run(kind, optimizer, group, out / name)
            found[f"{name} resumed"] = run(kind, optimizer, group, out / name, resume=True)
            found[f"{name} from one"] = run(kind, optimizer, group, out / f"none-{optimizer}", resume=True)
        for kind in ("ddp", "fsdp"):
            for resumed in (None, *KILLED):
                name = f"{kind} world model, killed after {resumed}"
                found[name] = world_model(kind, group, corpus, out / f"{kind}-world", resumed)
        found["means"] = run("ddp", "adamw", group, out / "means", means=True)
        if group.leads:
            (out / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
