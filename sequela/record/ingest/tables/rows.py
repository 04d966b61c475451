"""What the readers of files and of databases hand over."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RawRows:
    """The rows of one raw table, which are there to be read once.

    Attributes:
        places: the files below the raw folder, or the table of the database ("SCHEMA.TABLE").
        sql: a query that gives the mapping's columns, and `_file`, the place of each row.
        typed: whether columns may have types of their own; else every cell is text.
    """

    places: tuple[str, ...]
    sql: str
    typed: bool = False
