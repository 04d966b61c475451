"""Every stage as a function: Ctrl-C leaves nothing, a re-run completes, bad input is named."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import sequela
from sequela.errors import InputError
from sequela.rollout.settings import SimulateSettings
from sequela.serve import commands
from sequela.serve.stages.presets import preset, read_toml, with_file


class Interrupted:
    """Ctrl-C the first time a stage reports progress."""

    def __call__(self, done: float, total: float, **facts: object) -> None:
        raise KeyboardInterrupt


@pytest.fixture
def small(small_config: Path):
    return with_file(preset("nafld"), small_config, read_toml(small_config))


@pytest.fixture
def stages(small_demo: Path, request: pytest.FixtureRequest, small) -> dict[str, Callable]:
    """Each stage on the folders of the small demo, as a function of the folder to write and of the progress."""
    meds = small_demo / "meds"
    quick = replace(small.train, epochs=0.3)
    few = replace(small.simulate, rollouts=2)
    return {
        "ingest": lambda out, **o: commands.ingest(
            "nafld", request.getfixturevalue("shared_data") / "ehr" / "nafld", out, **o
        ),
        "tokenize": lambda out, **o: commands.tokenize(meds, out, settings=small.tokenize, **o),
        "train": lambda out, **o: commands.train(small_demo / "corpus", out, settings=quick, **o),
        "simulate": lambda out, **o: commands.simulate(
            small_demo / "model", meds, out, task="death_5y", patients=40, settings=few, **o
        ),
        "predict": lambda out, **o: commands.predict(
            small_demo / "simulated", meds, out, task="death_5y", baselines=False, **o
        ),
        "evaluate": lambda out, **o: commands.evaluate(small_demo / "predictions", out, **o),
        "report": lambda out, **o: commands.report(small_demo / "evaluation", out, **o),
    }


@pytest.mark.parametrize("name", ["ingest", "tokenize", "train", "simulate", "predict", "evaluate", "report"])
def test_ctrl_c_leaves_nothing_and_a_rerun_completes(
    stages: dict[str, Callable], tmp_path: Path, name: str
) -> None:
    out = tmp_path / name
    with pytest.raises(KeyboardInterrupt):
        stages[name](out, progress=Interrupted())
    assert [
        path for path in tmp_path.iterdir() if not (name == "tokenize" and path.name.startswith("."))
    ] == []
    assert not stages[name](out)["skipped"]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert stages[name](out)["skipped"]


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
        done = commands.predict(simulated, meds, tmp_path / out, task="death_5y", baselines=False, **asked)
        return done["result"]["death_5y"]["estimator"]

    assert used("of-the-folder") == "mc"
    assert used("of-the-settings", settings=SimulateSettings()) == "scope"
    assert used("asked-for", estimator="scope") == "scope"
    assert used("not-there", estimator="reach") == "scope"


def test_predictions_of_others_are_evaluated_beside_ours(small_demo: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "death_5y").mkdir(parents=True)
    shutil.copy(
        small_demo / "predictions" / "death_5y" / "trees.parquet", other / "death_5y" / "theirs.parquet"
    )
    commands.evaluate([small_demo / "predictions", other], tmp_path / "evaluation")
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    models = metrics["tasks"]["death_5y"]["models"]
    assert models["theirs"] == models["trees"]


def test_bad_input_is_named(small_demo: Path, tmp_path: Path) -> None:
    model, meds = small_demo / "model", small_demo / "meds"
    with pytest.raises(InputError, match=r"no task 'deth_5y'.*did you mean 'death_5y'"):
        commands.simulate(model, meds, tmp_path / "out", task="deth_5y")
    with pytest.raises(InputError, match="no estimator 'magic': choose one of scope, mc"):
        commands.predict(model, meds, tmp_path / "out", task="death_5y", estimator="magic")
    with pytest.raises(InputError, match="nobody in the split 'held_out' can be asked 'in_hospital_death'"):
        commands.simulate(model, meds, tmp_path / "out", task="in_hospital_death")
    with pytest.raises(InputError):
        commands.train(meds, tmp_path / "out")
    with pytest.raises(InputError):
        commands.simulate(small_demo / "corpus", meds, tmp_path / "out", task="death_5y")
    assert list(tmp_path.iterdir()) == []


def test_an_ingest_runs_again_where_its_mapping_or_the_one_it_extends_changes(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/people.csv").write_text("pid,sex\n1,F\n2,M\n")
    base = """
        name = "base"
        [tables.people]
        files = "people.csv"
        columns = { pid = "integer", sex = "text" }
        [[events]]
        table = "people"
        patient = "pid"
        code = "'GENDER//' || sex"
    """
    (tmp_path / "base").write_text(base)
    (tmp_path / "heir.toml").write_text('name = "heir"\nextends = "base"')

    def skipped(source: str) -> bool:
        return commands.ingest(tmp_path / source, tmp_path / "raw", tmp_path / f"out-{source}")["skipped"]

    assert [skipped("base"), skipped("base"), skipped("heir.toml"), skipped("heir.toml")] == [False, True] * 2
    (tmp_path / "base").write_text(base.replace("GENDER//", "SEX//"))
    assert [skipped("base"), skipped("base"), skipped("heir.toml"), skipped("heir.toml")] == [False, True] * 2


def test_a_truncated_checkpoint_is_named(small_demo: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(small_demo / "model", model)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"model\.safetensors"):
        commands.simulate(model, small_demo / "meds", tmp_path / "out", task="death_5y")


def test_a_checkpoint_can_be_loaded_and_asked(small_demo: Path) -> None:
    import torch

    model = sequela.load(str(small_demo / "model"))
    logits = model.logits(torch.tensor([[1, 2, 3]]))
    assert logits.shape[:2] == (1, 3)
    assert logits.dtype == torch.float32


def test_the_catalog() -> None:
    assert {task.name for task in commands.tasks()} >= {"death_5y", "in_hospital_death", "remaining_stay"}


def test_a_what_if_goes_on_where_it_stopped_and_its_edits_are_part_of_what_it_is(
    small_demo: Path, tmp_path: Path, small
) -> None:
    model, meds, out = small_demo / "model", small_demo / "meds", tmp_path / "whatif"

    def run(**changes: object) -> dict:
        asked = {"task": "death_5y", "patients": 40, "settings": replace(small.simulate, rollouts=2)}
        return sequela.whatif(model, meds, out, **{**asked, "set": "LAB//HDL = 20", **changes})

    def written(folder: str) -> float:
        return (out / folder / "manifest.json").stat().st_mtime_ns

    with pytest.raises(KeyboardInterrupt):
        run(progress=Interrupted())
    assert not run()["skipped"] and run()["skipped"]
    assert {path.name for path in out.iterdir()} == {
        "as-recorded", "what-if", "contrast", "contrast.parquet", "whatif.json",
    }  # fmt: skip
    told = json.loads((out / "whatif.json").read_text())
    assert "not the effect" in told["meaning"]
    assert 0 < told["tasks"]["death_5y"]["changed"] <= told["edits"]["set LAB//HDL = 20"] <= 40
    before = written("as-recorded"), written("what-if")
    assert not run(set="LAB//HDL = 80", remove=["NO//SUCH"])["skipped"]
    assert written("as-recorded") == before[0] and written("what-if") != before[1]
    assert not run(set=(), remove="NO//SUCH", everyone=True)["skipped"]
    nothing = json.loads((out / "whatif.json").read_text())["tasks"]["death_5y"]
    assert nothing["changed"] == 0 and nothing["compared"] == nothing["patients"] > 0
    assert nothing["difference"] == {"value": 0, "low": 0, "high": 0}
    for file in (out / "as-recorded" / "data").iterdir():
        assert file.read_bytes() == (out / "what-if" / "data" / file.name).read_bytes()
    with pytest.raises(InputError, match="futures of edited histories"):
        commands.predict(out / "what-if", meds, tmp_path / "predictions", task="death_5y")


def test_a_what_if_that_cannot_be_is_refused(
    small_demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, meds, out = small_demo / "model", small_demo / "meds", tmp_path / "whatif"
    with pytest.raises(InputError, match="nothing is edited"):
        commands.whatif(model, meds, out, task="death_5y")
    with pytest.raises(InputError, match=r"near it: LAB//HDL"):
        commands.whatif(model, meds, out, task="death_5y", patients=5, add=["LAB//HLD = 3 @ 1 hour"])
    with pytest.raises(InputError, match="holds the result of `sequela simulate`"):
        commands.whatif(model, meds, small_demo / "simulated", task="death_5y", remove=["LAB//*"])
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    with pytest.raises(InputError, match="not started by torchrun"):
        commands.whatif(model, meds, out, task="death_5y", remove=["LAB//*"])
    assert not any(out.glob("*"))
