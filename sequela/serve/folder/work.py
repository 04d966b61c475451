"""The folder that a stage writes, which is there whole or not at all.

The work happens in a hidden folder next to the result, which is renamed at the end. An error or Ctrl-C removes that
folder unless the stage can resume from it. What a killed run left behind is removed or taken over by the next run, even
one on another machine that shares the folder.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from sequela.errors import InputError
from sequela.files import FULL, system_code
from sequela.serve.folder import manifest, memory
from sequela.serve.folder.lock import BEAT, STALE, try_lock
from sequela.serve.folder.place import checked_place, hidden_name

UNFINISHED = ".unfinished-"
REPLACED = "-replaced"
BEGUN = "begun.json"
ALIVE = ".alive"
Make = Callable[[Path], dict]


def make_folder(
    out: Path,
    name: str,
    settings: dict,
    inputs: dict[str, Path],
    make: Make,
    *,
    resumable: bool = False,
    fresh: bool = False,
) -> dict:
    """Let `make` fill the folder `out`, unless `out` was already made from the same inputs and settings.

    Args:
        out: the folder to write. One that this stage made before is replaced.
        name: the stage's name, as on the command line.
        settings: everything besides the inputs that changes the result; plain values.
        inputs: the files and folders that the stage reads, by role.
        make: gets the folder to write into, and returns what is worth keeping in the manifest, such as counts.
        resumable: hand what an interrupted run left behind to the next run for the same result.
        fresh: start over nevertheless.

    Returns:
        The manifest (version, stage, settings, inputs with hashes, seconds, peak_rss_mb, and what `make` returned as
        "result"), and "skipped": whether there was nothing to do.

    Raises:
        InputError: if `out` holds something else or cannot be written, an input is missing, or the disk is full.
    """
    target = checked_place(out, inputs.values())
    done = _existing(target, name, out)
    identity = manifest.describe(name, settings, inputs, target)
    if done is not None and all(done.get(key) == value for key, value in identity.items()):
        return {**done, "skipped": True}
    work = _work_folder(target, identity if resumable else None, fresh)
    keep, locks = resumable, ExitStack()
    try:
        if resumable:
            locks.enter_context(try_lock(_sign(work)))
        memory.reset_peak()
        start = time.perf_counter()
        result = make(work)
        cost = {"seconds": round(time.perf_counter() - start, 2), "peak_rss_mb": round(memory.peak_mb())}
        record = {**identity, **cost, "result": result}
        manifest.write(work, record)
        (work / BEGUN).unlink(missing_ok=True)
        _put_in_place(work, target)
        keep = False
    except BaseException as error:
        if isinstance(error, Exception) and not isinstance(error, InputError) and not work.exists():
            raise InputError(f"{work}, where {out} was being made, was deleted meanwhile: run this again.") from error
        keep = keep and any(path.name != BEGUN for path in work.iterdir())
        if not keep:
            shutil.rmtree(work, ignore_errors=True)
        full = _disk_full(error, out, target.parent, work if keep else None)
        if full is None:
            raise
        raise full from error
    finally:
        if not keep:
            shutil.rmtree(work, ignore_errors=True)
        locks.close()
    return {**record, "skipped": False}


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file so that `target` is at every moment the old one or the new one."""
    unfinished = target.with_name(f".{target.name}{UNFINISHED}")
    shutil.copyfile(source, unfinished)
    unfinished.replace(target)


