"""The door for objectives: a second one, defined here, is trained, saved, resumed and spread over processes.

As a program, started by torchrun: `test_objective.py CORPUS OUT` trains it by several processes.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sequela.model import checkpoint, flops
from sequela.tokens.packing import collate
from sequela.training.data import Inputs, Step, feed, inputs
from sequela.training.loop import Host, train
from sequela.training.objectives.next_token import cross_entropy
from sequela.training.objectives.objective import OBJECTIVES, Group, Loss, Setup, Validation, named
from sequela.training.optimizer import decoder_groups
from sequela.training.parallel import ProcessGroup, joined
from sequela.training.run import Run, RunPlan
from sequela.training.settings import TrainSettings
from sequela.training.shutdown import Interrupted, Shutdown

ROOT = Path(__file__).parents[3]
SETTINGS = TrainSettings(
    depth=1, context=64, row_tokens=64, batch_tokens=256, tokens=2000, learning_rate=6e-3, matrix_rate=6e-3,
    optimizer="adamw", precision="fp32", checks=1, ignore_spikes=True,
)  # fmt: skip
ANSWER = 4
HEAD = "head.safetensors"


class AnswerOnly(nn.Module):
    """Predict the last `ANSWER` tokens of each window alone, and whether each is an odd id, by a head of two weights.

    A moving average of the head is kept as a buffer, beside the number of steps.
    """

    name = "answer_only"
    unit = "nats_per_answer_token"
    pure = True
    rate = 10.0

    def __init__(self, decoder, setup: Setup):
        super().__init__()
        self.decoder, self.setup = decoder, setup
        self.head = nn.Linear(1, 1)
        self.register_buffer("average", self.head.weight.detach().clone())
        self.register_buffer("steps", torch.tensor(0))
        self.done: list[float] = []

    def collate(self, windows, row) -> Inputs:
        batch = collate(windows, row, self.setup.row_multiple)
        ends = np.cumsum(windows.lengths[row])
        kept = np.zeros_like(batch.targets, bool)
        for end, length in zip(ends, windows.lengths[row], strict=True):
            kept[0, max(end - 1 - ANSWER, end - length) : end] = True
        return inputs(replace(batch, targets=np.where(kept, batch.targets, -1)))

    def forward(self, batch: Inputs) -> Loss:
        hidden = self.decoder.hidden(batch.ids, batch.positions, batch.attention)
        chosen = hidden.flatten(0, 1)[batch.places]
        answer, _ = cross_entropy(chosen, self.decoder.head.weight, batch.targets)
        error = self.head(chosen[:, :1])[:, 0] - (batch.targets % 2).float()
        head = error.square().sum()
        return Loss(answer + head, {"head": head.detach()})

    def groups(self) -> list[Group]:
        return [*decoder_groups(self.decoder), Group("head", list(self.head.parameters()), rate=self.rate)]

    def after_step(self, done: float) -> None:
        self.done.append(done)
        self.steps += 1
        weight = self.head.weight.detach()
        weight = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
        self.average.lerp_(weight, 0.1)

    def flops(self, lengths) -> int:
        return flops.train(self.decoder.config, lengths)

    def shown(self, loss: float) -> float:
        return loss

    def figures(self, mean: float) -> dict[str, float]:
        return {self.unit: mean}

    def validate(self, corpus, patients=None) -> Validation | None:
        weights = self.head.weight.item(), self.head.bias.item()
        return Validation({"slope": weights[0]}, {"head": list(weights), "steps": self.steps.item()})

    def compared(self, corpus, patients) -> None:
        return None

    def take_over(self, folder: Path) -> None:
        pass

    def save(self, folder: Path) -> None:
        checkpoint.save(self.decoder, folder)
        save_file({name: x for name, x in self.state_dict().items() if not name.startswith("decoder.")}, folder / HEAD)


class CountsPadding(AnswerOnly):
    """The planted mistake: the loss is divided by all positions of a row, padding among them."""

    def collate(self, windows, row):
        return Wrong(**vars(super().collate(windows, row)))


@dataclass(frozen=True)
class Wrong(Inputs):
    @property
    def weight(self) -> int:
        return self.ids.numel()


class Random(AnswerOnly):
    """Says that its rows must not run beside each other."""

    pure = False


class After(Shutdown):
    """Asked to stop after so many steps; also the progress that counts them."""

    def __init__(self, steps: int):
        super().__init__()
        self.left = steps

    def __call__(self, done, total, **facts) -> None:
        self.left -= 1
        self.requested = self.left <= 0


def run(corpus: Path, out: Path, settings=SETTINGS, *, objective=AnswerOnly, **host) -> dict:
    out.mkdir(exist_ok=True, parents=True)
    return train(corpus, out, settings, objective=objective, host=Host(**host))


def interrupted(corpus: Path, out: Path, settings=SETTINGS, **host) -> dict:
    """Stopped after three steps, and again after two more; then run to its end."""
    for steps in (3, 2):
        after = After(steps)
        try:
            run(corpus, out, settings, shutdown=after, progress=after, **host)
        except Interrupted:
            continue
        raise AssertionError("it was to be interrupted")
    return run(corpus, out, settings, **host)


def test_every_objective_is_found_by_its_name():
    assert {name: named(name).name for name in OBJECTIVES} == {name: name for name in OBJECTIVES}
    assert named() is named("next_token")


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / checkpoint.WEIGHTS) | load_file(folder / HEAD)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def whole(world_corpus, tmp_path_factory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("whole") / "model"
    return out, run(world_corpus, out)


def test_it_trains_and_names_its_own_figures(whole):
    out, report = whole
    curve = report["curve_nats_per_answer_token"]
    assert report["train_nats_per_answer_token"] < 0.9 * curve[0]
    assert not any("bits" in name for name in report)
    assert report["tuning"]["steps"] == report["steps"] and len(report["checks"]) == 1
    assert report["same"]["objective"] == "answer_only"
    assert report == json.loads((out / "train.json").read_text())


def test_what_it_leaves_loads(whole, world_corpus):
    out, report = whole
    model = checkpoint.load(out)
    assert model.config.parameters == report["parameters"]
    assert model.logits(torch.tensor([[1, 2, 3]])).isfinite().all()
    assert load_file(out / HEAD).keys() == {"head.weight", "head.bias", "average", "steps"}


def test_an_interrupted_run_ends_with_the_same_bits(whole, world_corpus, tmp_path):
    out, report = whole
    again = interrupted(world_corpus, tmp_path / "model")
    assert same(weights(out), weights(tmp_path / "model"))
    for name in ("curve_nats_per_answer_token", "checks", "tuning", "steps", "flops"):
        assert again[name] == report[name]


def test_a_checkpoint_of_another_objective_is_not_continued(world_corpus, tmp_path):
    after = After(3)
    with pytest.raises(Interrupted):
        run(world_corpus, tmp_path / "model", shutdown=after, progress=after)
    said: list[str] = []
    report = run(world_corpus, tmp_path / "model", objective=named("next_token"), say=said.append)
    assert not any("resumes after" in line for line in said) and "curve_bits_per_token" in report


def stepped(plan: RunPlan, count: int = 3) -> Run:
    made = Run(plan, ProcessGroup())
    steps = made.feed()
    for _ in range(count):
        made.take(*next(steps))
    steps.close()
    return made


def test_after_step_is_called_once_a_step_with_the_share_that_is_done(world_corpus):
    made = Run(RunPlan.of(world_corpus, replace(SETTINGS, tokens=1000), AnswerOnly), ProcessGroup())
    for step, passes in made.feed():
        made.take(step, passes)
    done = made.objective.done
    assert len(done) == made.steps == made.objective.steps.item() > 2
    assert done == sorted(set(done)) and 0 < done[0] < done[-1] == 1.0


def test_the_head_moves_at_the_rate_of_its_group(world_corpus):
    def moved(rate: float) -> Tensor:
        objective = type("Slower", (AnswerOnly,), {"rate": rate})
        plan = RunPlan.of(world_corpus, SETTINGS, objective)
        before, after = Run(plan, ProcessGroup()).objective, stepped(plan, 1).objective
        moves = [new - old for new, old in zip(after.head.parameters(), before.head.parameters(), strict=True)]
        return torch.cat([move.flatten() for move in moves]).abs()

    fast, slow = moved(10.0), moved(1.0)
    assert (slow > 0).all()
    torch.testing.assert_close(fast, 10 * slow, rtol=1e-3, atol=0)  # AdamW's first step is its rate
    assert (moved(0.0) == 0).all()


def test_rows_that_may_not_run_beside_each_other_do_not(world_corpus):
    apart, beside = (stepped(RunPlan.of(world_corpus, SETTINGS, which)) for which in (Random, AnswerOnly))
    assert apart.parallel_rows is None and beside.parallel_rows is not None
    for one, other in zip(apart.objective.parameters(), beside.objective.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def packed_in_two_ways(corpus: Path, objective) -> tuple[float, float]:
    """The mean loss of the same windows, many to a row and one to a row."""
    plan, numbers = RunPlan.of(corpus, SETTINGS, objective), np.arange(12)
    means = []
    for rows in ([numbers], [numbers[i : i + 1] for i in numbers]):
        made = Run(plan, ProcessGroup())
        tokens = int(plan.windows.lengths[numbers].sum())
        ((step, passes),) = feed([Step(rows, 0, made.position | {"tokens": tokens})], made.collate)
        result = made.take(step, passes)
        means.append(result.loss / result.weight)
    return means[0], means[1]


def test_the_mean_loss_does_not_depend_on_how_windows_are_packed(world_corpus):
    together, apart = packed_in_two_ways(world_corpus, AnswerOnly)
    assert together == pytest.approx(apart, rel=1e-5)


def test_a_weight_that_counts_padding_is_found_out(world_corpus):
    """The negative control."""
    together, apart = packed_in_two_ways(world_corpus, CountsPadding)
    assert together != pytest.approx(apart, rel=1e-2)


class Forgets(AnswerOnly):
    def groups(self):
        return decoder_groups(self.decoder)


class Twice(AnswerOnly):
    def groups(self):
        return [*super().groups(), Group("again", [self.head.bias])]


@pytest.mark.parametrize(("objective", "message"), [(Forgets, "head.weight.*in no group"), (Twice, "in two groups")])
def test_a_weight_in_no_group_or_in_two_is_an_error(world_corpus, objective, message):
    with pytest.raises(ValueError, match=message):
        Run(RunPlan.of(world_corpus, SETTINGS, objective), ProcessGroup())


def main(corpus: Path, out: Path) -> None:
    torch.set_num_threads(1)
    with joined() as group:
        for kind in ("ddp", "fsdp"):
            settings = replace(SETTINGS, parallel=kind)
            run(corpus, out / kind, settings, group=group)
            interrupted(corpus, out / f"{kind}-resumed", settings, group=group)


@pytest.fixture(scope="module")
def two(world_corpus, tmp_path_factory) -> Path:
    """What two processes make, in folders by their kind."""
    out = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
    done = subprocess.run(
        [*command, str(world_corpus), str(out)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_do_what_one_does(whole, two, kind):
    out, report = whole
    other = json.loads((two / kind / "train.json").read_text())
    for name in ("curve_nats_per_answer_token", "steps", "flops"):
        assert other[name] == pytest.approx(report[name], rel=2e-6), name
    assert other["processes"] == 2 and other["tuning"]["steps"] == report["steps"]
    expected, found = weights(out), weights(two / kind)
    for name in ("head.weight", "head.bias", "average"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)
    assert checkpoint.load(two / kind).config == checkpoint.load(out).config


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_resume_bit_for_bit(two, kind):
    assert same(weights(two / kind), weights(two / f"{kind}-resumed"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
