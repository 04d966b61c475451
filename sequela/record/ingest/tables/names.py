"""Names of files, tables and columns, matched without regard to case: exports differ in nothing so often."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sequela.errors import InputError


def find_name(name: str, found: Iterable[str], place: object, what: str) -> str | None:
    """The one of `found` that is `name`: letter by letter, else without regard to case; None where there is none.

    Raises:
        InputError: where two would do, both called `what` ("column") in the message about `place`.
    """
    found = list(found)
    alike = [other for other in found if other == name]
    alike = alike or [other for other in found if other.casefold() == name.casefold()]
    if len(alike) > 1:
        raise InputError(
            f"{place} has two {what}s named '{alike[0]}'"
            + (f" and '{alike[1]}'" if alike[1] != alike[0] else "")
            + ": rename one."
        )
    return alike[0] if alike else None


def find_paths(folder: Path, pattern: str) -> list[Path]:
    """The files below `folder` that match a glob pattern without regard to case, in order.

    Raises:
        InputError: where two files have the same name but for case: one is a copy, and nobody knows which.
    """
    paths = sorted(path for path in folder.glob(_any_case(pattern)) if path.is_file())
    seen: dict[str, Path] = {}
    for path in paths:
        other = seen.setdefault(str(path).casefold(), path)
        if other is not path:
            raise InputError(f"{other} and {path} have the same name but for case: move one of them away.")
    return paths


def _any_case(pattern: str) -> str:
    """A glob pattern that matches what `pattern` does, in capitals and small letters."""
    made, inside = [], False
    for letter in pattern:
        if letter in "[]":
            inside = letter == "["
        both = letter.lower() + letter.upper()
        cased = len(both) == 2 and both[0] != both[1]
        made.append((both if inside else f"[{both}]") if cased else letter)
    return "".join(made)
