"""Raw files plain and packed (.gz): which are the same, and how their lines end."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path
from typing import IO

from sequela.errors import InputError
from sequela.files import system_error

PACKED = ".gz"
BLOCK = 1 << 20  # bytes read at once


def is_packed(path: Path) -> bool:
    """Whether a file is gzipped, by its name."""
    return path.suffix.lower() == PACKED


def open_unpacked(path: Path) -> IO[bytes]:
    """Open a file, gzipped or not, to read the bytes that were packed."""
    return gzip.open(path, "rb") if is_packed(path) else path.open("rb")  # ty: ignore[invalid-return-type]


def packings(pattern: str) -> tuple[str, ...]:
    """A pattern for files as they are and gzipped, because parts of a table may be both; Parquet is never gzipped.

    >>> packings("labs_*.csv.gz")
    ('labs_*.csv', 'labs_*.csv.gz')
    """
    plain = _plain(pattern)
    return (plain,) if plain.lower().endswith(".parquet") else (plain, plain + PACKED)


def each_once(paths: Iterable[Path]) -> list[Path]:
    """The files, sorted; of one that lies there both plain and packed, the one that comes first.

    Raises:
        InputError: if two files whose names differ in .gz only have another content.
    """
    kept: dict[str, Path] = {}
    for path in paths:
        other = kept.setdefault(_plain(str(path)), path)
        if other != path and not _same(other, path):
            raise InputError(
                f"{other} and {path} differ, and one should be the other, packed: move the wrong one away."
            )
    return sorted(kept.values())


def has_mixed_line_ends(path: Path) -> bool:
    """Whether the lines of a file end in more than one of LF, CRLF and CR; an end inside quotes counts too."""
    counted = dict.fromkeys((b"\r\n", b"\n", b"\r"), 0)
    with open_unpacked(path) as file:
        rest = b""
        while block := file.read(BLOCK):
            block = rest + block
            rest = b"\r" if block.endswith(b"\r") else b""
            for end in counted:
                counted[end] += block.removesuffix(rest).count(end)
        counted[b"\r"] += len(rest)
    lone = [counted[end] - counted[b"\r\n"] for end in (b"\n", b"\r")]
    return sum(count > 0 for count in (*lone, counted[b"\r\n"])) > 1


def _plain(name: str) -> str:
    return name[: -len(PACKED)] if name.lower().endswith(PACKED) else name


def _same(first: Path, second: Path) -> bool:
    """Whether two files hold the same bytes when unpacked."""
    try:
        with open_unpacked(first) as one, open_unpacked(second) as other:
            blocks = (iter(lambda file=file: file.read(BLOCK), b"") for file in (one, other))
            return all(a == b for a, b in zip_longest(*blocks))
    except (OSError, EOFError, zlib.error) as error:
        raise system_error(error, first) or InputError(
            f"{first} or {second} cannot be read ({error}): copy or download it again."
        ) from error
