"""What a folder was made from: the `manifest.json` in every stage's folder.

It holds `made_by` ("sequela"), `version`, `stage`, `settings`, `inputs` (by role: `path`, relative to the folder, and
`sha256`), `seconds`, `peak_rss_mb`, and `result`: what the stage counted. A folder is up to date while the version, the
settings and the hashes of the inputs are those of its manifest.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from sequela.errors import InputError, refuse_uri
from sequela.files import broken_link, files_below, plain_errors
from sequela.version import __version__

FILE = "manifest.json"
MADE_BY = "sequela"
RENAMED = {"optimiser": "optimizer", "backend": "engine"}  # settings of folders made by earlier versions


def read(folder: Path) -> dict | None:
    """The manifest of `folder`; None if no stage of ours made the folder.

    Raises:
        InputError: if the manifest is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}): delete {folder} and run its stage again.") from error
    if not isinstance(record, dict) or record.get("made_by") != MADE_BY:
        return None
    record["settings"] = {RENAMED.get(name, name): value for name, value in record["settings"].items()}
    return record


def write(folder: Path, record: dict) -> None:
    """Write `record` as the manifest of `folder`."""
    (folder / FILE).write_text(
        json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", errors="backslashreplace"
    )


def describe(name: str, settings: dict, inputs: dict[str, Path], out: Path) -> dict:
    """What decides whether a stage must run again: version, stage, settings and the hashes of its inputs.

    Paths of inputs are stored relative to `out`, so that a tree of folders can be moved as a whole.
    """
    return {
        "made_by": MADE_BY,
        "version": __version__,
        "stage": name,
        "settings": json.loads(json.dumps(settings, default=str)),
        "inputs": {
            role: {
                "path": os.path.relpath(os.path.realpath(path), os.path.realpath(out)),
                "sha256": fingerprint(path),
            }
            for role, path in inputs.items()
        },
    }


def source(folder: Path, role: str) -> Path | None:
    """The folder that `folder` was made from in the given `role`; None if it is unknown or gone."""
    record = read(folder)
    if record is None or role not in record["inputs"]:
        return None
    path = Path(os.path.normpath(folder.resolve() / record["inputs"][role]["path"]))
    return path if path.exists() else None


def roles(role: str, count: int) -> list[str]:
    """The roles of several inputs of one kind.

    >>> roles("predictions", 3)
    ['predictions', 'predictions_2', 'predictions_3']
    """
    return [role if number == 1 else f"{role}_{number}" for number in range(1, count + 1)]


def sources(folder: Path, role: str) -> list[Path]:
    """The folders that `folder` was made from in the `roles` of that name; without those that are unknown or gone."""
    inputs = (read(folder) or {"inputs": {}})["inputs"]
    known = (source(folder, name) for name in roles(role, len(inputs)))
    return [path for path in known if path is not None]


def fingerprint(path: Path) -> str:
    """A hash of a file, or of a folder.

    A folder of ours is identified by its manifest, which is new whenever the folder is, the sizes of its files, and
    whatever lies behind links in it; any other folder by every byte of the files in it that count
    (`sequela.files.counts`).

    Raises:
        InputError: if there is nothing at `path`, or something in it cannot be read; a URI, which may hold a password,
            is not repeated.
    """
    if not path.exists():
        refuse_uri(path)
        if path.is_symlink():
            raise broken_link(path)
        raise InputError(f"{path} does not exist: check the path, or run the stage that makes it.")
    digest = hashlib.sha256()
    if path.is_file():
        _add_file(digest, path)
        return digest.hexdigest()
    ours = read(path) is not None
    top = Path(os.path.realpath(path))
    for file in files_below(path, broken_links=True):
        name = file.relative_to(path)
        if not file.exists():
            digest.update(os.fsencode(f"{name}\0->{file.readlink()}\0"))
            continue
        digest.update(os.fsencode(f"{name}\0{file.stat().st_size}\0"))
        # What lies behind a link can change while the manifest stays
        if not ours or file == path / FILE or Path(os.path.realpath(file)) != top / name:
            _add_file(digest, file)
    return digest.hexdigest()


def _add_file(digest: hashlib._Hash, path: Path) -> None:
    with plain_errors(path), path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
