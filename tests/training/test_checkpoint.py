import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from sequela.errors import InputError
from sequela.training import checkpoint
from sequela.training.checkpoint import Trained
from sequela.training.parallel import ProcessGroup
from tests.training.ranks import SAME, row, run, small

ONE = ProcessGroup(device=torch.device("cpu"))
ROOT = Path(__file__).parents[2]


def steps_taken(objective, optimizers, number: int) -> None:
    for seed in range(number):
        objective(row(np.random.default_rng(seed), 20, ONE)).total.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


def saved(folder: Path, *steps: int, same: dict = SAME) -> dict[int, torch.Tensor]:
    """Checkpoints of a small run; what one of its weights was at each."""
    _, objective, optimizers = small("adamw", ONE, "none")
    weights = {}
    for step in steps:
        steps_taken(objective, optimizers, 1)
        trained = Trained(objective, optimizers)
        checkpoint.write_step(folder, step, trained, {"step": step, "curve": [0.1 + step]}, same, ONE)
        weights[step] = objective.decoder.norm.weight.detach().clone()
    return weights


def restored(folder: Path, same: dict = SAME) -> tuple[dict | None, torch.Tensor]:
    _, objective, optimizers = small("adamw", ONE, "none")
    return checkpoint.read_latest(
        folder, Trained(objective, optimizers), same, ONE
    ), objective.decoder.norm.weight.detach()


