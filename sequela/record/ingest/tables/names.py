"""Case-insensitive names of files, tables and columns, because case is what exports most often differ in."""

from __future__ import annotations

import fnmatch
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sequela.errors import InputError
from sequela.files import broken_link, check_text, entries


def find_name(name: str, present: Iterable[str], place: object, what: str) -> str | None:
    """The name in `present` that equals `name`, exactly or else case-insensitively; None if there is none.

    Raises:
        InputError: if two match; the message about `place` calls them `what` ("column").
    """
    present = list(present)
    alike = [other for other in present if other == name]
    alike = alike or [other for other in present if other.casefold() == name.casefold()]
    if len(alike) > 1:
        raise InputError(
            f"{place} has two {what}s named '{alike[0]}'"
            + (f" and '{alike[1]}'" if alike[1] != alike[0] else "")
            + ": rename one."
        )
    return alike[0] if alike else None


def find_paths(folder: Path, pattern: str) -> list[Path]:
    """The files below `folder` that match a glob pattern case-insensitively, sorted; links are followed.

    A file that several links lead to is listed once. Which files count says `sequela.files.counts`.

    Raises:
        InputError: if two file names differ only in case: one may be a copy, and we cannot know which; if a folder
            cannot be read, or a link leads nowhere.
    """
    if pattern.startswith("/"):
        raise InputError(
            f"the pattern '{pattern}' is an absolute path: give it relative to the folder {folder}."
        )
    matching = _matching(folder, pattern.split("/"), (os.path.realpath(folder),))
    every = {path: os.path.realpath(path) for path in matching}
    once: dict[str, Path] = {}
    for path in sorted(every, key=lambda path: (every[path] != str(path.absolute()), path)):
        check_text(path)
        once.setdefault(every[path], path)  # under its own name, not that of a link
    paths = sorted(once.values())
    seen: dict[str, Path] = {}
    for path in paths:
        other = seen.setdefault(str(path).casefold(), path)
        if other is not path:
            raise InputError(
                f"{other} and {path} have names that differ only in case: move one of them away."
            )
    return paths


def _matching(folder: Path, parts: Sequence[str], above: tuple[str, ...]) -> Iterator[Path]:
    """The files that match the pattern's `parts`; `above` are the real paths of the folders that led here."""
    part, rest = parts[0], parts[1:]
    if part in ("", ".", ".."):
        if rest:
            yield from _matching(folder / part, rest, above)
        return
    if part == "**":
        yield from _matching(folder, rest or ["*"], above)
    for name, kind in _fitting(folder, part):
        path = folder / name
        if kind == "broken":
            raise broken_link(path)
        if kind == "file" and not rest and part != "**":
            yield path
        elif kind == "folder" and (rest or part == "**") and os.path.realpath(path) not in above:
            yield from _matching(path, parts if part == "**" else rest, (*above, os.path.realpath(path)))


def _fitting(folder: Path, part: str) -> list[tuple[str, str]]:
    """What lies in `folder` and fits one part of a pattern; "labs[1].csv" is a name first, and a pattern second."""
    listed = entries(folder, hidden=part.startswith("."))
    if part == "**":
        return [entry for entry in listed if entry[1] == "folder"]
    name = _folded(part)
    named = [entry for entry in listed if _folded(entry[0]) == name]
    if named and "*" not in part:
        return named
    fits = re.compile(fnmatch.translate(name))
    return [entry for entry in listed if fits.match(_folded(entry[0]))]


def _folded(name: str) -> str:
    """One spelling for all cases, and for letters with marks that one system writes as one sign, another as two."""
    return unicodedata.normalize("NFC", name).casefold()
