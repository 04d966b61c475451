import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

import sequela
from sequela.errors import InputError
from sequela.record.worlds.zipf import ZipfWorld
from sequela.serve.stages.scaling.study import Study, scale
from sequela.tokens.ehr.tokenize import tokenize
from sequela.training.scaling.settings import ScaleSettings
from sequela.training.settings import TrainSettings

BASE = TrainSettings(context=64, precision="fp32")
FLOPS = (1e9, 3e9)
CHOSEN = ScaleSettings(sizes=5, expected_tokens_per_parameter=20)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("population")
    ZipfWorld.known(states=20, conditions=2, rank=4, events=12.0).write(folder / "meds", 3000, seed=0)
    (folder / "corpus").mkdir()
    tokenize(folder / "meds", folder / "corpus")
    return folder / "corpus"


class Surface:
    """Stands in for training: the loss of a run follows a known law, so that what the study finds can be checked."""

    def __init__(self, corpus: Path) -> None:
        self.corpus, self.made = corpus, []

    def __call__(self, settings: TrainSettings, folder: Path) -> dict:
        study = Study.of(self.corpus, folder.parents[1], (), CHOSEN, BASE, self)
        size = next(s for s in study.shapes if (s.depth, s.width) == (settings.layers, settings.width))
        loss = 1.0 + 40 / size.parameters**0.4 + 40 / settings.tokens**0.4
        self.made.append(folder.name)
        folder.mkdir(parents=True)
        about = {
            "model": {"layers": settings.layers, "hidden_size": settings.width},
            "settings": {"batch_tokens": 64, "learning_rate": 0.01, "seed": settings.seed},
            "parameters": size.parameters,
            "tokens": settings.tokens,
            "flops": size.flops_per_token * settings.tokens,
            "tuning": {"bits_per_token": loss / 2, "bits_per_event": loss},
            "seconds": 1.0,
        }
        (folder / "train.json").write_text(json.dumps(about))
        return {}


def study_of(corpus: Path, out: Path, train: Surface, flops=(1e12, 1e13, 1e14), **settings) -> Study:
    chosen = ScaleSettings(sizes=7, most_epochs=1e9, **settings)
    return Study.of(corpus, out, flops, chosen, BASE, train)


def test_a_known_law_is_found_and_the_largest_budget_foretold(corpus, tmp_path):
    made = Surface(corpus)
    found = scale(study_of(corpus, tmp_path / "s", made, expected_tokens_per_parameter=20, floor=1.0))
    assert found["isoflop"]["parameters"]["exponent"]["value"] == pytest.approx(0.5, abs=0.06)
    assert found["check"]["parametric"]["loss"]["ratio"] == pytest.approx(1, abs=0.03)
    assert found["floor"]["above"] == pytest.approx(found["floor"]["best_run"] - 1.0)
    assert not any(one["edge"] for one in found["isoflop"]["budgets"])
    table = pl.read_parquet(tmp_path / "s/runs.parquet")
    assert len(table) == len(made.made) == len(set(made.made))
    assert {path.name for path in (tmp_path / "s").glob("*.svg")} == {
        "isoflop.svg",
        "loss.svg",
        "optimum.svg",
    }


@pytest.mark.slow
def test_sizes_are_added_until_the_best_lies_inside(corpus, tmp_path):
    wrong = Surface(corpus)
    found = scale(study_of(corpus, tmp_path / "s", wrong, expected_tokens_per_parameter=2e-4))
    assert not any(one["edge"] for one in found["isoflop"]["budgets"]), "the first guess was far too large"
    assert len(wrong.made) > 3 * 7


def test_what_is_there_is_not_made_again_and_budgets_can_be_added(corpus, tmp_path):
    scale(study_of(corpus, tmp_path / "s", first := Surface(corpus), expected_tokens_per_parameter=20))
    scale(study_of(corpus, tmp_path / "s", again := Surface(corpus), expected_tokens_per_parameter=20))
    assert again.made == []
    more = study_of(
        corpus, tmp_path / "s", third := Surface(corpus), (1e12, 3e12, 1e14), expected_tokens_per_parameter=20
    )
    found = scale(more)
    assert third.made and all(name.startswith("3e+12-") for name in third.made)
    assert found["runs"] == len(first.made) + len(third.made)


