"""A checkpoint is simulated first; a folder of futures is read as it was made, or as the caller says."""

import json
import shutil
from pathlib import Path

import pytest

import sequela
from sequela.rollout import parts
from sequela.rollout.settings import SimulateSettings
from sequela.serve.ask import AskSettings
from sequela.task.catalog import CATALOG
from sequela.workers import Workers
from tests.rollout.conftest import rough  # noqa: F401
from tests.rollout.values.conftest import headed  # noqa: F401


def test_predict_simulates_first_where_it_gets_a_checkpoint(small_demo: Path, tmp_path: Path, small) -> None:
    out = tmp_path / "predictions"
    done = sequela.predict(
        small_demo / "model",
        small_demo / "meds",
        out,
        task="death_5y",
        rollouts=2,
        baselines=False,
        patients=60,
        settings=small.simulate,
    )
    assert {path.name for path in tmp_path.iterdir()} == {"predictions", "predictions-simulated"}
    assert done["inputs"]["simulated"]["path"] == "../predictions-simulated"
    facts = json.loads((tmp_path / "predictions-simulated" / "manifest.json").read_text())
    assert facts["settings"]["rollouts"] == 2
    assert 0 < facts["result"]["histories"] <= 60


def test_predict_takes_the_estimator_of_the_folder(small_demo: Path, tmp_path: Path) -> None:
    simulated, meds = tmp_path / "simulated", small_demo / "meds"
    shutil.copytree(small_demo / "simulated", simulated)
    about = json.loads((simulated / "simulate.json").read_text())
    about["settings"]["estimator"] = "mc"
    (simulated / "simulate.json").write_text(json.dumps(about))

    def used(out: str, **asked) -> str:
        done = sequela.predict(simulated, meds, tmp_path / out, task="death_5y", baselines=False, **asked)
        return done["result"]["death_5y"]["estimator"]

    assert used("of-the-folder") == "mc"
    assert used("of-no-settings", settings=None) == "mc"
    assert used("of-the-settings", settings=SimulateSettings()) == "scope"
    assert used("asked-for", estimator="scope") == "scope"
    assert used("not-there", estimator="reach") == "scope"


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("labels", {"labels": "labels.parquet"}),
        ("patients", {"patients": 3}),
        ("split", {"split": "train"}),
        ("split", {"split": "held_out"}),
        ("patients", {"ask": AskSettings(patients=3)}),
    ],
)
def test_predict_refuses_other_patients_than_the_folder_has(
    name: str, asked: dict, small_demo: Path, tmp_path: Path
) -> None:
    with pytest.raises(sequela.InputError, match=f"already: leave out `{name}`, or give the checkpoint"):
        sequela.predict(
            small_demo / "simulated", small_demo / "meds", tmp_path / "out", task="death_5y", **asked
        )
    assert not (tmp_path / "out").exists()


def test_predict_refuses_another_task_of_a_name_that_was_simulated(small_demo: Path, tmp_path: Path) -> None:
    """The folder holds hazards of death under death_5y, which would be taken for those of any outcome."""
    text = (CATALOG / "death_5y.yaml").read_text()
    other, same = tmp_path / "other.yaml", tmp_path / "same.yaml"
    for line in ("horizon: 1 year", "outcome: ['DIAGNOSIS//DIABETES']", "exclude: ['DIAGNOSIS//NAFLD']"):
        field = line.partition(":")[0]
        other.write_text("\n".join(line if old.startswith(field) else old for old in text.splitlines()))
        with pytest.raises(sequela.InputError, match="simulated for another task of the name 'death_5y'"):
            sequela.predict(small_demo / "simulated", small_demo / "meds", tmp_path / "out", task=other)
    assert not (tmp_path / "out").exists()
    same.write_text(text.replace("Death within", "Dead within"))
    sequela.predict(small_demo / "simulated", small_demo / "meds", tmp_path / "out", task=same, baselines=False)


