"""The command: folders in, predictions and metrics.json out; the wrong settings in one sentence."""

import json
from pathlib import Path

import polars as pl
import pytest
import yaml

import sequela
from sequela.record.dataset import write_dataset
from sequela.serve.cli import run
from sequela.serve.folder import manifest
from sequela.tokens.ehr.settings import TokenSettings
from sequela.tokens.ehr.tokenize import tokenize
from tests.task.conftest import make_cohort
from tests.task.probing.conftest import arms, daily, write_arm  # noqa: F401

TASK = {
    "name": "stroke_10d", "title": "Stroke within ten days", "dataset": "made", "kind": "binary",
    "at": {"after": "ENTRY", "offset": "1 day"}, "outcome": ["STROKE"], "ends": ["MEDS_DEATH"],
    "horizon": "10 days", "exclude": [],
}  # fmt: skip


@pytest.fixture(scope="session")
def cohort_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort") / "meds"
    write_dataset(make_cohort(600), folder, name="made", fractions=(0.6, 0.1, 0.3))
    return folder


@pytest.fixture
def task(tmp_path: Path) -> Path:
    path = tmp_path / "stroke_10d.yaml"
    path.write_text(yaml.safe_dump(TASK))
    return path


def test_it_compares_the_folders_that_it_is_given(
    arms: dict[str, Path],  # noqa: F811
    cohort_folder: Path,
    task: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    given = [str(arms["knowing"]), str(cohort_folder), str(tmp_path / "out"), "--also", str(arms["blind"])]
    words = ["--task", str(task), "--landmark", "0 days", "--landmark", "2 days", "--no-baselines"]
    assert run(["probe", *given, *words]) == 0
    told = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert set(told["tasks"]) == {"stroke_10d@0 days", "stroke_10d@2 days"}
    assert told["probe"]["reference"] == "knowing" and "blind" in told["tasks"]["stroke_10d@0 days"]["difference"]
    assert (tmp_path / "out" / "stroke_10d@2 days" / "blind.parquet").exists()
    said = capsys.readouterr()
    assert "knowing reaches AUROC" in said.out and "Differences are to knowing" in said.out
    assert run(["probe", *given, *words]) == 0
    assert "is up to date" in capsys.readouterr().err
    again = sequela.evaluate(tmp_path / "out", tmp_path / "evaluation")  # which reads the same predictions
    assert again["result"]["tasks"] == ["stroke_10d@0 days", "stroke_10d@2 days"]


def test_a_landmark_file_is_asked_by_its_names(
    arms: dict[str, Path],  # noqa: F811
    daily: tuple,  # noqa: F811
    cohort_folder: Path,
    task: Path,
    tmp_path: Path,
) -> None:
    marks = daily[0].with_columns(landmark=pl.lit("start of treatment"))
    marks.write_parquet(tmp_path / "marks.parquet")
    sequela.probe(
        arms["knowing"], cohort_folder, tmp_path / "out", task=(str(task),), labels=tmp_path / "marks.parquet",
        baselines=False,
    )  # fmt: skip
    told = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert list(told["tasks"]) == ["stroke_10d@start of treatment"]


def test_the_model_that_embedded_lends_its_tokenizer_to_the_baselines(
    daily: tuple,  # noqa: F811
    cohort_folder: Path,
    task: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "model").mkdir()
    tokenize(cohort_folder, tmp_path / "model", TokenSettings(min_patients=2))
    folder = write_arm(tmp_path / "arm", *daily)
    manifest.write(folder, manifest.describe("embed", {}, {"model": tmp_path / "model"}, folder))
    sequela.probe(folder, cohort_folder, tmp_path / "out", task=(str(task),))
    told = json.loads((tmp_path / "out" / "metrics.json").read_text())["tasks"]["stroke_10d@0 days"]
    assert {"arm", "trees", "logistic", "strong", "tokens", "last_values"} <= set(told["models"])
    assert set(told["difference"]) == set(told["models"]) - {"arm"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing is asked: name one or more tasks with --task"),
        (["--task", "stroke_10d", "--landmark", "soon"], "--landmark is 'soon': write a number and a unit"),
        (["--task", "stroke_10d", "--reference", "x"], "--reference is 'x': choose one of the arms, knowing"),
        (["--task", "stroke_10d", "--few-shot", "0"], "--few-shot must be 1 or more, not 0"),
        (["--task", "stroke_10d", "--margin", "0"], "--margin must be above 0"),
        (["--task", "stroke_10d", "--landmark", "80 days"], "stroke_10d at 80 days: no train patient is still at risk"),
    ],
)
def test_what_cannot_be_probed_is_said_in_one_sentence(
    words: list[str],
    said: str,
    arms: dict[str, Path],  # noqa: F811
    cohort_folder: Path,
    task: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    words = [str(task) if word == "stroke_10d" else word for word in words]
    assert run(["probe", str(arms["knowing"]), str(cohort_folder), str(tmp_path / "out"), *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
