"""Quotes names and values for SQL, and runs the SQL of a mapping."""

from __future__ import annotations

import hashlib
import math
import re
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import duckdb

from sequela.errors import InputError

# What DuckDB takes for a pattern, a home folder, or cannot repeat in a message: it has no way to quote them
SPECIAL = re.compile(r"[*?\[\]\\\x00-\x1f]|^~")


def quoted(name: str) -> str:
    """`name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: object) -> str:
    """`value` (a string, number, boolean or None) as an SQL literal."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, float) and not math.isfinite(value):
        return f"'{value}'::DOUBLE"
    return "NULL" if value is None else str(value)


def paths_for_duckdb(paths: Iterable[Path]) -> str:
    """A list of files as SQL; a path that DuckDB would take for a pattern is reached through a link (`plain_path`)."""
    return "[" + ", ".join(literal(str(plain_path(path))) for path in paths) + "]"


def plain_path(path: Path) -> Path:
    """A path by which DuckDB finds the very file or folder: `path` itself, or a link to it without special characters.

    The link, to the file or to its folder, is kept until this process ends.
    """
    if not SPECIAL.search(str(path)):
        return path
    if not SPECIAL.search(path.name) and path.name and path.parent != path:
        return plain_path(path.parent) / path.name
    return _linked(path.absolute())


@cache
def _linked(path: Path) -> Path:
    link = Path(_links().name) / hashlib.sha256(str(path).encode()).hexdigest()[:24]
    link.symlink_to(path)
    return link


@cache
def _links() -> tempfile.TemporaryDirectory:
    usual = tempfile.gettempdir()
    return tempfile.TemporaryDirectory(prefix="sequela-", dir="/tmp" if SPECIAL.search(usual) else usual)


def run_sql(con: duckdb.DuckDBPyConnection, sql: str, place: str) -> None:
    """Execute SQL with expressions of the mapping, whose errors are for its author to fix.

    Raises:
        InputError: naming `place`, without any cell of the data (which DuckDB's own message may quote).
    """
    try:
        con.execute(sql)
    except (duckdb.ConversionException, duckdb.OutOfRangeException, duckdb.InvalidInputException) as error:
        raise InputError(
            f"{place}: a cell cannot be converted as the SQL asks; use try_cast or try_strptime."
        ) from error
    except duckdb.OutOfMemoryException as error:
        raise InputError(f"{place}: more memory is needed than is allowed: increase `memory`.") from error
    except duckdb.Error as error:
        message = " ".join(str(error).split("LINE 1")[0].split())
        raise InputError(f"{place}: {message}; fix the SQL of the mapping.") from error
