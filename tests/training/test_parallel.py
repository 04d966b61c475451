"""Two processes that talk over gloo, started by torchrun, do what one does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sequela.errors import InputError
from sequela.training.parallel import ProcessGroup, parallelize
from tests.training.ranks import KILLED, SAVED, STEPS, WAYS, run, small, world_model

ROOT = Path(__file__).parents[2]
ONE = ProcessGroup(device=torch.device("cpu"))
TOLERANCE = 1e-3  # of weights after some steps: processors add in other orders, and a step of AdamW hardly knows sizes
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


def torchrun(*arguments: str | Path, processes: int = 2) -> subprocess.CompletedProcess:
    command = [*TORCHRUN, str(processes), *map(str, arguments)]
    here = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=here, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def one(out: Path) -> dict[str, dict]:
    """What one process does, by optimizer; its checkpoints are in `out`."""
    return {name: run("none", name, ONE, out / f"none-{name}") for name in ("adamw", "muon")}


@pytest.fixture(scope="module")
def two(out: Path, one: dict, world_corpus: Path) -> dict[str, dict]:
    """What two processes do."""
    done = torchrun(ROOT / "tests/training/ranks.py", out, world_corpus)
    assert done.returncode == 0, done.stderr
    return json.loads((out / "found.json").read_text())


def off(found: list[float], expected: list[float]) -> float:
    """Largest relative difference."""
    assert len(found) == len(expected)
    return max(abs(a - b) / abs(b) for a, b in zip(found, expected, strict=True))


# Newton-Schulz runs in bfloat16, which makes of the last bit of a gradient the fifth digit of a loss
NEAR = {"adamw": 2e-6, "muon": 5e-4}


@pytest.mark.parametrize(("kind", "optimizer"), WAYS)
def test_losses_and_gradients_are_those_of_one_process(one, two, kind, optimizer):
    found, expected = two[f"{kind}-{optimizer}"], one[optimizer]
    assert len(found["losses"]) == STEPS
    assert off(found["losses"], expected["losses"]) < NEAR[optimizer]
    assert off(found["norms"], expected["norms"]) < 20 * NEAR[optimizer]
    assert expected["norms"][0] > 0.5, "clipping has to have something to do"


def test_the_mean_of_the_ranks_means_is_another_loss(one, two):
    """The negative control: ranks have rows of different lengths."""
    assert off(two["means"]["losses"], one["adamw"]["losses"]) > 1e-2


@pytest.mark.parametrize(("kind", "optimizer"), WAYS)
def test_a_checkpoint_of_two_goes_on_with_two_bit_for_bit(two, kind, optimizer):
    whole, resumed = two[f"{kind}-{optimizer}"], two[f"{kind}-{optimizer} resumed"]
    assert resumed["losses"] == whole["losses"][SAVED:]
    assert resumed["weights"] == whole["weights"]


@pytest.mark.parametrize(("kind", "optimizer"), WAYS)
def test_a_checkpoint_of_two_goes_on_with_one(out, one, two, kind, optimizer):
    resumed = run("none", optimizer, ONE, out / f"{kind}-{optimizer}", resume=True)
    assert off(resumed["losses"], one[optimizer]["losses"][SAVED:]) < NEAR[optimizer]


@pytest.mark.parametrize(("kind", "optimizer"), WAYS)
def test_a_checkpoint_of_one_goes_on_with_two(one, two, kind, optimizer):
    resumed = two[f"{kind}-{optimizer} from one"]
    assert off(resumed["losses"], one[optimizer]["losses"][SAVED:]) < NEAR[optimizer]


@pytest.fixture(scope="module")
def world_of_one(out: Path, world_corpus: Path) -> dict[str, list[float]]:
    """A world model that one process trains without a break."""
    return world_model("none", ONE, world_corpus, out / "one-world")


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_the_target_of_two_is_that_of_one(two, world_of_one, kind):
    found = two[f"{kind} world model, killed after None"]
    assert found["steps"] == world_of_one["steps"] and found["steps"][0] >= 9
    for name in ("decoder", "target", "all"):
        mine, theirs = np.array(found[name]), np.array(world_of_one[name])
        np.testing.assert_allclose(mine, theirs, atol=TOLERANCE, err_msg=name)
    assert np.abs(np.array(found["target"]) - np.array(found["decoder"])).max() > 3 * TOLERANCE  # not a copy


@pytest.mark.parametrize("killed", KILLED)
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_a_target_of_two_goes_on_bit_for_bit_and_validation_moves_nothing(two, kind, killed):
    """Weights, target, what is watched, and the stage; also where the target had not started when it was saved."""
    whole, resumed = (two[f"{kind} world model, killed after {after}"] for after in (None, killed))
    assert resumed == whole


@pytest.mark.parametrize("killed", KILLED)
def test_a_target_of_two_goes_on_with_one(out, two, world_of_one, world_corpus, killed):
    found = world_model("none", ONE, world_corpus, out / "fsdp-world", killed)
    for name in ("decoder", "target"):
        np.testing.assert_allclose(np.array(found[name]), np.array(world_of_one[name]), atol=TOLERANCE)


def test_each_process_writes_its_own_pieces(out, two):
    files = {path.name: path.stat().st_size for path in out.glob("fsdp-adamw/*/*.safetensors")}
    assert len(files) == 2
    assert max(files.values()) < 1.1 * min(files.values())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_three_go_on_bit_for_bit(tmp_path, kind):
    """The order in which a ring of three adds depends on where a gradient lies, and a resumed run has to repeat it."""
    script = tmp_path / "three.py"
    script.write_text(
        "import sys; from pathlib import Path; from tests.training.ranks import run\n"
        "from sequela.training.parallel import joined\n"
        "kind, out = sys.argv[1], Path(sys.argv[2])\n"
        "with joined() as group:\n"
        "    whole, resumed = (run(kind, 'adamw', group, out, resume=r) for r in (False, True))\n"
        "    assert whole['losses'][3:] == resumed['losses'] and whole['weights'] == resumed['weights']\n"
    )
    done = torchrun(script, kind, tmp_path / "out", processes=3)
    assert done.returncode == 0, done.stderr


def test_an_error_on_one_rank_ends_all_and_is_told_once(tmp_path):
    script = tmp_path / "fail.py"
    script.write_text(
        "from sequela.errors import InputError; from sequela.training.parallel import joined\n"
        "import sys\n"
        "try:\n"
        "    with joined() as group:\n"
        "        if group.rank == 1: raise InputError('rank 1 has no patients.')\n"
        "        group.sum(1.0)\n"
        "except InputError as error:\n"
        "    print(f'told: {error}', file=sys.stderr)\n"
        "    sys.exit(2)\n"
    )
    done = torchrun(script)
    assert done.returncode != 0
    assert [line for line in done.stderr.splitlines() if line.startswith("told")] == [
        "told: rank 1 has no patients."
    ]
    assert done.stderr.count("Traceback") <= 1, "that of torchrun itself"


def test_rows_are_shared_out():
    groups = [ProcessGroup(rank=rank, size=3) for rank in range(3)]
    rows = list(range(7))
    shares = [group.share(rows) for group in groups]
    assert {len(share) for share in shares} == {3}
    assert sorted(row for share in shares for row, weight in share if weight) == rows
    assert ProcessGroup().share(rows) == [(row, 1.0) for row in rows]


@pytest.mark.parametrize(
    ("kind", "group", "message"),
    [
        ("ddp", ONE, "start them with torchrun"),
        ("zero", ONE, "one of none, ddp, fsdp"),
        ("none", ProcessGroup(0, 2), "2 processes"),
    ],
)
def test_what_does_not_go_together_is_an_error(kind, group, message):
    with pytest.raises(InputError, match=message):
        small("adamw", group, kind)


def test_one_process_trains_the_objective_itself():
    module = torch.nn.Linear(2, 2)
    assert parallelize(module, None, ONE) is module
