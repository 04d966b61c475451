"""One rule of a mapping, run on its loaded table: the events it makes and an account of the rows it does not use."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from sequela.errors import InputError
from sequela.record.ingest.mapping import Rule
from sequela.record.ingest.spill import Spill
from sequela.record.ingest.tables.load import Loaded, place_of
from sequela.record.ingest.tables.sql import literal, quoted, run_sql
from sequela.record.schema import MEDIA, PAYLOAD
from sequela.record.validate import OUTSIDE, outside_error

EXPRESSIONS = ("patient", "where", "code", "time", "value", "text", "media", "description", "unit")
NO_TIME, UNREADABLE_TIME = "no time", "unreadable time"
LARGEST = 3.4028234e38  # of the numbers that a value of 32 bits can hold


@dataclass(frozen=True)
class Found:
    """What a rule made of its table; the events themselves lie in the spill, under `name`.

    Attributes:
        name: where in the spill.
        selected: how many rows fulfil the rule's `where`.
        dropped: reason -> how many of the selected rows make no event.
        counted: words -> how many of its events the rule's `count` counts under them.
        meanings: code -> description, for people.
        payload: which of the columns `PAYLOAD` any of its events has.
    """

    name: str
    selected: int
    dropped: dict[str, int]
    counted: dict[str, int]
    meanings: dict[str, str]
    payload: frozenset[str]


def count_rows(con: duckdb.DuckDBPyConnection, rule: Rule, place: str) -> int:
    """How many rows of its table the rule selects, each as often as its join makes it.

    Raises:
        InputError: where an expression is not valid SQL; `place` names the rule.
    """
    _check_syntax(con, rule, place)
    run_sql(con, f"SELECT count(*) FROM {_selected(rule)}", place)
    return con.fetchall()[0][0]


def find_events(
    con: duckdb.DuckDBPyConnection, rule: Rule, number: int, table: Loaded, spill: Spill, place: str
) -> Found:
    """Run `rule`, the `number`-th of its mapping, on its table and write what it makes to `spill`.

    Raises:
        InputError: where an expression fails, a join multiplies rows, or too many rows lack a readable time.
    """
    name = f"rule={number}"
    made = (
        "_patient AS subject_id, _time AS time, _code AS code, _value::FLOAT AS numeric_value, _text AS text_value, "
        f"_media AS media, _unit AS unit, {number}::SMALLINT AS rule, 0::BIGINT AS position, "
        f"{_reason(rule)} AS reason, _row AS row, _counted AS counted, _meaning AS meaning"
    )
    run_sql(con, spill.write(f"SELECT {made} FROM ({_candidates(rule)})", name), place)
    rows = spill.all(name)
    if rows is None:
        return Found(name, 0, {}, dict.fromkeys(rule.count, 0), {}, frozenset())
    counts = ", ".join(f"count({column})" for column in PAYLOAD)
    sql = f"SELECT reason, count(*), min(row), {counts} FROM {rows} GROUP BY 1 ORDER BY 1"
    reasons = con.sql(sql).fetchall()
    dropped = {reason: count for reason, count, *_ in reasons if reason}
    selected = sum(count for _, count, *_ in reasons)
    if rule.join:
        _check_join(con, rows, selected, place)
    first = min((row for reason, _, row, *_ in reasons if reason in (NO_TIME, UNREADABLE_TIME)), default=None)
    _check_times(con, rule, table, dropped, selected, first, place)
    counts = next((counts for reason, _, _, *counts in reasons if reason is None), [])
    payload = frozenset(column for column, count in zip(PAYLOAD, counts, strict=False) if count)
    if rule.media:
        _check_media(con, rule, rows, place)
    meanings = _meanings(con, rows) if rule.description else {}
    return Found(name, selected, dropped, _counted(con, rows, rule), meanings, payload)


def count_unread(con: duckdb.DuckDBPyConnection, name: str, rules: tuple[Rule, ...], place: str) -> int:
    """How many rows of the table `name` none of its `rules` selects.

    Rules with the same join are asked together, and one join after the other, so that no more than one is held.

    Raises:
        InputError: where an expression fails, or memory is too small; `place` names the table.
    """
    if any(rule.where is None for rule in rules):
        return 0
    run_sql(con, f"SELECT count(*) FROM {quoted(name)}", place)
    rows = con.fetchall()[0][0]
    joins: dict[tuple[str, ...], list[str]] = {}
    for rule in rules:
        joins.setdefault(rule.join, []).append(f"coalesce(({rule.where}), false)")
    asked = [
        f"SELECT {quoted(name)}._row AS row, {' OR '.join(chosen)} AS read FROM {_joined(name, join)}"
        for join, chosen in joins.items()
    ]
    if len(asked) == 1:
        run_sql(con, f"SELECT count(*), count(*) FILTER (read) FROM ({asked[0]})", place)
        pairs, read = con.fetchall()[0]
        if pairs == rows:  # else rows that no rule selects have several partners, which is no error
            return rows - read
    run_sql(con, "CREATE OR REPLACE TABLE _read (row BIGINT)", place)
    for select in asked:
        run_sql(con, f"INSERT INTO _read SELECT row FROM ({select}) WHERE read", place)
    run_sql(con, "SELECT count(DISTINCT row) FROM _read", place)
    read = con.fetchall()[0][0]
    run_sql(con, "DROP TABLE _read", place)
    return rows - read


def _counted(con: duckdb.DuckDBPyConnection, rows: str, rule: Rule) -> dict[str, int]:
    if not rule.count:
        return {}
    sql = f"SELECT counted, count(*) FROM {rows} WHERE reason IS NULL AND counted IS NOT NULL GROUP BY 1"
    return dict.fromkeys(rule.count, 0) | dict(con.sql(sql).fetchall())


def _meanings(con: duckdb.DuckDBPyConnection, rows: str) -> dict[str, str]:
    sql = f"SELECT code, min(meaning) FROM {rows} WHERE reason IS NULL AND meaning IS NOT NULL GROUP BY 1"
    return dict(con.sql(sql).fetchall())


def _check_syntax(con: duckdb.DuckDBPyConnection, rule: Rule, place: str) -> None:
    """Each expression is valid SQL by itself, so that the one that is not can be named."""
    single = {name: getattr(rule, name) for name in EXPRESSIONS if getattr(rule, name) is not None}
    several = {
        f"{key} '{words}'": condition
        for key in ("drop", "count")
        for words, condition in getattr(rule, key).items()
    }
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
    columns = {
        "_row": f"{base}._row",
        "_unreadable": f"{base}._unreadable",
        "_asked": _first(rule.drop),
        "_counted": _first(rule.count),
        "_patient": f"CAST(({rule.patient}) AS BIGINT)",
        "_time": f"CAST(({rule.time or 'NULL'}) AS TIMESTAMP)",
        "_code": f"nullif(CAST(({rule.code}) AS VARCHAR), '')",
        "_given": f"CAST(({rule.value or 'NULL'}) AS DOUBLE)",
        "_value": f"CASE WHEN abs(_given) <= {LARGEST} THEN _given END",
        "_text": f"CAST(({rule.text or 'NULL'}) AS VARCHAR)",
        "_media": f"nullif(CAST(({rule.media or 'NULL'}) AS VARCHAR), '')",
        "_low": f"CAST(({low}) AS DOUBLE)",
        "_high": f"CAST(({high}) AS DOUBLE)",
        "_unit": f"CAST(({rule.unit or 'NULL'}) AS VARCHAR)",
        "_meaning": f"({rule.description or 'NULL'}) || coalesce(' [' || _unit || ']', '')",
    }
    made = ", ".join(f"{sql} AS {name}" for name, sql in columns.items())
    return f"SELECT {made} FROM {_selected(rule)}"


def _first(conditions: dict[str, str]) -> str:
    """SQL for the words of the first of the conditions that holds; null where none does."""
    cases = "".join(f" WHEN {condition} THEN {literal(words)}" for words, condition in conditions.items())
    return f"CASE{cases} END" if cases else "NULL::VARCHAR"


def _selected(rule: Rule) -> str:
    """SQL for the rows of its table that a rule is about, with their partners in other tables."""
    return f"{_joined(rule.table, rule.join)} WHERE {rule.where or 'true'}"


def _joined(table: str, joins: tuple[str, ...]) -> str:
    return quoted(table) + "".join(f" LEFT JOIN {join}" for join in joins)


def _reason(rule: Rule) -> str:
    """SQL for the first reason why a candidate is no event; null where it is one."""
    cases = ["WHEN _asked IS NOT NULL THEN _asked", "WHEN _patient IS NULL THEN 'no patient'"]
    if rule.time:
        cases.append(
            f"WHEN _time IS NULL AND _unreadable THEN '{UNREADABLE_TIME}' WHEN _time IS NULL THEN '{NO_TIME}'"
        )
    cases.append("WHEN _code IS NULL THEN 'no code'")
    if rule.value and not rule.keep_without_value:
        cases.append("WHEN _value IS NULL THEN 'no value'")
    cases.append("WHEN _value < _low OR _value > _high THEN 'out of range'")
    return f"CASE {' '.join(cases)} END"


def _check_join(con: duckdb.DuckDBPyConnection, rows: str, selected: int, place: str) -> None:
    """A join with several partners would silently make one event into many."""
    once = con.sql(f"SELECT count(DISTINCT row) FROM {rows}").fetchall()[0][0]
    if once != selected:
        raise InputError(
            f"{place}: its join makes {selected} rows of {once}; join on a key that is unique in the other table."
        )


def _check_media(con: duckdb.DuckDBPyConnection, rule: Rule, rows: str, place: str) -> None:
    """No path leads out of the dataset's folder."""
    sql = f"SELECT min(row) FROM {rows} WHERE reason IS NULL AND regexp_matches({MEDIA}, {literal(OUTSIDE)})"
    row = con.sql(sql).fetchall()[0][0]
    if row is not None:
        raise outside_error(f"{place}, from {place_of(con, rule.table, row)}")


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
