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
from contextlib import ExitStack
from pathlib import Path

from sequela.errors import InputError
from sequela.serve.folder import manifest, memory
from sequela.serve.folder.lock import BEAT, STALE, try_lock

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
        InputError: if `out` holds something else, an input is missing, or the disk is full.
    """
    _refuse_overlap(out, inputs)
    identity = manifest.describe(name, settings, inputs, out)
    done = _existing(out, name)
    if done is not None and all(done.get(key) == value for key, value in identity.items()):
        return {**done, "skipped": True}
    work = _work_folder(out, identity if resumable else None, fresh)
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
        _put_in_place(work, out)
        keep = False
    except BaseException as error:
        keep = keep and any(path.name != BEGUN for path in work.iterdir())
        if not _says_disk_full(error):
            raise
        if not keep:
            shutil.rmtree(work, ignore_errors=True)
        free = shutil.disk_usage(out.parent).free / 2**20
        do = (
            f"and run the same command again, which continues from {work}"
            if keep
            else "or choose another folder"
        )
        raise InputError(
            f"the disk is full: {out} could not be written, {free:.0f} MB are free in {out.parent}; "
            f"free some space there {do}."
        ) from error
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


def _refuse_overlap(out: Path, inputs: dict[str, Path]) -> None:
    target = out.resolve()
    for path in inputs.values():
        source = path.resolve()
        if target == source or target in source.parents or source in target.parents:
            raise InputError(
                f"the result {out} and the input {path} overlap: choose another folder for the result."
            )


def _existing(out: Path, name: str) -> dict | None:
    """The manifest of `out` where an earlier run of this stage made it; None where there is nothing."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    record = manifest.read(out) if out.is_dir() else None
    if record is None:
        raise InputError(f"{out} exists and was not made by sequela: move it away or choose another folder.")
    if record["stage"] != name:
        raise InputError(
            f"{out} holds the result of `sequela {record['stage']}`, which `sequela {name}` will not replace: "
            "choose another folder."
        )
    return record


def _work_folder(out: Path, identity: dict | None, fresh: bool) -> Path:
    """A folder next to `out` to work in; those of runs that have ended are removed.

    With an `identity`, the folder of an ended run for the same result is taken over as it is, unless `fresh`.
    """
    usable = identity is not None and not fresh
    parent = out.resolve().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        begin = f".{out.resolve().name}{UNFINISHED}"
        prefix = f"{begin}{socket.gethostname()}-"
        work = parent / f"{prefix}{os.getpid()}"
        for leftover in parent.glob(f"{prefix}*"):
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
            (work / BEGUN).write_text(json.dumps(identity))
    except OSError as error:
        raise InputError(
            f"{parent} cannot be written to ({error.strerror}): choose another folder."
        ) from error
    return work


def _take_over_from_elsewhere(parent: Path, begin: str, identity: dict | None, work: Path) -> None:
    """Rename to `work` what a run for the same result left behind on another machine, if there is any.

    Raises:
        InputError: if that run is alive, or was a moment ago.
    """
    for leftover in parent.glob(f"{begin}*"):
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
        return json.loads((folder / BEGUN).read_text())
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
    work.rename(out)
    shutil.rmtree(aside, ignore_errors=True)


def _says_disk_full(error: BaseException | None) -> bool:
    """Polars, pyarrow and safetensors wrap the operating system's error in their own, so its words count too."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if os.strerror(errno.ENOSPC).lower() in str(error).lower():
            return True
        error = error.__cause__ or error.__context__
    return False