def warned(caplog) -> list[str]:
    return [record.message for record in caplog.records if record.name == "sequela.training.checkpoint"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_goes_on_bit_for_bit(tmp_path, optimizer):
    whole = run("none", optimizer, ONE, tmp_path)
    resumed = run("none", optimizer, ONE, tmp_path, resume=True)
    assert resumed["losses"] == whole["losses"][3:]
    assert resumed["weights"] == whole["weights"]
    for path in tmp_path.rglob("*.safetensors"):
        with safe_open(path, "pt") as tensors:
            assert any("/" in name for name in tensors.keys()), "the optimizer's memory"  # noqa: SIM118


def test_facts_come_back_as_they_were(tmp_path):
    saved(tmp_path, 7)
    assert restored(tmp_path)[0] == {"step": 7, "curve": [7.1]}


def test_no_checkpoint_is_no_error(tmp_path):
    assert restored(tmp_path / "none")[0] is None


def refuse_pickles(monkeypatch) -> None:
    def refuse(*_, **__):
        raise AssertionError("a pickle")

    for name in ("pickle.load", "pickle.loads", "pickle.dump", "pickle.dumps", "torch.load", "torch.save"):
        monkeypatch.setattr(name, refuse)


def test_no_pickle_is_written_or_read(tmp_path, monkeypatch):
    refuse_pickles(monkeypatch)
    saved(tmp_path, 1)
    assert restored(tmp_path)[0] is not None
    (step,) = tmp_path.iterdir()
    tensors = [path for path in step.iterdir() if path.name != checkpoint.STATE]
    assert tensors and all(path.suffix == ".safetensors" for path in tensors)
    assert all(chr(path.read_bytes()[8]) == "{" for path in tensors), "a header in JSON"


def test_a_pickle_would_be_seen(tmp_path, monkeypatch):
    import torch.distributed.checkpoint as dcp

    refuse_pickles(monkeypatch)
    with pytest.raises(BaseException, match="a pickle"):
        dcp.save({"a": torch.ones(3)}, storage_writer=dcp.FileSystemWriter(tmp_path / "theirs"), no_dist=True)


def test_the_last_two_are_kept(tmp_path):
    saved(tmp_path, 1, 2, 3, 12)
    assert names(tmp_path) == ["step-00000003", "step-00000012"]


def test_much_is_written_in_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FILE_BYTES", 10**6)
    weights = saved(tmp_path, 1)
    assert len(list(tmp_path.glob("*/*.safetensors"))) > 3
    facts, weight = restored(tmp_path)
    assert facts["step"] == 1 and torch.equal(weight, weights[1])


def test_a_step_that_was_saved_is_not_saved_again(tmp_path):
    saved(tmp_path, 4)
    (file,) = tmp_path.glob("*/state.json")
    before = file.stat().st_mtime_ns
    saved(tmp_path, 4)
    assert file.stat().st_mtime_ns == before


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = [("*.safetensors", cut), ("*.safetensors", flip), ("*.safetensors", Path.unlink),
          ("state.json", cut), ("state.json", flip), ("state.json", Path.unlink)]  # fmt: skip


@pytest.mark.parametrize(("pattern", "harm"), DAMAGE, ids=[f"{what} {how.__name__}" for what, how in DAMAGE])
def test_a_damaged_one_is_passed_over_with_a_warning(tmp_path, caplog, pattern, harm):
    weights = saved(tmp_path, 1, 2)
    harm(next((tmp_path / "step-00000002").glob(pattern)))
    facts, weight = restored(tmp_path)
    assert facts["step"] == 1 and torch.equal(weight, weights[1])
    (said,) = warned(caplog)
    assert "step-00000002 is damaged" in said and "from" in said and "step-00000001" in said
    assert names(tmp_path) == ["step-00000001"]


def test_a_whole_one_is_not_called_damaged(tmp_path, caplog):
    weights = saved(tmp_path, 1, 2)
    facts, weight = restored(tmp_path)
    assert facts["step"] == 2 and torch.equal(weight, weights[2])
    assert warned(caplog) == []


def test_where_all_are_damaged_the_error_says_what_to_do(tmp_path):
    saved(tmp_path, 1, 2)
    for path in tmp_path.glob("*/*.safetensors"):
        flip(path)
    with pytest.raises(InputError, match=r"step-00000002: .*step-00000001: .*start over"):
        restored(tmp_path)
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def test_an_unfinished_run_of_version_0_1_is_refused(tmp_path):
    saved(tmp_path, 1, same={"settings": {"optimiser": "muon"}})
    with pytest.raises(InputError, match=r"written by Sequela 0\.1.*start over"):
        restored(tmp_path)


def test_scalars_and_integers_among_the_buffers_come_back_exactly(tmp_path):
    def module():
        made = torch.nn.Linear(3, 2)
        made.register_buffer("target", torch.rand(4, dtype=torch.float32))
        made.register_buffer("count", torch.tensor(2**40 + 1))
        made.register_buffer("share", torch.rand(()))
        made.register_buffer("scratch", torch.rand(2), persistent=False)
        return made

    first, second = module(), module()
    checkpoint.write_step(tmp_path, 1, Trained(first, []), {}, SAME, ONE)
    assert checkpoint.read_latest(tmp_path, Trained(second, []), SAME, ONE) == {}
    before, after = first.state_dict(), second.state_dict()
    assert set(before) == {"weight", "bias", "target", "count", "share"}
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not torch.equal(first.scratch, second.scratch)


def test_a_run_with_other_settings_begins_anew(tmp_path):
    saved(tmp_path, 1, 2)
    assert restored(tmp_path, {"seed": 1})[0] is None
    assert not tmp_path.exists()


def test_what_a_killed_run_was_writing_is_no_checkpoint(tmp_path):
    saved(tmp_path, 1)
    shutil.copytree(tmp_path / "step-00000001", tmp_path / ".step-00000002")
    assert restored(tmp_path)[0]["step"] == 1
    saved(tmp_path, 2)
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def test_discarded(tmp_path):
    saved(tmp_path / "checkpoints", 1)
    checkpoint.discard(tmp_path / "checkpoints", ONE)
    assert names(tmp_path) == []


FULL = """
import sys
from pathlib import Path
from sequela.errors import InputError
from tests.training.test_checkpoint import names, restored, saved
folder = Path(sys.argv[1])
try:
    saved(folder, 1, 2)
except InputError as error:
    print(error)
print(names(folder), restored(folder)[0]["step"])
"""


def test_a_full_disk_is_named_and_the_checkpoint_before_stays(tmp_path):
    """On a file system of its own, with room for one checkpoint and a half."""
    mount = 'mount -t tmpfs -o size=10m none "$1" && shift && exec "$@"'
    space = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh", str(tmp_path)]
    if shutil.which("unshare") is None or subprocess.run([*space, "true"], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    done = subprocess.run(
        [*space, sys.executable, "-c", FULL, str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    said, left = done.stdout.splitlines()
    assert "the checkpoint of step 2 could not be written" in said and "No space left on device" in said
    assert left == "['step-00000001'] 1"


def test_state_is_plain_json(tmp_path):
    saved(tmp_path, 3)
    head, body = (tmp_path / "step-00000003" / checkpoint.STATE).read_text().split("\n")
    assert len(json.loads(head)["sha256"]) == 64
    assert json.loads(body)["facts"]["step"] == 3


def test_one_that_may_not_be_read_is_not_called_damaged(tmp_path, locked):
    saved(tmp_path, 1, 2)
    for place in (tmp_path, tmp_path / names(tmp_path)[-1]):
        with locked(place), pytest.raises(InputError, match="cannot be opened"):
            restored(tmp_path)
    assert len(names(tmp_path)) == 2
