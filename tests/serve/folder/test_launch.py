"""One stage by several processes: rank 0 has the folder, the others work in it or leave with it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sequela.serve.folder import launch

SCRIPT = """
import json, sys
from pathlib import Path
from sequela.serve.folder import launch
from sequela.serve.folder.work import make_folder
out = Path(sys.argv[1])
with launch.process_group() as world:
    def make(work):
        (work / f"of-{world.rank}").write_text(str(work))
        world.broadcast()  # all have written
        return {"by": world.rank}
    for number in range(2):
        def lead(make):
            return make_folder(out / "made", "copy", {}, {}, make)
        facts = launch.together(world, lead, make)
        (out / f"facts-{number}-{world.rank}").write_text(json.dumps(facts))
"""


def torchrun(script: str, *arguments: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*command, script, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_all_work_in_one_folder_and_know_what_became_of_it(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = torchrun(str(tmp_path / "script.py"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["manifest.json", "of-0", "of-1"]
    assert (tmp_path / "made/of-0").read_text() == (tmp_path / "made/of-1").read_text()
    made, skipped = ([json.loads((tmp_path / f"facts-{n}-{r}").read_text()) for r in (0, 1)] for n in (0, 1))
    assert made[0] == made[1] and made[0]["result"] == {"by": 0} and not made[0]["skipped"]
    assert skipped[0] == skipped[1] and skipped[0]["skipped"]


def test_one_process_is_a_stage_as_ever() -> None:
    with launch.process_group() as world:
        assert launch.together(world, lambda make: {"made": make(Path())}, lambda work: {}) == {"made": {}}


@pytest.mark.parametrize(("rank", "follows"), [(None, False), ("0", False), ("1", True)])
def test_who_speaks(monkeypatch: pytest.MonkeyPatch, rank: str | None, follows: bool) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert not launch.launched()
    if rank is not None:
        for name, value in {"WORLD_SIZE": "2", "MASTER_ADDR": "x", "MASTER_PORT": "1", "RANK": rank}.items():
            monkeypatch.setenv(name, value)
    assert launch.launched() == (rank is not None)
    assert launch.follows() == follows
    assert "TORCH_CPP_LOG_LEVEL" not in os.environ
