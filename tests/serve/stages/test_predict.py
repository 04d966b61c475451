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
