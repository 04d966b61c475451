"""Streams that are closed, full or cut off, and terminals of any width."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sequela.serve import streams
from sequela.serve.cli import run

FULL = Path("/dev/full")


def columns(given: str | None, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """What the variable says inside, when it says `given` outside."""
    monkeypatch.delenv("COLUMNS", raising=False)
    if given is not None:
        monkeypatch.setenv("COLUMNS", given)
    with streams.guarded():
        return os.environ.get("COLUMNS")


@pytest.mark.parametrize(
    "given, inside",
    [("1", "20"), ("2", "20"), (" 7", "20"), ("20", "20"), ("80", "80"), ("300", "300"), ("1000000000", "1000"),
     ("0", None), ("-5", None), ("abc", None), ("", None), ("\N{SUPERSCRIPT TWO}", None), (None, None)],
)  # fmt: skip
def test_a_width_is_kept_mended_or_forgotten(given, inside, monkeypatch):
    assert columns(given, monkeypatch) == inside


def test_help_is_there_for_a_terminal_of_one_column(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "1")
    start = time.monotonic()
    assert run(["tasks", "--help"]) == 0
    assert time.monotonic() - start < 10
    assert "sequela tasks" in " ".join(capsys.readouterr().out.split())


@pytest.mark.skipif(not FULL.exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("arguments", [["tasks"], ["tasks", "--help"], ["--version"]])
def test_output_that_cannot_be_written_is_said(arguments, monkeypatch, capsys):
    with FULL.open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert run(arguments) == 2
        monkeypatch.undo()
    assert capsys.readouterr().err == (
        "sequela: the output could not be written (No space left on device): send it elsewhere.\n"
    )


@pytest.mark.skipif(not FULL.exists(), reason="the system has no /dev/full")
def test_what_is_said_beside_the_work_does_not_stop_it(world_meds, tmp_path, monkeypatch):
    with FULL.open("w", buffering=1) as full:
        monkeypatch.setattr(sys, "stderr", full)
        assert run(["tokenize", str(world_meds), str(tmp_path / "corpus")]) == 0
        monkeypatch.undo()
    assert (tmp_path / "corpus/corpus.json").exists()


def test_closed_streams_are_no_bug_and_take_no_file(tmp_path):
    program = (
        "import sys; from sequela.serve.cli import run; from sequela.serve.streams import guarded\n"
        "with guarded(), open('mine', 'w') as file: file.write(str(file.fileno()))\n"
        "sys.exit(run(['tokenize', 'nowhere', 'out']))"
    )
    command = ["bash", "-c", '"$@" <&- >&- 2>&-', "bash", sys.executable, "-c", program]
    assert subprocess.run(command, cwd=tmp_path).returncode == 2
    assert int((tmp_path / "mine").read_text()) > 2, "the text of an error would go into this file"


def test_names_that_are_no_text_can_be_printed():
    program = "from sequela.serve.streams import guarded\nwith guarded(): print('a\\udcff')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "a?\n")
