"""Graceful shutdown on SIGTERM."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):
    """A run was asked to stop and did, after saving everything that the next one needs.

    The message is one sentence; the command line prints it and exits with 0.
    """


class Shutdown:
    """Whether this process was asked to stop; also the signal handler."""

    def __init__(self) -> None:
        self.requested = False
        self._deferred = False

    @contextmanager
    def deferred(self) -> Generator[None]:
        """Inside the block SIGTERM only sets `requested`, for code that stops at a good moment; elsewhere it raises."""
        before, self._deferred = self._deferred, True
        try:
            yield
        finally:
            self._deferred = before

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Handle the signal."""
        self.requested = True
        if not self._deferred:
            raise Interrupted("stopped; run the same command again to continue.")


@contextmanager
def stopping() -> Generator[Shutdown]:
    """Handle SIGTERM inside the block. Only the main thread can; in any other the signal keeps its meaning."""
    shutdown = Shutdown()
    if threading.current_thread() is not threading.main_thread():
        yield shutdown
        return
    before = signal.signal(signal.SIGTERM, shutdown)
    try:
        yield shutdown
    finally:
        signal.signal(signal.SIGTERM, before)
