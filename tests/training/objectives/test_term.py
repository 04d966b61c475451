"""A further thing to learn is one module and a line of the registry: here a term of this test, in a run of its own and
beside the others."""

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from sequela.training.objectives.objective import OBJECTIVES, Loss, named
from sequela.training.objectives.stages import TrainingStage
from sequela.training.objectives.term import Moment, Read, Term
from sequela.training.objectives.world_model import WorldModel
from sequela.training.parallel import ProcessGroup
from sequela.training.run import Run, RunPlan
from sequela.training.settings import TrainSettings


@dataclass(frozen=True)
class IdleOptions:
    rate: float = 1.0
    scale: float = 1.0


class IdleTerm(Term):
    """How long ago the last event was, from the state."""

    name = "idle"
    defaults = IdleOptions()

    def __init__(self, decoder, setup, options):
        super().__init__(decoder, setup, options)
        self.head = nn.Linear(decoder.config.hidden_size, 1)

    def collate(self, given):
        return torch.from_numpy(np.log1p(given.anchors.idle).astype(np.float32)).to(given.device)

    def forward(self, batch, read, stage):
        weight, missed = stage.weight(self.name), read.state.new_zeros(())
        if weight and len(batch):
            missed = F.mse_loss(self.head(read.state).squeeze(-1), self.options.scale * batch)
        return Loss(weight * missed, {self.name: missed})


class Idle(WorldModel):
    name, choice = "idle", (IdleTerm,)


SETTINGS = TrainSettings(
    depth=1, width=32, context=64, batch_tokens=256, tokens=2000, checks=0, objective="idle",
    options=("stages='at_once'", "scale=0.5"),
)  # fmt: skip


def stepped(corpus, settings, steps=3):
    run = Run(RunPlan.of(corpus, settings), ProcessGroup())
    feed = run.feed()
    parts = [run.take(*next(feed)).parts["idle"] for _ in range(steps)]
    feed.close()
    return run.objective, parts


def test_a_module_and_a_line_make_a_term(world_corpus, monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "idle", f"{__name__}:Idle")
    assert named("idle") is Idle
    objective, parts = stepped(world_corpus, SETTINGS)
    assert objective.terms["idle"].options.scale == 0.5 and parts[-1] < parts[0]
    assert objective.terms["idle"].head.weight.grad.abs().sum() > 0
    mixed = "stages=[{share=0.5, tokens=1, idle=0.1}, {share=0.5, futures=1, waits=1, idle=2}]"
    objective, _ = stepped(world_corpus, replace(SETTINGS, objective="world_model", options=(mixed, "idle.rate=0.5")))
    assert set(objective.terms) == {"idle", "futures", "waits"}
    assert {group.name: group.rate for group in objective.groups()}["idle"] == 0.5


def test_what_a_term_leaves_open_is_nothing(world_corpus, monkeypatch, tmp_path):
    monkeypatch.setitem(OBJECTIVES, "idle", f"{__name__}:Idle")
    objective, _ = stepped(world_corpus, SETTINGS, steps=1)
    term, stage = objective.terms["idle"], TrainingStage(1.0, {"idle": 1.0})
    term.save(tmp_path)
    term.after_step(objective.decoder, Moment(stage, synced=True, late=0.0))
    assert not list(tmp_path.iterdir()) and term.flops(100, stage) == 0 and term.validate(iter, None) is None
    assert term.counts(stage) and not term.counts(TrainingStage(1.0, {"tokens": 1.0}))


def test_what_is_read_can_be_detached():
    hidden = torch.ones(1, 3, 4, requires_grad=True)
    read = Read(None, None, 2 * hidden, 3 * hidden[0])
    assert read.hidden.requires_grad and read.state.requires_grad
    apart = read.detached()
    assert not apart.hidden.requires_grad and not apart.state.requires_grad and torch.equal(apart.state, read.state)
