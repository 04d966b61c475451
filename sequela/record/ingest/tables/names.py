"""Case-insensitive names of files, tables and columns, because case is what exports most often differ in."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sequela.errors import InputError


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
    """The files below `folder` that match a glob pattern case-insensitively, sorted.

    Raises:
        InputError: if two file names differ only in case: one may be a copy, and we cannot know which.
    """
    paths = sorted(path for path in folder.glob(_any_case(pattern)) if path.is_file())
    seen: dict[str, Path] = {}
    for path in paths:
        other = seen.setdefault(str(path).casefold(), path)
        if other is not path:
            raise InputError(f"{other} and {path} have names that differ only in case: move one of them away.")
    return paths


def _any_case(pattern: str) -> str:
    """The glob pattern `pattern`, made case-insensitive."""
    made, inside = [], False
    for letter in pattern:
        if letter in "[]":
            inside = letter == "["
        both = letter.lower() + letter.upper()
        cased = len(both) == 2 and both[0] != both[1]
        made.append((both if inside else f"[{both}]") if cased else letter)
    return "".join(made)
