"""What a folder was made from: the `manifest.json` that every stage leaves in its folder."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from sequela.errors import InputError
from sequela.version import __version__

FILE = "manifest.json"
MADE_BY = "sequela"


def read(folder: Path) -> dict | None:
    """The manifest of `folder`, or None where the folder was not made by a stage of ours.

    Raises:
        InputError: where the manifest is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        facts = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is no JSON ({error}): delete {folder} and run its stage again.") from error
    return facts if isinstance(facts, dict) and facts.get("made_by") == MADE_BY else None


def write(folder: Path, facts: dict) -> None:
    """Write `facts` as the manifest of `folder`."""
    (folder / FILE).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n")


def describe(name: str, settings: dict, inputs: dict[str, Path], out: Path) -> dict:
    """What decides whether a stage has to run again: version, stage, settings and the hashes of its inputs.

    Paths of inputs are kept relative to `out`, so that a tree of folders can be moved as a whole.
    """
    return {
        "made_by": MADE_BY,
        "version": __version__,
        "stage": name,
        "settings": json.loads(json.dumps(settings, default=str)),
        "inputs": {
            role: {"path": os.path.relpath(path.resolve(), out.resolve()), "sha256": fingerprint(path)}
            for role, path in inputs.items()
        },
    }


def source(folder: Path, role: str) -> Path | None:
    """The folder that `folder` was made from in the given `role`, or None where it is unknown or gone."""
    facts = read(folder)
    if facts is None or role not in facts["inputs"]:
        return None
    path = Path(os.path.normpath(folder.resolve() / facts["inputs"][role]["path"]))
    return path if path.exists() else None


def fingerprint(path: Path) -> str:
    """A hash of a file, or of a folder.

    A folder made by us is known by its manifest (which is new whenever the folder is) and the sizes of its files;
    any other folder by every byte in it.

    Raises:
        InputError: where there is nothing at `path`, which is not repeated if it is a URI.
    """
    if not path.exists():
        from sequela.record.ingest.tables.database import refuse_uri

        refuse_uri(path)
        raise InputError(f"{path} does not exist: check the path, or run the stage that makes it.")
    digest = hashlib.sha256()
    if path.is_file():
        _add_file(digest, path)
        return digest.hexdigest()
    ours = read(path) is not None
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        digest.update(f"{file.relative_to(path)}\0{file.stat().st_size}\0".encode())
        if not ours or file == path / FILE:
            _add_file(digest, file)
    return digest.hexdigest()


def _add_file(digest: hashlib._Hash, path: Path) -> None:
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
