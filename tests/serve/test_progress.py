"""Progress on a terminal, in a log file, and not at all."""

import os
import pty
import subprocess
import sys

import pytest

from sequela.serve.progress import Display, Pace, duration, line

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
        progress.pace.marks = [(progress.start, 0.0)]
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
        (5, 10, {}, "x: 50 %"),
        (5, 10, {"seconds_left": None}, "x: 50 %"),
        (10, 10, {}, "x: 100 %"),
        (5, 10, {"tokens": 40_000}, "x: 50 %, 4,000 tokens/s"),
        (5, 10, {"tokens_per_second": 4000.4, "stage": "sort"}, "x: 50 %, 4,000 tokens/s, sort"),
        (5, 10, {"seconds_left": 4.0, "MFU": "12%"}, "x: 50 %, 4 s left, MFU 12%"),
        (3, 0, {"rows_read": 12000, "loss": 0.12345}, "x: rows read 12,000, loss 0.1235"),
    ],
)
def test_line(done: float, total: float, facts: dict, words: str) -> None:
    assert line("x", done, total, 10.0, facts) == words


def left(*reports: tuple[float, float]) -> list[float | None]:
    """What is told of the time left after each report, of (seconds, share done)."""
    pace = Pace()
    return [pace.left(now, done, 1.0) for now, done in reports]


def test_the_time_left_is_told_once_enough_is_known() -> None:
    steady = left(*((0.1 * step, 0.001 * step) for step in range(1001)))
    assert steady[:90] == [None] * 90, "too early to tell"
    first = next(step for step, seconds in enumerate(steady) if seconds is not None)
    assert all(seconds == pytest.approx(100 - 0.1 * step) for step, seconds in enumerate(steady) if step >= first)
    assert left((0, 0), (9, 0.01), (9.1, 0.02)) == [None] * 3, "the first of many tables was large"
    assert left(*((step, step / 1e5) for step in range(0, 2001, 20)))[-1] == pytest.approx(98_000, rel=0.01)


def test_what_was_done_before_is_no_measure() -> None:
    resumed = left((0, 0), (0.1, 0.9), *((step, 0.9 + step / 1000) for step in range(1, 91)))
    assert resumed[-1] == pytest.approx(10, rel=0.1)
    slow_start = left((0, 0), (50, 0.01), *((50 + step, 0.01 + step / 100) for step in range(1, 89)))
    assert slow_start[-1] == pytest.approx(11, rel=0.2)
    assert left((0, 0), (5, 0.5), (6, 0.1))[-1] is None, "it began anew"


def test_the_memory_of_a_pace_is_short() -> None:
    pace = Pace()
    for step in range(20_000):
        pace.left(step, step, 20_000)
    assert len(pace.marks) < 60


def test_duration() -> None:
    assert [duration(seconds) for seconds in (0.4, 59.4, 60, 3599.6, 7300)] == [
        "0 s",
        "59 s",
        "1 min 0 s",
        "1 h 0 min",
        "2 h 1 min",
    ]