def _existing(target: Path, name: str, out: Path) -> dict | None:
    """The manifest of `target` where an earlier run of this stage made it; None where there is nothing."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return None
    record = manifest.read(target) if target.is_dir() else None
    if record is None:
        raise InputError(f"{out} exists and was not made by sequela: move it away or choose another folder.")
    if record["stage"] != name:
        raise InputError(
            f"{out} holds the result of `sequela {record['stage']}`, which `sequela {name}` will not replace: "
            "choose another folder."
        )
    return record


def _work_folder(target: Path, identity: dict | None, fresh: bool) -> Path:
    """A folder next to `target` to work in; those of runs that have ended are removed.

    With an `identity`, the folder of an ended run for the same result is taken over as it is, unless `fresh`.
    """
    usable = identity is not None and not fresh
    parent, begin = target.parent, f"{hidden_name(target)}{UNFINISHED}"
    prefix = f"{begin}{socket.gethostname()}-"
    work = parent / f"{prefix}{os.getpid()}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for leftover in _beside(parent, prefix):
            owner = leftover.name.removeprefix(prefix).removesuffix(REPLACED)
            if not owner.isdigit() or (int(owner) != os.getpid() and _alive(int(owner))):
                continue
            if usable and _begun(leftover) == identity and not _is_other(work, leftover):
                leftover.rename(work)
            else:
                shutil.rmtree(leftover)
            _sign(leftover).unlink(missing_ok=True)
        if usable and not work.exists():
            _take_over_from_elsewhere(parent, begin, identity, work)
        work.mkdir(exist_ok=True)
        if identity is not None:
            (work / BEGUN).write_text(json.dumps(identity), encoding="utf-8")
    except OSError as error:
        with suppress(OSError):
            if all(path.name == BEGUN for path in work.iterdir()):
                shutil.rmtree(work)
        raise InputError(
            f"{parent} cannot be written to ({error.strerror}): choose another folder."
        ) from error
    return work


def _beside(parent: Path, beginning: str) -> list[Path]:
    """The folders and files in `parent` whose names begin so; none where it may not be listed."""
    with suppress(PermissionError):
        return [path for path in parent.iterdir() if path.name.startswith(beginning)]
    return []


def _take_over_from_elsewhere(parent: Path, begin: str, identity: dict | None, work: Path) -> None:
    """Rename to `work` what a run for the same result left behind on another machine, if there is any.

    Raises:
        InputError: if that run is alive, or was a moment ago.
    """
    for leftover in _beside(parent, begin):
        if not leftover.is_dir() or _begun(leftover) != identity:
            continue
        with try_lock(_sign(leftover)) as ended:
            if ended:
                leftover.rename(work)
                return
        raise InputError(
            f"another process is working on the same result in {leftover}, or did so a moment ago: wait for it, or run "
            f"this again {math.ceil(BEAT * STALE / 60)} minutes after it ended."
        )


def _sign(work: Path) -> Path:
    """The lock of a work folder from which others may resume."""
    return work.with_name(work.name + ALIVE)


def _begun(folder: Path) -> dict | None:
    """What an interrupted run was making in `folder`."""
    try:
        return json.loads((folder / BEGUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _is_other(work: Path, leftover: Path) -> bool:
    return work.exists() and work != leftover


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _put_in_place(work: Path, out: Path) -> None:
    """Rename `work` to `out`; a previous result is moved aside first, so that nothing is ever a mix of both."""
    aside = work.with_name(work.name + REPLACED)
    if out.exists():
        out.rename(aside)
    try:
        work.rename(out)
    except OSError:
        if aside.exists():
            aside.rename(out)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _disk_full(error: BaseException, out: Path, parent: Path, kept: Path | None) -> InputError | None:
    """The sentence for an error of a full disk, however a library words it; None for any other error."""
    code = system_code(error)
    if code not in FULL:
        return None
    free = shutil.disk_usage(parent).free / 2**20
    why = {
        errno.ENOSPC: f"the disk is full: {out} could not be written, {free:.0f} MB are free in {parent}; "
        "free some space there",
        errno.EDQUOT: f"this user's quota is used up: {out} could not be written; free some space in {parent}",
        errno.EFBIG: f"{out} could not be written, because one of its files would be larger than the system allows; "
        "raise the limit (`ulimit -f`)",
    }[code]
    do = "or choose another folder"
    if kept is not None:
        do = f"and run the same command again, which continues from {kept}"
    return InputError(f"{why} {do}.")
