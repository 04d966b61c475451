"""One rule of a mapping, run on its loaded table: the events it makes and an account of the rows it does not use."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import numpy as np
import polars as pl

from sequela.record.errors import InputError
from sequela.record.mapping import Rule
from sequela.record.raw import Loaded, literal, place_of, quoted

EXPRESSIONS = ("patient", "where", "code", "time", "value", "text", "description", "unit")
NO_TIME, UNREADABLE_TIME = "no time", "unreadable time"


@dataclass(frozen=True)
class Found:
    """What a rule made of its table.

    Attributes:
        events: subject_id, time, code, numeric_value, text_value; not sorted.
        selected: int64, the `_row` of every row for which the rule's `where` holds.
        dropped: reason -> how many of the selected rows make no event.
        meanings: code -> description, for people.
    """

    events: pl.DataFrame
    selected: np.ndarray
    dropped: dict[str, int]
    meanings: dict[str, str]


def run_sql(con: duckdb.DuckDBPyConnection, sql: str, place: str) -> None:
    """Execute SQL that holds the mapping's expressions; what is wrong with them is for its author to mend.

    Raises:
        InputError: naming `place`, without any cell of the data (DuckDB's own message may quote a patient's).
    """
    try:
        con.execute(sql)
    except (duckdb.ConversionException, duckdb.OutOfRangeException, duckdb.InvalidInputException) as error:
        raise InputError(
            f"{place}: a cell cannot be converted as the SQL asks; use try_cast or try_strptime."
        ) from error
    except duckdb.Error as error:
        said = " ".join(str(error).split("LINE 1")[0].split())
        raise InputError(f"{place}: {said}; mend the SQL of the mapping.") from error


def find_events(con: duckdb.DuckDBPyConnection, rule: Rule, table: Loaded, place: str) -> Found:
    """Run `rule` on its table; `place` names the rule in error messages.

    Raises:
        InputError: where an expression fails, a join multiplies rows, or too many rows lack a readable time.
    """
    _check_syntax(con, rule, place)
    run_sql(
        con,
        f"CREATE TEMP TABLE _candidates AS SELECT *, {_reason(rule)} AS _reason FROM ({_candidates(rule)})",
        place,
    )
    selected = con.sql("SELECT _row FROM _candidates").fetchnumpy()["_row"]
    reasons = con.sql("SELECT _reason, count(*), min(_row) FROM _candidates GROUP BY 1 ORDER BY 1").fetchall()
    dropped = {reason: count for reason, count, _ in reasons if reason}
    _check_join(selected, rule, place)
    first = min((row for reason, _, row in reasons if reason in (NO_TIME, UNREADABLE_TIME)), default=None)
    _check_times(con, rule, table, dropped, len(selected), first, place)
    events = con.sql(
        "SELECT _patient AS subject_id, _time AS time, _code AS code, _value::FLOAT AS numeric_value, "
        "_text AS text_value FROM _candidates WHERE _reason IS NULL"
    ).pl()
    meanings = con.sql(
        "SELECT _code, min(_meaning) FROM _candidates WHERE _reason IS NULL AND _meaning IS NOT NULL GROUP BY 1"
    ).fetchall()
    con.execute("DROP TABLE _candidates")
    return Found(events, selected, dropped, dict(meanings))


def _check_syntax(con: duckdb.DuckDBPyConnection, rule: Rule, place: str) -> None:
    """Each expression is valid SQL by itself, so that the one that is not can be named."""
    single = {name: getattr(rule, name) for name in EXPRESSIONS if getattr(rule, name) is not None}
    several = {f"drop '{reason}'": condition for reason, condition in rule.drop.items()}
    for name, sql in (single | several).items():
        try:
            con.extract_statements(f"SELECT ({sql})")
        except duckdb.ParserException as error:
            raise InputError(
                f"{place}: {name} = {sql!r} is not valid SQL; mend it (a column named like an SQL word, such as "
                '"end" or "at", must stand in double quotes).'
            ) from error


def _candidates(rule: Rule) -> str:
    """SQL for the selected rows, with the rule's expressions evaluated."""
    base = quoted(rule.table)
    low, high = rule.range or ("NULL", "NULL")
    asked = "".join(f" WHEN {condition} THEN {literal(reason)}" for reason, condition in rule.drop.items())
    columns = {
        "_row": f"{base}._row",
        "_unreadable": f"{base}._unreadable",
        "_asked": f"CASE{asked} END" if asked else "NULL::VARCHAR",
        "_patient": f"CAST(({rule.patient}) AS BIGINT)",
        "_time": f"CAST(({rule.time or 'NULL'}) AS TIMESTAMP)",
        "_code": f"nullif(CAST(({rule.code}) AS VARCHAR), '')",
        "_value": f"CAST(({rule.value or 'NULL'}) AS DOUBLE)",
        "_text": f"CAST(({rule.text or 'NULL'}) AS VARCHAR)",
        "_low": f"CAST(({low}) AS DOUBLE)",
        "_high": f"CAST(({high}) AS DOUBLE)",
        "_meaning": f"({rule.description or 'NULL'}) || coalesce(' [' || ({rule.unit or 'NULL'}) || ']', '')",
    }
    made = ", ".join(f"{sql} AS {name}" for name, sql in columns.items())
    joins = "".join(f" LEFT JOIN {join}" for join in rule.join)
    return f"SELECT {made} FROM {base}{joins} WHERE {rule.where or 'true'}"


def _reason(rule: Rule) -> str:
    """SQL for the first reason why a candidate is no event; null where it is one."""
    cases = ["WHEN _asked IS NOT NULL THEN _asked", "WHEN _patient IS NULL THEN 'no patient'"]
    if rule.time:
        cases.append(
            f"WHEN _time IS NULL AND _unreadable THEN '{UNREADABLE_TIME}' WHEN _time IS NULL THEN '{NO_TIME}'"
        )
    cases.append("WHEN _code IS NULL THEN 'no code'")
    if rule.value and not rule.keep_without_value:
        cases.append("WHEN _value IS NULL OR NOT isfinite(_value) THEN 'no value'")
    cases.append("WHEN _value < _low OR _value > _high THEN 'out of range'")
    return f"CASE {' '.join(cases)} END"


def _check_join(selected: np.ndarray, rule: Rule, place: str) -> None:
    """A join with several partners would silently make one event into many."""
    rows = len(np.unique(selected)) if rule.join else len(selected)
    if rows != len(selected):
        raise InputError(
            f"{place}: its join makes {len(selected)} rows of {rows}; join on a key that is unique in the other table."
        )


def _check_times(
    con: duckdb.DuckDBPyConnection,
    rule: Rule,
    table: Loaded,
    dropped: dict[str, int],
    rows: int,
    first: int | None,
    place: str,
) -> None:
    """A few rows without a readable time are dropped and counted; many mean that the mapping or the file is wrong."""
    missing = dropped.get(NO_TIME, 0) + dropped.get(UNREADABLE_TIME, 0)
    if missing <= rule.missing_times * rows:
        return
    unreadable = [f"column '{column}' has {count} cells that are no time, the first at {where}"
                  for column, (count, where) in table.unreadable.items()]  # fmt: skip
    cause = "; ".join(unreadable) or f"the first is {place_of(con, rule.table, first)}"
    raise InputError(
        f"{place}: {missing} of {rows} rows have no readable time in ({rule.time}); {cause}; mend the file, leave "
        "such rows aside with `where`, or allow them with `missing_times`."
    )
