"""Quotes names and values for SQL, and runs the SQL of a mapping."""

from __future__ import annotations

import math

import duckdb

from sequela.errors import InputError


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
