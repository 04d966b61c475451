"""One piece of work, one process, on however many machines share a folder: who works on what is said by files.

A claim is a file that its owner touches again and again. One that nobody has touched for a while belongs to a process
that is gone, and is taken over. All times are those of the file system, so clocks need not agree.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

CLAIM = ".claim"
BEAT = 20.0  # seconds between two touches
STALE = 10  # beats without a touch after which an owner counts as gone


@contextmanager
def claimed(path: Path, beat: float = BEAT) -> Generator[bool]:
    """Whether the work that `path` stands for is ours until the end of the `with`; False: another process has it."""
    if not _taken(path, beat):
        yield False
        return
    done = threading.Event()
    beating = threading.Thread(target=_beat, args=(path, beat, done), daemon=True)
    beating.start()
    try:
        yield True
    finally:
        done.set()
        beating.join()
        path.unlink(missing_ok=True)


def agreed(path: Path, make: Callable[[], dict]) -> dict:
    """What the JSON file `path` holds; where it is not there, one of those who ask makes it, and all get the same."""
    while not path.exists():
        with claimed(path.with_name(f"{path.name}{CLAIM}")) as mine:
            if mine and not path.exists():
                new = path.with_name(f".{path.name}-new")
                new.write_text(json.dumps(make(), indent=1))
                new.rename(path)
        time.sleep(0 if mine else 0.1)
    return json.loads(path.read_text())


def _taken(path: Path, beat: float) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    ours = path.with_name(f".{path.name}-{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}")
    ours.touch()
    try:
        _remove_if_stale(path, ours, beat)
        with path.open("x") as file:
            file.write(f"{socket.gethostname()} {os.getpid()}\n")
    except FileExistsError:
        return False
    finally:
        ours.unlink()
    return True


def _remove_if_stale(path: Path, now: Path, beat: float) -> None:
    """Put an abandoned claim aside; a rename succeeds for one process only."""
    with suppress(FileNotFoundError):
        if now.stat().st_mtime - path.stat().st_mtime > STALE * beat:
            aside = now.with_name(now.name + "-stale")
            path.rename(aside)
            aside.unlink()


def _beat(path: Path, beat: float, done: threading.Event) -> None:
    while not done.wait(beat):
        with suppress(FileNotFoundError):
            os.utime(path)
