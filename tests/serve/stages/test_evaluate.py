"""Predictions of others are scored side by side with ours."""

import json
import shutil
from pathlib import Path

import pytest

import sequela
from sequela.task.scoring.comparison import MARGIN


def test_predictions_of_others_are_evaluated_beside_ours(small_demo: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "death_5y").mkdir(parents=True)
    shutil.copy(
        small_demo / "predictions" / "death_5y" / "trees.parquet", other / "death_5y" / "theirs.parquet"
    )
    sequela.evaluate(small_demo / "predictions", tmp_path / "evaluation", also=[other])
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    models = metrics["tasks"]["death_5y"]["models"]
    assert models["theirs"] == models["trees"]


def test_the_margin_is_a_setting(small_demo: Path, tmp_path: Path) -> None:
    assert sequela.evaluate.stage.options["margin"].default == MARGIN
    with pytest.raises(sequela.InputError, match="`margin` must be above 0"):
        sequela.evaluate(small_demo / "predictions", tmp_path / "evaluation", margin=0)
