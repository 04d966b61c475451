"""A damaged checkpoint is named before anything is written."""

import shutil
from pathlib import Path

import pytest

import sequela
from sequela.errors import InputError
from sequela.rollout.folder import SimulatedFolder
from sequela.rollout.settings import RULES
from sequela.serve.folder import manifest


def test_a_truncated_checkpoint_is_named(small_demo: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(small_demo / "model", model)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"model\.safetensors"):
        sequela.simulate(model, small_demo / "meds", tmp_path / "out", task="death_5y")


def test_the_rules_by_which_rollouts_are_counted_are_part_of_what_a_folder_is(small_demo: Path) -> None:
    """So what other rules made, whole or in part, is neither up to date nor taken over (see tests/serve/folder)."""
    assert manifest.read(small_demo / "simulated")["settings"]["rules"] == RULES
    assert SimulatedFolder(small_demo / "simulated").rules() == RULES
