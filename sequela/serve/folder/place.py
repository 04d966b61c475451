"""Where a result goes: what is wrong with its path is said before any work is done."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from sequela.errors import InputError, refuse_uri
from sequela.files import broken_link, check_text, plain_errors

LONGEST = 100  # bytes of a folder's name that its hidden folders repeat: a system allows 255 for all


def checked_place(out: Path, inputs: Iterable[Path]) -> Path:
    """The folder that `out` leads to, without links, so that a link to a result stays a link.

    Raises:
        InputError: if nothing can be written there, or the result and an input overlap.
    """
    check_way(out)
    target = Path(os.path.realpath(out))
    if target.is_dir() and os.path.ismount(target):
        raise InputError(
            f"{out} is a disk of its own, and a result replaces its folder as a whole: choose a folder in it, such as "
            f"{out / 'result'}."
        )
    for path in inputs:
        source = Path(os.path.realpath(path))
        check_text(source)
        if target == source or target in source.parents or source in target.parents:
            raise InputError(
                f"the result {out} and the input {path} overlap: choose another folder for the result."
            )
    return target


def check_way(out: Path) -> None:
    """Check the path of a result as far as it is there: it leads through folders, and no link on it leads nowhere.

    Raises:
        InputError: naming the part of the path that is wrong.
    """
    refuse_uri(out)
    check_text(Path(os.path.realpath(out)))
    with plain_errors(out):
        for path in (out, *out.parents):
            if path.is_dir():
                return
            if path.is_symlink() and not path.exists():
                raise broken_link(path)
            if path.exists() and path != out:
                raise InputError(f"{out} cannot be written to: {path} is a file; choose another folder.")


def hidden_name(folder: Path) -> str:
    """How the hidden folders beside `folder` begin: with a dot and its name, or the start and a hash of a long one."""
    name = folder.name.encode()
    if len(name) <= LONGEST:
        return f".{folder.name}"
    return f".{name[: LONGEST // 2].decode(errors='ignore')}-{hashlib.sha256(name).hexdigest()[:16]}"
