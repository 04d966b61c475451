"""The live display: which stage runs, how fast, and the time left."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from sequela.progress import Progress, silent

PLAIN_SECONDS = 15.0  # a line in a log file
DUMB = "dumb"  # a terminal that cannot go back to a line
# Seconds since the first report and share done lately that are enough to tell the time left: few steps of different
# kinds tell little, many of one kind more
KNOWN = ((1.0, 0.05), (60.0, 0.005))
MARKS = 50  # of a pace, about
COUNT, RATE, LEFT = "tokens", "tokens_per_second", "seconds_left"


class Display:
    """Shows the stages of a run on stderr, which keeps stdout for results.

    A live line on a terminal, plain lines at intervals elsewhere (a log file), nothing if quiet.
    """

    def __init__(self, quiet: bool = False, hear: Callable[[str], None] | None = None) -> None:
        """`hear`: called with each line, instead of printing it to stderr."""
        self.quiet, self.hear = quiet, hear

    def say(self, text: str) -> None:
        """Print one line."""
        if self.hear is not None:
            self.hear(text)
        elif not self.quiet:
            print(text, file=sys.stderr, flush=True)

    @contextmanager
    def stage(self, name: str) -> Generator[Progress]:
        """Show a stage while the block runs; yields the `Progress` to report to."""
        if self.quiet:
            yield silent
        elif sys.stderr.isatty() and os.environ.get("TERM") != DUMB:
            with _live(name) as progress:
                yield progress
        else:
            yield _Plain(name)


class Pace:
    """How fast a stage has gone lately, from which the time left follows.

    Over the later half of the time since the first report: what came before that report (imports, the first step), and
    what a run that resumes finds done already, are no measure of what is to come.
    """

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []  # time and share done

    def left(self, now: float, done: float, total: float) -> float | None:
        """Seconds left; None until enough is known."""
        share = done / total if total > 0 else 0.0
        if not self.marks or share < self.marks[-1][1]:
            self.marks = [(now, share)]
            return None
        start = self.marks[0][0]
        if now - self.marks[-1][0] > (now - start) / MARKS:
            self.marks.append((now, share))
        before, then = max((mark for mark in self.marks if mark[0] <= (start + now) / 2), default=self.marks[0])
        self.marks = [mark for number, mark in enumerate(self.marks) if not number or mark[0] >= before]
        if not any(now - start >= seconds and share - then >= least for seconds, least in KNOWN):
            return None
        return (now - before) * (1 - share) / (share - then)


class _Plain:
    """A line at the start, then one every `PLAIN_SECONDS`."""

    def __init__(self, name: str) -> None:
        self.name, self.pace = name, Pace()
        self.start = time.monotonic()
        self.said = self.start - PLAIN_SECONDS
        print(f"{name} ...", file=sys.stderr, flush=True)

    def __call__(self, done: float, total: float, **facts: object) -> None:
        now = time.monotonic()
        left = self.pace.left(now, done, total)
        if done > 0 and now - self.said >= PLAIN_SECONDS and now - self.start >= 1:
            self.said = now
            print(line(self.name, done, total, now - self.start, {LEFT: left} | facts), file=sys.stderr, flush=True)


@contextmanager
def _live(name: str) -> Generator[Progress]:
    from rich.console import Console
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    start, pace = time.monotonic(), Pace()
    state: tuple[float, float, str] = (0, 1, "")

    def picture() -> Table:
        done, total, text = state
        bar = ProgressBar(total=total or 1, completed=done, width=28)
        grid = Table.grid(padding=(0, 1))
        grid.add_row(f"[bold]{name:<10}[/]", bar, f"{duration(time.monotonic() - start):>5}", text)
        return grid

    def progress(done: float, total: float, **facts: object) -> None:
        nonlocal state
        now = time.monotonic()
        facts = {LEFT: pace.left(now, done, total)} | facts
        state = (done, total, line("", done, total, now - start, facts))

    with Live(get_renderable=picture, console=Console(stderr=True), refresh_per_second=4, transient=True):
        yield progress


def line(name: str, done: float, total: float, seconds: float, facts: dict[str, object]) -> str:
    """One line of progress: share done, rate, time left and the other facts.

    The rate is the fact `tokens_per_second`, or else comes from the count `tokens` so far; the time left is the fact
    `seconds_left`, if it is known.

    >>> line("train", 250, 1000, 10.0, {"tokens": 90000, "seconds_left": 30, "loss": 1.23456})
    'train: 25 %, 9,000 tokens/s, 30 s left, loss 1.235'
    """
    parts = [f"{100 * done / total:.0f} %"] if total > 0 else []
    other = dict(facts)
    rate = other.pop(RATE, None)
    count = other.pop(COUNT, None)
    if rate is None and isinstance(count, int | float) and seconds > 0:
        rate = count / seconds
    if isinstance(rate, int | float):
        parts.append(f"{rate:,.0f} {COUNT}/s")
    left = other.pop(LEFT, None)
    if total > done and isinstance(left, int | float):
        parts.append(f"{duration(left)} left")
    for key, value in other.items():
        parts.append(str(value) if key == "stage" else f"{key.replace('_', ' ')} {_short(value)}")
    return (f"{name}: " if name else "") + ", ".join(parts)


def duration(seconds: float) -> str:
    """A length of time in words.

    >>> duration(7.2), duration(272), duration(3720)
    ('7 s', '4 min 32 s', '1 h 2 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _short(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if abs(value) >= 1000 or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.4g}"
