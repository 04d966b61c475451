"""Progress on a terminal, in a log file, and not at all."""

import os
import pty
import subprocess
import sys

import pytest

from sequela.serve.progress import Display, duration, line

LONG = (
    "import time; from sequela.serve.progress import Display\n"
    "with Display().stage('train') as progress:\n"
    "    for step in range(8):\n"
    "        time.sleep(0.3); progress(step + 1, 8, tokens_per_second=1234.5, loss=0.5)\n"
)


def test_a_terminal_shows_rate_and_time_left() -> None:
    ours, theirs = pty.openpty()
    run = subprocess.Popen([sys.executable, "-c", LONG], stderr=theirs, env={**os.environ, "COLUMNS": "120"})
    os.close(theirs)
    shown = b""
    try:
        while block := os.read(ours, 4096):
            shown += block
    except OSError:  # the other side is closed
        pass
    assert run.wait() == 0
    text = shown.decode()
    assert "train" in text
    assert "tokens/s" in text
    assert " left" in text


def test_a_log_file_gets_plain_lines(capsys: pytest.CaptureFixture) -> None:
    with Display().stage("train") as progress:
        progress.start -= 5
        progress(1, 4, stage="warm up")
        progress(2, 4)
    written = capsys.readouterr()
    assert written.out == ""
    first, second = written.err.splitlines()
    assert first == "train ..."
    assert second.startswith("train: 25 %, ")
    assert second.endswith("15 s left, warm up")


def test_quiet_is_silent(capsys: pytest.CaptureFixture) -> None:
    display = Display(quiet=True)
    with display.stage("train") as progress:
        progress(1, 2)
    display.say("done")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("done", "total", "facts", "words"),
    [
        (0, 10, {}, "x: 0 %"),
        (5, 10, {}, "x: 50 %, 10 s left"),
        (10, 10, {}, "x: 100 %"),
        (5, 10, {"tokens": 40_000}, "x: 50 %, 4,000 tokens/s, 10 s left"),
        (5, 10, {"tokens_per_second": 4000.4, "stage": "sort"}, "x: 50 %, 4,000 tokens/s, 10 s left, sort"),
        (5, 10, {"seconds_left": 4.0, "MFU": "12%"}, "x: 50 %, 4 s left, MFU 12%"),  # it went on from 4
        (3, 0, {"rows_read": 12000, "loss": 0.12345}, "x: rows read 12,000, loss 0.1235"),
    ],
)
def test_line(done: float, total: float, facts: dict, words: str) -> None:
    assert line("x", done, total, 10.0, facts) == words


def test_duration() -> None:
    assert [duration(seconds) for seconds in (0.4, 59.4, 60, 3599.6, 7300)] == [
        "0 s",
        "59 s",
        "1 min 0 s",
        "1 h 0 min",
        "2 h 1 min",
    ]
