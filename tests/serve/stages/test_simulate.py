"""A damaged checkpoint is named before anything is written."""

import shutil
from pathlib import Path

import pytest

import sequela
from sequela.errors import InputError


def test_a_truncated_checkpoint_is_named(small_demo: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(small_demo / "model", model)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"model\.safetensors"):
        sequela.simulate(model, small_demo / "meds", tmp_path / "out", task="death_5y")
