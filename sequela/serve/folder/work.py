"""The folder that a stage writes, which is there whole or not at all.

The work happens in a hidden folder beside the result and is renamed at the end. An error or Ctrl-C removes that
folder, unless the stage can go on from it; what a killed run left behind is removed, or taken over, by the next one,
which may run on another machine that shares the folder.
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
from sequela.serve.folder.lock import BEAT, STALE, claimed

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
        settings: everything that changes the result besides the inputs; plain values.
        inputs: the files and folders that the stage reads, by role.
        make: gets the folder to write into and returns facts worth keeping (counts).
        resumable: what a run leaves behind that was cut short is handed to the next run for the same result.
        fresh: begin anew nevertheless.

    Returns:
        The manifest: version, stage, settings, inputs with hashes, seconds, peak_rss_mb and the facts in "result";
        and "skipped", whether there was nothing to do.

    Raises:
        InputError: where `out` holds something else, an input is missing, or the disk is full.
    """
    _refuse_overlap(out, inputs)
    identity = manifest.describe(name, settings, inputs, out)
    done = _existing(out, name)
    if done is not None and all(done.get(key) == value for key, value in identity.items()):
        return {**done, "skipped": True}
    work = _work_folder(out, identity if resumable else None, fresh)
    keep, held = resumable, ExitStack()
    try:
        if resumable:
            held.enter_context(claimed(_sign(work)))
        memory.reset_peak()
        start = time.perf_counter()
        result = make(work)
        spent = {"seconds": round(time.perf_counter() - start, 2), "peak_rss_mb": round(memory.peak_mb())}
        facts = {**identity, **spent, "result": result}
        manifest.write(work, facts)
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
            f"and run the same command again, which goes on from {work}"
            if keep
            else "or choose another folder"
        )
        raise InputError(
            f"the disk is full: {out} could not be written, {free:.0f} MB are free in {out.parent}; "
            f"make room there {do}."
        ) from error
    finally:
        if not keep:
            shutil.rmtree(work, ignore_errors=True)
        held.close()
    return {**facts, "skipped": False}


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file so that `target` is at every moment the old one or the new one."""
    unfinished = target.with_name(f".{target.name}{UNFINISHED}")
    shutil.copyfile(source, unfinished)
    unfinished.replace(target)


def _refuse_overlap(out: Path, inputs: dict[str, Path]) -> None:
    target = out.resolve()
    for path in inputs.values():
        own = path.resolve()
        if target == own or target in own.parents or own in target.parents:
            raise InputError(
                f"the result {out} and the input {path} overlap: choose another folder for the result."
            )


def _existing(out: Path, name: str) -> dict | None:
    """The manifest of `out` where an earlier run of this stage made it; None where there is nothing."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    facts = manifest.read(out) if out.is_dir() else None
    if facts is None:
        raise InputError(f"{out} exists and was not made by sequela: move it away or choose another folder.")
    if facts["stage"] != name:
        raise InputError(
            f"{out} holds the result of `sequela {facts['stage']}`, which `sequela {name}` will not replace: "
            "choose another folder."
        )
    return facts


def _work_folder(out: Path, identity: dict | None, fresh: bool) -> Path:
    """A folder beside `out` to work in, after removing those of runs that have ended.

    With an `identity`, the folder of an ended run for the same result is taken over as it is, if not to be `fresh`.
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
    """Make `work` what a run for the same result left behind on another machine, where there is such a run.

    Raises:
        InputError: where that run is alive, or was a moment ago.
    """
    for leftover in parent.glob(f"{begin}*"):
        if not leftover.is_dir() or _begun(leftover) != identity:
            continue
        with claimed(_sign(leftover)) as ended:
            if ended:
                leftover.rename(work)
                return
        raise InputError(
            f"another process works on the same result in {leftover}, or did so a moment ago: wait for it, or run this "
            f"again {math.ceil(BEAT * STALE / 60)} minutes after it ended."
        )


def _sign(work: Path) -> Path:
    """The file that says that somebody is at work in a folder which others may go on from."""
    return work.with_name(work.name + ALIVE)


def _begun(folder: Path) -> dict | None:
    """What a run that was cut short was making in `folder`."""
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
    """Rename `work` to `out`; a previous result steps aside first, so that no moment has half of each."""
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
