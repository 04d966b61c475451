"""Names of settings in messages become flags, and nothing else does."""

import inspect

import pytest

from sequela.serve.cli import run, stage_of
from sequela.serve.flags import command_of, spelled
from sequela.serve.stages import STAGES


@pytest.mark.parametrize(
    ("message", "result"),
    [
        ("quantiles must be 2 or more, not 1.", "--quantiles must be 2 or more, not 1."),
        ("min_patients must be 1 or more", "--min-patients must be 1 or more"),
        ("choose another with `out`.", "choose another with OUT."),
        ("at this time nothing is joint", "at this time nothing is joint"),
        ("my_min_patients and corpus/min_patients.json", "my_min_patients and corpus/min_patients.json"),
        ("run `sequela tokenize` again", "run `sequela tokenize` again"),
    ],
)
def test_names_become_flags(message: str, result: str) -> None:
    assert spelled(message, stage_of("tokenize")) == result


@pytest.mark.parametrize(
    ("stage", "wrong", "result"),
    [
        ("train", {"epochs": 1.0, "tokens": 5.0}, "--epochs and --tokens exclude each other"),
        ("simulate", {"estimator": "auto", "threshold": 2.0}, "--threshold must lie between 0 and 1"),
        (
            "simulate",
            {"threshold": 0.1},
            "--target-error, --threshold and --overdispersion are for the estimator auto: set --estimator",
        ),
        ("simulate", {"estimator": "auto", "rollouts": 3}, "auto needs --rollouts of 4 or more"),
        ("simulate", {"engine": "vllm"}, "set --well-formed to false, or --engine to own"),
        (
            "simulate",
            {"engine": "vllm", "estimator": "reach"},
            "set --estimator to scope or mc, or --engine to own",
        ),
        ("scale", {"target_flops": 1.0, "target_hours": 1.0}, "--target-flops and --target-hours exclude"),
    ],
)
def test_messages_of_settings_name_flags(stage: str, wrong: dict, result: str) -> None:
    settings = stage_of(stage).parameters["settings"].annotation
    with pytest.raises(ValueError) as error:
        settings(**wrong)
    assert result in spelled(str(error.value), stage_of(stage))


@pytest.mark.parametrize("name", STAGES)
def test_a_command_takes_what_its_function_takes(name: str) -> None:
    stage = stage_of(name)
    flags = inspect.signature(command_of(stage, lambda *_: None)).parameters
    assert set(flags) == {*stage.options, "seed", "config", "quiet"}
    for option in stage.options.values():
        assert option.words, option.name
        assert flags[option.name].annotation.__metadata__[0].help == option.words


def test_defaults_of_several_values_are_words(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    assert run(["ingest", "--help"]) == 0
    assert "[default: 0.7 0.1 0.2]" in capsys.readouterr().out
