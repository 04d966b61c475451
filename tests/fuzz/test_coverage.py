"""A few seconds of each target with atheris, where it is installed; hours are for `python -m tests.fuzz.coverage`."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_atheris_finds_nothing(name, tmp_path):
    if importlib.util.find_spec("atheris") is None:
        pytest.skip(
            "atheris is not installed (pip install atheris): hypothesis alone fuzzes the parsers here"
        )
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.coverage",
        name,
        "-max_total_time=8",
        "-timeout=20",
        "-max_len=4000",
    ]
    done = subprocess.run(
        [*command, f"-artifact_prefix={tmp_path}/"], cwd=ROOT, capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-3000:]
