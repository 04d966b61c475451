"""Ctrl-C, SIGTERM and SIGHUP end a command well: what it began is cleaned up or kept, and a sentence says so.

The first of them raises KeyboardInterrupt in the main thread. A later one kills at once, even where the main thread is
inside a library that does not look for signals. Training has a handler of its own (`sequela.training.shutdown`).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from threading import Thread, current_thread, main_thread
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SAME = 1.0  # seconds in which a signal is sent more than once: `timeout` and job schedulers do
KILLED = 128  # plus the number of the signal: the exit code of a command that it ended


class Stopped(KeyboardInterrupt):
    """A command is to end.

    A class of its own: where a KeyboardInterrupt itself passes through `exec`, as in the making of every dataclass,
    `python -m` remembers it and ends by SIGINT, although it was caught.
    """


class Stop:
    """Which signal came first, as its handler: a library in the middle of its import may turn it into another error."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if not self.number:
            self.number = number
            raise Stopped


@contextmanager
def heeding() -> Generator[Stop]:
    """Heed the signals inside the block. Only the main thread can; in any other they keep their meaning."""
    stop = Stop()
    if current_thread() is not main_thread():
        yield stop
        return
    # A signal that is ignored, as SIGHUP under nohup, stays so
    heeded = [n for n in SIGNALS if n == signal.SIGINT or signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heeded}
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    Thread(target=_kill_at_the_second, args=(reader, stop), daemon=True).start()
    try:
        yield stop
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writer)


def _kill_at_the_second(reader: int, stop: Stop) -> None:
    """Exit when a further signal arrives; `reader` has a byte for each, and ends when nobody heeds them any more."""
    first = None
    while numbers := os.read(reader, 64):
        for number in numbers:
            now = time.monotonic()
            if signal.getsignal(number) is not stop:
                continue
            if first is not None and now - first > SAME:
                os._exit(KILLED + number)
            first = now if first is None else first
    os.close(reader)
