"""File locks: one process per piece of work, across machines that share a file system.

A lock is a file that its owner touches at intervals. One that has not been touched for a while belonged to a process
that died, and is taken over. All times are those of the file system, so clocks need not agree.
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

LOCK = ".lock"
BEAT = 20.0  # seconds between two touches
STALE = 10  # beats without a touch after which the owner counts as dead


@contextmanager
def try_lock(path: Path, beat: float = BEAT) -> Generator[bool]:
    """Lock the work that `path` stands for until the end of the `with`; yields False if another process has it."""
    if not _taken(path, beat):
        yield False
        return
    inode, done = path.stat().st_ino, threading.Event()
    beating = threading.Thread(target=_beat, args=(path, inode, beat, done), daemon=True)
    beating.start()
    try:
        yield True
    finally:
        done.set()
        beating.join()
        with suppress(FileNotFoundError):
            if path.stat().st_ino == inode:  # else it was taken over while this process was suspended
                path.unlink()


@contextmanager
def lock(path: Path) -> Generator[None]:
    """As `try_lock`, but wait until the work is free."""
    while True:
        with try_lock(path) as mine:
            if mine:
                yield
                return
        time.sleep(0.2)


def agreed(path: Path, make: Callable[[], dict]) -> dict:
    """What the JSON file `path` holds; if it does not exist, one of the callers makes it, and all get the same."""
    while not path.exists():
        with try_lock(path.with_name(f"{path.name}{LOCK}")) as mine:
            if mine and not path.exists():
                new = path.with_name(f".{path.name}-new")
                new.write_text(json.dumps(make(), indent=1), encoding="utf-8")
                new.rename(path)
        time.sleep(0 if mine else 0.1)
    return json.loads(path.read_text(encoding="utf-8"))


def _taken(path: Path, beat: float) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    now = path.with_name(f".{path.name}-{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}")
    now.touch()
    try:
        _remove_if_stale(path, now, beat)
        with path.open("x", encoding="utf-8") as file:
            file.write(f"{socket.gethostname()} {os.getpid()}\n")
    except FileExistsError:
        return False
    except OSError:  # a full disk: the lock is there and empty
        path.unlink(missing_ok=True)
        raise
    finally:
        now.unlink()
    return True


def _remove_if_stale(path: Path, now: Path, beat: float) -> None:
    """Remove an abandoned lock."""
    with suppress(FileNotFoundError):
        if not _stale(path, now, beat):
            return
        aside = now.with_name(now.name + "-stale")
        path.rename(aside)
        if _stale(aside, now, beat):
            aside.unlink()
        else:  # another process was faster, and this is its new lock
            aside.rename(path)


def _stale(path: Path, now: Path, beat: float) -> bool:
    return now.stat().st_mtime - path.stat().st_mtime > STALE * beat


def _beat(path: Path, inode: int, beat: float, done: threading.Event) -> None:
    while not done.wait(beat):
        with suppress(FileNotFoundError):
            if path.stat().st_ino == inode:
                os.utime(path)
