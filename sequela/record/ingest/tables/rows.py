"""The rows of one raw table, from a file or a database."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RawRows:
    """The rows of one raw table; they can be read once.

    Attributes:
        places: the files below the raw folder, or the table of the database ("SCHEMA.TABLE").
        sql: a query for the mapping's columns and `_file`, the place of each row.
        typed: whether columns may have types of their own; otherwise every cell is text.
    """

    places: tuple[str, ...]
    sql: str
    typed: bool = False
