"""Names of settings in messages become flags, and nothing else does."""

import inspect

import pytest

from sequela.serve.cli import stage_of
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


@pytest.mark.parametrize("name", STAGES)
def test_a_command_takes_what_its_function_takes(name: str) -> None:
    stage = stage_of(name)
    flags = inspect.signature(command_of(stage, lambda *_: None)).parameters
    assert set(flags) == {*stage.options, "seed", "config", "quiet"}
    for option in stage.options.values():
        assert option.words, option.name
        assert flags[option.name].annotation.__metadata__[0].help == option.words
