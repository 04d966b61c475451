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


class _Plain:
    """A line at the start, then one every `PLAIN_SECONDS`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.start = time.monotonic()
        self.said = self.start - PLAIN_SECONDS
        print(f"{name} ...", file=sys.stderr, flush=True)

    def __call__(self, done: float, total: float, **facts: object) -> None:
        now = time.monotonic()
        if done > 0 and now - self.said >= PLAIN_SECONDS and now - self.start >= 1:
            self.said = now
            print(line(self.name, done, total, now - self.start, facts), file=sys.stderr, flush=True)


@contextmanager
def _live(name: str) -> Generator[Progress]:
    from rich.console import Console
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    start = time.monotonic()
    state: tuple[float, float, str] = (0, 1, "")

    def picture() -> Table:
        done, total, text = state
        bar = ProgressBar(total=total or 1, completed=done, width=28)
        grid = Table.grid(padding=(0, 1))
        grid.add_row(f"[bold]{name:<10}[/]", bar, f"{duration(time.monotonic() - start):>5}", text)
        return grid

    def progress(done: float, total: float, **facts: object) -> None:
        nonlocal state
        state = (done, total, line("", done, total, time.monotonic() - start, facts))

    with Live(get_renderable=picture, console=Console(stderr=True), refresh_per_second=4, transient=True):
        yield progress


def line(name: str, done: float, total: float, seconds: float, facts: dict[str, object]) -> str:
    """One line of progress: share done, rate, time left and the other facts.

    The rate is the fact `tokens_per_second`, or else comes from the count `tokens` so far; the time left is the fact
    `seconds_left`, or else comes from the share done.

    >>> line("train", 250, 1000, 10.0, {"tokens": 90000, "loss": 1.23456})
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
    left = other.pop(LEFT, seconds * (total - done) / done if done > 0 else None)
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
