"""The first line of a CSV file: the names of its columns."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterable
from pathlib import Path

from sequela.record.errors import InputError, nearest


def read_header(path: Path, delimiter: str) -> list[str]:
    """The column names of a CSV file, plain or gzipped (.gz)."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            return split_header(file.readline(), delimiter, str(path))
    except (OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read ({error}): copy or download it again.") from error


def split_header(line: bytes, delimiter: str, place: str) -> list[str]:
    """The names in the header `line` of the file `place`."""
    if not line.strip():
        raise InputError(f"{place} is empty: it needs a line with the names of the columns.")
    try:
        names = next(csv.reader([line.decode("utf-8-sig").rstrip("\r\n")], delimiter=delimiter))
    except UnicodeDecodeError as error:
        raise InputError(f"{place} is not UTF-8 text in its first line: convert it.") from error
    for column in names:
        if names.count(column) > 1:
            raise InputError(f"{place} has two columns named '{column}': rename one.")
    return names


def check_columns(place: object, found: list[str], needed: Iterable[str]) -> None:
    """All `needed` columns are among those `found` in the file `place`."""
    for column in needed:
        if column not in found:
            raise InputError(
                f"{place} has no column '{column}'{nearest(column, found)}; it has {', '.join(found)}: "
                "rename the column, or change its name in the mapping."
            )