def test_predict_simulates_with_the_workers_that_it_is_given(
    small_demo: Path, tmp_path: Path, small, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    real = parts.simulate

    def simulate(model, meds, out, requests, settings, edits, execution):
        seen.append(execution.workers)
        return real(model, meds, out, requests, settings, edits, execution)

    monkeypatch.setattr(parts, "simulate", simulate)
    sequela.predict(
        small_demo / "model",
        small_demo / "meds",
        tmp_path / "predictions",
        task="death_5y",
        rollouts=1,
        baselines=False,
        patients=20,
        settings=small.simulate,
        processes=1,
    )
    assert seen == [Workers(processes=1)]


def test_predict_says_what_its_simulation_has_to_say(small_demo: Path, tmp_path: Path, small) -> None:
    task = tmp_path / "mistyped.yaml"
    lines = (CATALOG / "death_5y.yaml").read_text().replace("name: death_5y", "name: mistyped").splitlines()
    task.write_text("\n".join([*(line for line in lines if not line.startswith("exclude")), "exclude: [CANCR]"]))
    heard: list[str] = []
    sequela.predict(
        small_demo / "model", small_demo / "meds", tmp_path / "predictions",
        task=str(task), rollouts=2, baselines=False, patients=60, settings=small.simulate, say=heard.append,
    )  # fmt: skip
    assert any("`exclude` CANCR" in line for line in heard)


def test_one_model_is_no_two_seeds(small_demo: Path, tmp_path: Path) -> None:
    for first, second in (("simulated", "simulated"), ("simulated", "model"), ("model", "model")):
        with pytest.raises(sequela.InputError, match="are one model, not two of different seeds"):
            sequela.predict(
                small_demo / first, small_demo / "meds", tmp_path / "out",
                task="death_5y", also=[small_demo / second],
            )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


HEADED = """\
name: death_7d
title: Death within seven days
dataset: known world
kind: binary
at: {after: "COHORT//ENTRY", offset: 12 hours}
exclude: []
outcome: [MEDS_DEATH]
ends: []
horizon: 7 days
"""


def test_a_head_answers_without_futures(headed, rough, world_meds: Path, tmp_path: Path) -> None:  # noqa: F811
    task, out = tmp_path / "death_7d.yaml", tmp_path / "by-head"
    task.write_text(HEADED)
    asked = {"task": str(task), "patients": 9, "baselines": False}
    done = sequela.predict(headed, world_meds, out, estimator="head", **asked)
    assert {path.name for path in tmp_path.iterdir()} == {"death_7d.yaml", "by-head"}
    assert (done["result"]["death_7d"]["estimator"], done["result"]["death_7d"]["rollouts"]) == ("head", 0)
    assert set(done["inputs"]) == {"model", "meds"}
    assert sequela.predict(headed, world_meds, out, estimator="head", **asked)["skipped"]
    with pytest.raises(sequela.InputError, match="has no value head: train it with the objective `time_to_event`"):
        sequela.predict(rough, world_meds, tmp_path / "no", estimator="head", **asked)
    with pytest.raises(sequela.InputError, match="a calibration of simulated risks, and the estimator head simulates"):
        sequela.predict(headed, world_meds, tmp_path / "no", estimator="head", calibration=tmp_path, **asked)
    with pytest.raises(sequela.InputError, match="are one model, not two of different seeds"):
        sequela.predict(headed, world_meds, tmp_path / "no", estimator="head", also=[headed], **asked)
    with pytest.raises(sequela.InputError, match="the estimator head reads risks off the history, without futures"):
        sequela.simulate(headed, world_meds, tmp_path / "no", task=str(task), patients=9, estimator="head")


def test_scores_say_where_a_head_and_its_simulation_agree(headed, world_meds: Path, tmp_path: Path) -> None:  # noqa: F811
    task, out = tmp_path / "death_7d.yaml", tmp_path / "predictions"
    task.write_text(HEADED)
    sequela.predict(
        headed, world_meds, out, task=str(task), patients=30, baselines=False, estimator="cv", rollouts=3, limit=20
    )
    with pytest.raises(sequela.InputError, match="holds futures, which the estimator head does not read: give the"):
        sequela.predict(tmp_path / "predictions-simulated", world_meds, out, task=str(task), estimator="head")
    sequela.evaluate(out, tmp_path / "evaluation")
    told = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())["tasks"]["death_7d"]
    assert list(told["models"]) == ["sequela", "sequela_head"] and told["difference"] == {}
    assert told["agreement"]["n"] == 30 and told["agreement"]["words"].startswith("value head and simulation correlate")
    assert told["agreement"]["words"] in (tmp_path / "evaluation" / "report.html").read_text()
