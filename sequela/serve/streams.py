"""Standard input, output and error as they happen to be: closed, full, cut off, or on a terminal of two columns."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

STREAMS = ("stdin", "stdout", "stderr")
COLUMNS = "COLUMNS"
NARROW, WIDE = 20, 1000  # what tables and help can be laid out in


class OutputLost(OSError):
    """What a command prints could not be written."""


class ReaderGone(Exception):
    """Who reads what a command prints, such as head, has seen enough."""


class _Guarded:
    """A stream that is given up once it cannot be written.

    With `secondary` in silence: what is said there must not stop the work.
    """

    def __init__(self, stream: Any, secondary: bool) -> None:
        self._stream, self._secondary = stream, secondary

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, as a stream does."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Flush, as a stream does."""
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        with suppress(OSError):  # what is still buffered goes nowhere when Python ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        if self._secondary:
            return
        if isinstance(error, BrokenPipeError):
            raise ReaderGone from error
        raise OutputLost(*error.args) from error


@contextmanager
def guarded() -> Generator[None]:
    """Inside the block, streams that are closed or cannot be written do no harm, and the terminal has a sane width."""
    _open_closed()
    _mend_width()
    before = sys.stdout, sys.stderr
    for stream in before:
        if isinstance(stream, io.TextIOWrapper):  # what a terminal or a text cannot hold becomes a question mark
            stream.reconfigure(errors="replace")
    sys.stdout, sys.stderr = _Guarded(sys.stdout, False), _Guarded(sys.stderr, True)  # ty: ignore
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _open_closed() -> None:
    """Open what is closed onto nothing; otherwise the next file that is opened takes its place, and its text."""
    for number, name in enumerate(STREAMS):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def _mend_width() -> None:
    """Where the terminal or its variable has a width that nothing can be laid out in, set one that fits."""
    with suppress(ValueError):
        if NARROW <= int(os.environ.get(COLUMNS, NARROW)) <= WIDE and COLUMNS in os.environ:
            return
    given = os.environ.pop(COLUMNS, "")
    with suppress(OSError, ValueError, AttributeError):
        columns = int(given or 0) or os.get_terminal_size(sys.__stdout__.fileno()).columns
        if columns > 0 and not NARROW <= columns <= WIDE:
            os.environ[COLUMNS] = str(min(max(columns, NARROW), WIDE))
