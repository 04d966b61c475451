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
    own, done = path.stat().st_ino, threading.Event()
    beating = threading.Thread(target=_beat, args=(path, own, beat, done), daemon=True)
    beating.start()
    try:
        yield True
    finally:
        done.set()
        beating.join()
        with suppress(FileNotFoundError):
            if path.stat().st_ino == own:  # else it was taken over while this process slept
                path.unlink()


@contextmanager
def held(path: Path) -> Generator[None]:
    """As `claimed`, but waits until the work is ours."""
    while True:
        with claimed(path) as mine:
            if mine:
                yield
                return
        time.sleep(0.2)


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
    """Take an abandoned claim away."""
    with suppress(FileNotFoundError):
        if not _stale(path, now, beat):
            return
        aside = now.with_name(now.name + "-stale")
        path.rename(aside)
        if _stale(aside, now, beat):
            aside.unlink()
        else:  # another process was faster, and this is the claim that it made
            aside.rename(path)


def _stale(path: Path, now: Path, beat: float) -> bool:
    return now.stat().st_mtime - path.stat().st_mtime > STALE * beat


def _beat(path: Path, own: int, beat: float, done: threading.Event) -> None:
    while not done.wait(beat):
        with suppress(FileNotFoundError):
            if path.stat().st_ino == own:
                os.utime(path)
