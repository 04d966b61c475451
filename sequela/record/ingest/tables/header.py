"""Reads the header of a CSV file and detects its delimiter and quote."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sequela.errors import InputError, nearest
from sequela.files import system_error
from sequela.record.ingest.mapping import FileTable
from sequela.record.ingest.tables.names import find_name
from sequela.record.ingest.tables.packed import open_unpacked

DELIMITERS = ",\t;|"


@dataclass(frozen=True)
class Header:
    """The first line of a CSV file.

    Attributes:
        names: of the columns, in order.
        delimiter: between two cells.
        quote: around a cell with delimiters or line ends, doubled to escape itself; "" if quotes have no meaning.
    """

    names: tuple[str, ...]
    delimiter: str
    quote: str

    def same(self, other: Header) -> bool:
        """Whether files with these headers can be read as one. Names are compared case-insensitively."""
        return self._folded() == other._folded()

    def _folded(self) -> tuple:
        return [name.casefold() for name in self.names], self.delimiter, self.quote


def read_header(path: Path, table: FileTable) -> Header:
    """The header of a CSV file of `table`, plain or gzipped (.gz).

    Raises:
        InputError: if the file is empty, damaged or not UTF-8.
    """
    try:
        with open_unpacked(path) as file:
            return split_header(file.readline(), table, str(path))
    except (OSError, EOFError, zlib.error) as error:
        raise system_error(error, path) or InputError(
            f"{path} cannot be read ({error}): copy or download it again."
        ) from error


def split_header(line: bytes, table: FileTable, place: str) -> Header:
    """The header `line` of the file `place`.

    If `table` does not set the delimiter, the one that yields the most wanted columns is used, then the one that yields
    the most columns. In tab-separated files quotes have no meaning, unless the header has some.

    Raises:
        InputError: if the line is empty, not UTF-8, or has carriage returns inside.
    """
    if not line.strip():
        raise InputError(f"{place} is empty: it needs a header line with the names of the columns.")
    try:
        text = line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{place} is not UTF-8 text in its first line: convert it, or set the table's `encoding` in the "
            "mapping (perhaps latin-1 or cp1252)."
        ) from error
    if "\r" in text:
        raise InputError(f"{place}: its lines end with a carriage return alone; convert the line ends.")
    wanted = {column.casefold() for column in table.columns}
    headers = [_split(text, delimiter, table.quote) for delimiter in table.delimiter or DELIMITERS]
    return max(
        headers,
        key=lambda header: (len(wanted.intersection(map(str.casefold, header.names))), len(header.names)),
    )


def _split(text: str, delimiter: str, quote: str | None) -> Header:
    if quote is None:
        quote = "" if delimiter == "\t" and '"' not in text else '"'
    rule = {"quotechar": quote} if quote else {"quoting": csv.QUOTE_NONE}
    try:
        names = next(csv.reader([text], delimiter=delimiter, **rule))
    except csv.Error:  # a field of over 100,000 characters, which is not a column name
        names = [text]
    return Header(tuple(names), delimiter, quote)


def match_columns(place: object, present: Sequence[str], table: FileTable) -> dict[str, str | None]:
    """The name of each column of `table` in the file `place`, out of `present`; None for an absent optional column.

    Raises:
        InputError: if a column is missing, or two match. The message lists the names in the file only if one of them is
            wanted: otherwise the first line may be a patient's row instead of a header.
    """
    names = {column: find_name(column, present, place, "column") for column in table.columns}
    for column in table.required_columns:
        if names[column] is None:
            if not any(names.values()):  # the first line may be a patient's row
                raise InputError(
                    f"{place} has no column '{column}', and none of its {len(present)} columns is wanted: give the "
                    "file a header, or change the names in the mapping."
                )
            raise InputError(
                f"{place} has no column '{column}'{nearest(column, present)}; it has {', '.join(present)}: "
                "rename the column, or change its name in the mapping."
            )
    return names
