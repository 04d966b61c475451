"""Every stage as a function: Ctrl-C leaves nothing, a re-run completes, bad input is named."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import sequela
from sequela import TrainSettings
from sequela.errors import InputError
from sequela.record.finding import Finding, as_values
from sequela.serve.stage import Finished, StageRun, look_line, stage, summary_line


class Interrupted:
    """Ctrl-C the first time a stage reports progress."""

    def __call__(self, done: float, total: float, **facts: object) -> None:
        raise KeyboardInterrupt


@pytest.fixture
def stages(small_demo: Path, request: pytest.FixtureRequest, small) -> dict[str, Callable]:
    """Each stage on the folders of the small demo, as a function of the folder to write and of the progress."""
    meds = small_demo / "meds"
    quick = replace(small.train, epochs=0.3)
    few = replace(small.simulate, rollouts=2)
    return {
        "ingest": lambda out, **o: sequela.ingest(
            "nafld", request.getfixturevalue("shared_data") / "ehr" / "nafld", out, **o
        ),
        "tokenize": lambda out, **o: sequela.tokenize(meds, out, settings=small.tokenize, **o),
        "train": lambda out, **o: sequela.train(small_demo / "corpus", out, settings=quick, **o),
        "simulate": lambda out, **o: sequela.simulate(
            small_demo / "model", meds, out, task="death_5y", patients=40, settings=few, **o
        ),
        "predict": lambda out, **o: sequela.predict(
            small_demo / "simulated", meds, out, task="death_5y", baselines=False, **o
        ),
        "evaluate": lambda out, **o: sequela.evaluate(small_demo / "predictions", out, **o),
        "report": lambda out, **o: sequela.report(small_demo / "evaluation", out, **o),
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


def test_bad_input_is_named(small_demo: Path, tmp_path: Path) -> None:
    model, meds = small_demo / "model", small_demo / "meds"
    with pytest.raises(InputError, match=r"no task 'deth_5y'.*did you mean 'death_5y'"):
        sequela.simulate(model, meds, tmp_path / "out", task="deth_5y")
    with pytest.raises(InputError, match="no estimator 'magic': choose one of scope, mc"):
        sequela.predict(model, meds, tmp_path / "out", task="death_5y", estimator="magic")
    with pytest.raises(InputError, match="nobody in the split 'held_out' can be asked 'in_hospital_death'"):
        sequela.simulate(model, meds, tmp_path / "out", task="in_hospital_death")
    with pytest.raises(InputError):
        sequela.train(meds, tmp_path / "out")
    with pytest.raises(InputError):
        sequela.simulate(small_demo / "corpus", meds, tmp_path / "out", task="death_5y")
    assert list(tmp_path.iterdir()) == []


def test_any_setting_is_a_keyword_and_wins_over_whole_settings(small_demo: Path, tmp_path: Path) -> None:
    values = sequela.train.stage.values(
        ("corpus", tmp_path), {"settings": TrainSettings(epochs=3.0, clip=0.5), "tokens": 10, "depth": 1}
    )
    assert values["settings"] == TrainSettings(tokens=10.0, clip=0.5, depth=1)
    assert values["corpus"] == Path("corpus") and values["resume"] is True
    values = sequela.predict.stage.values(("m", "d"), {"task": "death_5y", "rollouts": 25, "estimator": "reach"})
    assert (values["ask"].task, values["settings"].rollouts) == (("death_5y",), 25)
    assert values["out"] == Path("predictions")


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"dpeth": 2}, r"sequela.train takes no `dpeth` \(did you mean 'depth'\?\)"),
        ({"depth": "two"}, "`depth` is 'two': give a whole number"),
        ({"settings": {"depth": 2}}, "give a TrainSettings"),
        ({"clip": 0}, "clip must be above 0, not 0"),
    ],
)
def test_a_wrong_keyword_is_a_sentence(keywords: dict, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        sequela.train("corpus", tmp_path / "out", **keywords)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_argument_is_an_error_of_the_program(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="missing a required argument: 'out'"):
        sequela.train("corpus")


def test_signature_and_docstring_are_those_of_the_stage() -> None:
    known = inspect.signature(sequela.simulate).parameters
    assert list(known)[:3] == ["model", "meds", "out"]
    assert {"task", "split", "rollouts", "estimator", "processes", "settings", "workers", "progress"} <= set(known)
    assert "run" not in known
    assert known["rollouts"].default == sequela.SimulateSettings().rollouts
    assert inspect.isfunction(sequela.simulate) and "Simulate futures" in sequela.simulate.__doc__


def test_a_function_is_a_stage(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    @stage(steps=True)
    def double(number: int, *, times: int = 2, run: StageRun) -> int:
        """Double a number.

        Args:
            number: What is
                doubled.
            times: How often.
        """
        run.say(f"given: {sorted(run.given)}")
        return number * times

    said: list[str] = []
    assert double(2, times=3, say=said.append) == 6
    assert said == ["given: ['times']"]
    assert {name: option.words for name, option in double.stage.options.items()} == {
        "number": "What is doubled.",
        "times": "How often.",
    }
    assert double(2, quiet=False) == 4
    assert capsys.readouterr().err == "given: []\n"


def test_what_is_said_of_a_finished_stage() -> None:
    made = {"stage": "train", "skipped": False, "seconds": 3.0, "peak_rss_mb": 1, "result": {"tokens": 1200}}
    assert summary_line(Finished(made, {"out": Path("model")})) == "train: model written in 3 s, 1,200 tokens"
    assert "is up to date" in summary_line(Finished({**made, "skipped": True}, {"out": Path("model")}))


def test_what_to_look_at_is_one_more_line() -> None:
    finding = Finding(3, "patients", "no sex", "Map it.", 60)
    done = {"stage": "ingest", "skipped": False, "seconds": 2.0, "peak_rss_mb": 9}

    def said(*findings: Finding, skipped: bool = False) -> list[str]:
        result = {**done, "skipped": skipped, "result": {"patients": 60, "findings": as_values(list(findings))}}
        return summary_line(Finished(result, {"out": Path("meds")})).splitlines()

    assert said() == ["ingest: meds written in 2 s, 60 patients"], "clean data have nothing to look at"
    assert said(finding)[1:] == ["1 thing to look at: meds/ingest.html"]
    assert said(finding, finding, skipped=True)[1:] == ["2 things to look at: meds/ingest.html"]
    assert look_line({**done, "result": {}}, Path("meds")) == "", "a folder of an older version"
