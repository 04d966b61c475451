"""The first line of a CSV file: the names of its columns, and what stands between them."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sequela.errors import InputError, nearest
from sequela.record.ingest.mapping import FileTable
from sequela.record.ingest.tables.names import find_name

DELIMITERS = ",\t;|"


@dataclass(frozen=True)
class Header:
    """The first line of a CSV file.

    Attributes:
        names: of the columns, in order.
        delimiter: between two cells.
        quote: around a cell that holds delimiters or ends of lines, written twice for itself; "" where quotes are
            characters like others.
    """

    names: tuple[str, ...]
    delimiter: str
    quote: str

    def same(self, other: Header) -> bool:
        """Whether what stands below the two can be read as one file. Names match without regard to case."""
        return self._folded() == other._folded()

    def _folded(self) -> tuple:
        return [name.casefold() for name in self.names], self.delimiter, self.quote


def read_header(path: Path, table: FileTable) -> Header:
    """The header of a CSV file of `table`, plain or gzipped (.gz).

    Raises:
        InputError: where the file is empty, damaged or no UTF-8.
    """
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as file:
            return split_header(file.readline(), table, str(path))
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read ({error}): copy or download it again.") from error


def split_header(line: bytes, table: FileTable, place: str) -> Header:
    """The header `line` of the file `place`.

    Where `table` does not say the delimiter, it is the one that yields most of the columns that are wanted, and of
    several the one that yields most columns. Quotes mean nothing between tabs, unless the header has some.

    Raises:
        InputError: where the line is empty, no UTF-8, or not the only one.
    """
    if not line.strip():
        raise InputError(f"{place} is empty: it needs a line with the names of the columns.")
    try:
        text = line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{place} is not UTF-8 text in its first line: convert it, or say its `encoding` for the table in the "
            "mapping (latin-1 or cp1252, perhaps)."
        ) from error
    if "\r" in text:
        raise InputError(f"{place}: its lines end with a carriage return alone; convert the ends of lines.")
    wanted = {column.casefold() for column in table.columns}
    found = [_split(text, delimiter, table.quote) for delimiter in table.delimiter or DELIMITERS]
    return max(
        found, key=lambda one: (len(wanted.intersection(map(str.casefold, one.names))), len(one.names))
    )


def _split(text: str, delimiter: str, quote: str | None) -> Header:
    if quote is None:
        quote = "" if delimiter == "\t" and '"' not in text else '"'
    rule = {"quotechar": quote} if quote else {"quoting": csv.QUOTE_NONE}
    try:
        names = next(csv.reader([text], delimiter=delimiter, **rule))
    except csv.Error:  # a field of over a hundred thousand characters: no name of a column
        names = [text]
    return Header(tuple(names), delimiter, quote)


def match_columns(place: object, found: Sequence[str], table: FileTable) -> dict[str, str | None]:
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
