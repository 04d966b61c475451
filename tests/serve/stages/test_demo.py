"""The main job, small: every stage writes its folder, and the numbers meet in metrics.json and report.html."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sequela.errors import InputError
from sequela.record.dataset import read_events
from sequela.serve.pages.terminal import print_summary
from sequela.serve.presets import preset
from sequela.serve.stages.demo import QUICK, demo

TASKS = preset("nafld").tasks


@pytest.fixture(autouse=True)
def small_cohort(monkeypatch: pytest.MonkeyPatch, small_meds: Path) -> None:
    monkeypatch.setattr("sequela.serve.stages.demo.nafld", lambda: small_meds)


def test_every_stage_left_its_folder(small_demo: Path) -> None:
    found = {path.name for path in small_demo.iterdir()}
    assert found == {
        "meds",
        "corpus",
        "model",
        "simulated",
        "calibration",
        "calibration-simulated",
        "predictions",
        "evaluation",
        "manifest.json",
        "metrics.json",
        "report.html",
    }
    for name in ("meds", "corpus", "model", "simulated", "calibration", "predictions", "evaluation"):
        facts = json.loads((small_demo / name / "manifest.json").read_text())
        assert facts["seconds"] >= 0


def test_metrics_hold_every_task_model_and_stage(small_demo: Path) -> None:
    metrics = json.loads((small_demo / "metrics.json").read_text())
    assert set(metrics["tasks"]) == set(TASKS)
    for task in metrics["tasks"].values():
        assert task["n"] == task["decidable"] + task["undecidable"]
        assert task["undecidable"] > 0
        assert {"sequela", "age_sex", "logistic", "trees", "cox", "strong", "tokens"} <= set(task["models"])
        auroc = task["models"]["sequela"]["auroc"]
        assert auroc["low"] <= auroc["value"] <= auroc["high"]
        assert task["verdict"]
    stages = metrics["stages"]
    assert list(stages) == ["ingest", "tokenize", "train", "simulate", "calibrate", "predict"]
    assert stages["tokenize"]["events"] > 0
    assert stages["train"]["tokens"] > 0
    assert stages["train"]["flops"] > 0
    assert stages["simulate"]["tokens"] > 0
    assert all(stage["peak_rss_mb"] > 0 for stage in stages.values())


def test_only_held_out_patients_are_simulated_and_only_after_the_prediction_time(small_demo: Path) -> None:
    simulated = pl.read_parquet(small_demo / "simulated" / "data" / "*.parquet")
    held_out = set(read_events(small_demo / "meds", "held_out")["subject_id"])
    assert set(simulated["subject_id"]) <= held_out
    assert (simulated["time"] >= simulated["prediction_time"]).all()


def test_a_second_run_skips_every_stage(
    small_demo: Path, small_config: Path, capsys: pytest.CaptureFixture
) -> None:
    times = {path: path.stat().st_mtime_ns for path in small_demo.glob("*/manifest.json")}
    again = demo(out=small_demo, config=small_config, quiet=False)
    assert again == json.loads((small_demo / "metrics.json").read_text())
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert capsys.readouterr().err.count("up to date") == 7


def test_seeds_are_averaged_and_a_demo_of_several_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    death = replace(preset("nafld"), tasks=("death_5y",))
    monkeypatch.setattr("sequela.serve.stages.demo.preset", lambda source: death)
    out, tiny = tmp_path / "demo", tmp_path / "tiny.toml"
    tiny.write_text("[train]\ndepth = 1\ncontext = 256\nepochs = 0.05\n[simulate]\nrollouts = 2\nlimit = 8\n")
    metrics = demo(out=out, config=tiny, seeds=2)
    made = [json.loads((out / name / "manifest.json").read_text())["settings"] for name in ("model-2", "simulated-2")]
    assert [settings["seed"] for settings in made] == [1, 1]
    task = metrics["tasks"]["death_5y"]
    assert {"sequela", "sequela_1", "sequela_2", "trees"} <= set(task["models"]) and task["seeds"] == 2
    mean, one, two = (
        pl.read_parquet(out / "predictions" / "death_5y" / f"{model}.parquet")["predicted_boolean_probability"]
        for model in ("sequela", "sequela_1", "sequela_2")
    )
    assert np.allclose((one + two) / 2, mean, atol=1e-6, equal_nan=True) and not one.equals(two)
    assert metrics["stages"]["train"]["runs"] == 2
    assert metrics["stages"]["simulate"]["runs"] == 4  # the tuning patients by each model, too
    assert len(metrics["simulation"]["futures"]) == 2
    demo(out=out, config=tiny, seeds=2, quiet=False)
    assert capsys.readouterr().err.count("up to date") == 9


def test_there_is_at_least_one_seed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`seeds` must be 1 or more, not 0"):
        demo(out=tmp_path / "out", seeds=0)


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="exists and is not a demo's folder"):
        demo(out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_place_that_can_be_no_result_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("gone")
    for out, word in ((tmp_path / "out", "link to nothing"), (tmp_path / os.fsdecode(b"o\xff"), "not UTF-8")):
        with pytest.raises(InputError, match=word):
            demo(out=out, quick=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_data_that_is_not_bundled_has_to_be_given(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="physionet2012 does not come with the package: give its folder with `raw`"
    ):
        demo(source="physionet2012", out=tmp_path / "out")
    with pytest.raises(InputError, match="nowhere does not exist: check the path after `raw`"):
        demo(source="physionet2012", raw=tmp_path / "nowhere", out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_quick_demo_says_what_it_is_and_stays_apart(
    small_demo: Path, small_config: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    metrics = demo(quick=True, config=small_config)
    assert metrics["note"] == QUICK
    assert "mean little" in (tmp_path / "demo-output-quick" / "report.html").read_text()
    print_summary(metrics)
    assert " ".join(capsys.readouterr().out.split()).startswith(QUICK)
    assert "note" not in json.loads((small_demo / "metrics.json").read_text())
    with pytest.raises(InputError, match="holds the full demo: choose another folder"):
        demo(quick=True, out=small_demo)
    with pytest.raises(InputError, match="holds a quick demo: choose another folder"):
        demo(out="demo-output-quick")
