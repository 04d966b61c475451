"""A what-if in a folder: resumed, made anew where an edit changed, refused where it cannot be."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import sequela
from sequela.errors import InputError
from sequela.serve.stages.whatif import read_whatif
from tests.serve.test_stage import Interrupted


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
    assert not run(set="LAB//HDL = 80", remove=["RACE//WHITE"])["skipped"]
    assert written("as-recorded") == before[0] and written("what-if") != before[1]
    assert not run(set=(), remove="RACE//WHITE", everyone=True)["skipped"]
    nothing = json.loads((out / "whatif.json").read_text())["tasks"]["death_5y"]
    assert nothing["changed"] == 0 and nothing["compared"] == nothing["patients"] > 0
    assert nothing["difference"] == {"value": 0, "low": 0, "high": 0}
    for file in (out / "as-recorded" / "data").iterdir():
        assert file.read_bytes() == (out / "what-if" / "data" / file.name).read_bytes()
    with pytest.raises(InputError, match="futures of edited histories"):
        sequela.predict(out / "what-if", meds, tmp_path / "predictions", task="death_5y")


def test_a_what_if_that_cannot_be_is_refused(
    small_demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, meds, out = small_demo / "model", small_demo / "meds", tmp_path / "whatif"
    with pytest.raises(InputError, match="nothing is edited"):
        sequela.whatif(model, meds, out, task="death_5y")
    with pytest.raises(InputError, match=r"near it: LAB//HDL"):
        sequela.whatif(model, meds, out, task="death_5y", patients=5, add=["LAB//HLD = 3 @ 1 hour"])
    with pytest.raises(InputError, match="holds the result of `sequela simulate`"):
        sequela.whatif(model, meds, small_demo / "simulated", task="death_5y", remove=["LAB//*"])
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    with pytest.raises(InputError, match="not started by torchrun"):
        sequela.whatif(model, meds, out, task="death_5y", remove=["LAB//*"])
    assert not any(out.glob("*"))


def test_a_folder_without_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sequela whatif"):
        read_whatif(tmp_path)
    (tmp_path / "whatif.json").write_text(json.dumps({"tasks": {}}))
    assert read_whatif(tmp_path) == {"tasks": {}}
