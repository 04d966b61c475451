"""The documentation's commands are those of the program, and its first examples run as printed."""

from pathlib import Path

import pytest

from sequela.errors import InputError
from sequela.serve import cli
from sequela.serve.stages import STAGES
from tests.docs.commands import ROOT, Command, commands, documents, files

PRINTED = commands(documents())


def refused(command: Command) -> str | None:
    """Why the command line does not take a command; None if it does."""
    name, before = command.arguments[0], ("", *command.arguments)
    words = [
        "1" if flag.startswith("--") and word.isupper() else word  # --flops FLOPS
        for flag, word in zip(before, command.arguments, strict=False)
    ]
    try:
        cli._parsed(words, cli.stage_of(name) if name in STAGES else None)
    except InputError as error:
        return str(error)
    return None


def test_every_command_of_the_documents_is_taken() -> None:
    assert len(PRINTED) > 60 and {command.arguments[0] for command in PRINTED} == set(STAGES)
    problems = {f"{command.page}: {command.words}": refused(command) for command in PRINTED}
    assert {words: why for words, why in problems.items() if why} == {}


@pytest.mark.parametrize(
    "line", ["train corpus model --dpeth 2", "trian corpus model", "train corpus model --depth x"]
)
def test_a_wrong_command_would_be_seen(line: str) -> None:
    assert refused(Command("page", tuple(line.split())))


def test_commands_are_found_wherever_they_stand(tmp_path: Path) -> None:
    page = ROOT / "docs" / "how-to" / "predict.md"
    found = {command.words for command in commands([page])}
    assert "sequela simulate model/ meds/ simulated/ --task death_5y" in found, "behind torchrun"
    assert "sequela evaluate predictions/ evaluation/" in found, "in a sentence"


def test_the_example_of_a_mapping_runs_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    page = ROOT / "docs/how-to/data.md"
    shown = files(page)
    assert {"clinic.toml", "people.csv", "results-2024.csv"} <= set(shown)
    (command,) = (command for command in commands([page]) if "clinic.toml" in command.arguments)
    monkeypatch.chdir(tmp_path)
    raw = Path(command.arguments[2])
    raw.mkdir(exist_ok=True)
    for name, content in shown.items():
        (raw if name.endswith(".csv") else tmp_path).joinpath(name).write_text(content)
    assert cli.run(list(command.arguments)) == 0
    assert "2 patients, 9 events" in capsys.readouterr().err
    assert "gives 2 patients, 9 events" in page.read_text()