@pytest.mark.slow
def test_a_loss_below_the_entropy_is_told_to_be_impossible(corpus, tmp_path):
    told = {}
    for floor in (0.1, 1e3):
        study = study_of(corpus, tmp_path / "s", Surface(corpus), expected_tokens_per_parameter=20, floor=floor)
        told[floor] = " ".join(scale(study)["advice"]["notes"])
    assert "below the entropy" in told[1e3] and "below the entropy" not in told[0.1]


@pytest.mark.slow
def test_seeds_are_runs_of_their_own(corpus, tmp_path):
    made = Surface(corpus)
    scale(study_of(corpus, tmp_path / "s", made, (1e13, 1e14), seeds=2, expected_tokens_per_parameter=20))
    assert {name.rpartition("-")[2] for name in made.made} == {"0", "1"}


def test_a_run_that_runs_away_is_left_out_and_told(corpus, tmp_path):
    class Fails(Surface):
        def __call__(self, settings: TrainSettings, folder: Path) -> dict:
            if settings.layers == 1 and "1e+13" in folder.name:
                folder.with_name(f"{folder.name}-stopped").mkdir(parents=True)
                raise InputError("the loss ran away")
            return super().__call__(settings, folder)

    study = study_of(corpus, tmp_path / "s", Fails(corpus), (1e13, 1e14), expected_tokens_per_parameter=20)
    (study.out / "runs" / ".1e+12-2x32-0.unfinished-host-1").mkdir(parents=True)
    (study.out / "runs" / ".1e+12-2x32-0.unfinished-host-1" / "train.json").write_text("{}")
    found = scale(study)
    assert any("diverged" in note for note in found["notes_on_plan"])
    assert {one["flops"] for one in found["isoflop"]["budgets"]} == {1e13, 1e14}

    class Full(Surface):
        def __call__(self, settings: TrainSettings, folder: Path) -> dict:
            raise InputError("the disk is full")

    with pytest.raises(InputError, match="disk is full"):
        scale(study_of(corpus, tmp_path / "t", Full(corpus), expected_tokens_per_parameter=20))


@pytest.mark.slow
def test_real_runs_by_two_processes_on_one_folder(corpus, tmp_path):
    """Both find all runs done; no run is made twice."""
    out = tmp_path / "study"
    flags = [
        "--flops",
        *map(str, FLOPS),
        "--sizes",
        "5",
        "--expected-tokens-per-parameter",
        "20",
        "--context",
        "64",
    ]
    command = [sys.executable, "-m", "sequela", "scale", str(corpus), str(out), *flags, "--precision", "fp32"]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [one.communicate(timeout=240) for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    table = pl.read_parquet(out / "runs.parquet")
    assert len(table) >= 9
    assert (
        table["flops"] / table["budget"] - 1
    ).abs().max() < 0.5  # a run of few steps overshoots by up to one
    assert "FLOPs: train" in said[0][0] + said[0][1]
    page = (out / "scale.html").read_text()
    assert page.count("<svg") >= 2 and "CoMET" in page
    begun = [json.loads(path.read_text()) for path in out.glob("runs/*/manifest.json")]
    assert len(begun) == len(table)
    assert not list(out.rglob("*.lock"))


def test_bad_input_is_named(corpus, tmp_path):
    with pytest.raises(InputError, match=r"leave out epochs"):
        sequela.scale(corpus, tmp_path / "a", flops=FLOPS, base=replace(BASE, epochs=2.0))
    with pytest.raises(InputError, match="`flops` needs one or more"):
        sequela.scale(corpus, tmp_path / "b", flops=[-1.0], base=BASE)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="is not a scaling study"):
        sequela.scale(corpus, tmp_path / "d", flops=FLOPS, base=BASE)
    study_of(corpus, tmp_path / "e", Surface(corpus))
    with pytest.raises(InputError, match="with another settings"):
        sequela.scale(corpus, tmp_path / "e", flops=FLOPS, base=replace(BASE, clip=0.5))
    with pytest.raises(ValueError, match="seeds"):
        ScaleSettings(seeds=0)
    assert math.isfinite(ScaleSettings().most_epochs)
