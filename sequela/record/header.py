"""The first line of a CSV file: the names of its columns."""

from __future__ import annotations

import csv
import gzip
import zlib
from pathlib import Path

from sequela.record.errors import InputError, nearest
from sequela.record.mapping import FileTable
from sequela.record.names import find_name


def read_header(path: Path, delimiter: str) -> list[str]:
    """The column names of a CSV file, plain or gzipped (.gz)."""
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as file:
            return split_header(file.readline(), delimiter, str(path))
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read ({error}): copy or download it again.") from error


def split_header(line: bytes, delimiter: str, place: str) -> list[str]:
    """The names in the header `line` of the file `place`."""
    if not line.strip():
        raise InputError(f"{place} is empty: it needs a line with the names of the columns.")
    try:
        return next(csv.reader([line.decode("utf-8-sig").rstrip("\r\n")], delimiter=delimiter))
    except UnicodeDecodeError as error:
        raise InputError(
            f"{place} is not UTF-8 text in its first line: convert it, or say its `encoding` for the table in the "
            "mapping (latin-1 or cp1252, perhaps)."
        ) from error


def match_columns(place: object, found: list[str], table: FileTable) -> dict[str, str | None]:
    """What each column of `table` is called in the file `place`; None for an optional one that is not there.

    Raises:
        InputError: where a column is missing, or two would do. The names in the file are told only where one of them
            is wanted: else its first line may be no header, but a patient's row.
    """
    names = {column: find_name(column, found, place, "column") for column in table.columns}
    for column in table.required_columns:
        if names[column] is None:
            if not any(names.values()):  # what stands there may be a patient's row
                raise InputError(
                    f"{place} has no column '{column}', and none of its {len(found)} columns is wanted: give the "
                    "file a header, or change the names in the mapping."
                )
            raise InputError(
                f"{place} has no column '{column}'{nearest(column, found)}; it has {', '.join(found)}: "
                "rename the column, or change its name in the mapping."
            )
    return names
