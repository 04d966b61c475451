"""How a run is asked to end (SIGTERM, as schedulers send it), and how it says that it did."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):
    """The run was asked to end and did, with everything saved that the next one needs.

    The message is one sentence; the command line prints it and exits with 0.
    """


class Shutdown:
    """Whether this process was asked to end."""

    def __init__(self) -> None:
        self.asked = False
        self._held = False

    @contextmanager
    def held(self) -> Generator[None]:
        """Inside the block SIGTERM only sets `asked`, for code that ends at a good moment; elsewhere it raises."""
        before, self._held = self._held, True
        try:
            yield
        finally:
            self._held = before

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """The signal's handler."""
        self.asked = True
        if not self._held:
            raise Interrupted("stopped; run the same command again to go on.")


@contextmanager
def stopping() -> Generator[Shutdown]:
    """Heed SIGTERM inside the block. In a thread that cannot (any but the main one) the signal keeps its meaning."""
    stop = Shutdown()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
