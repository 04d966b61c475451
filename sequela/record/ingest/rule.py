"""Runs one rule of a mapping on its loaded table: writes its events and counts the rows it drops, by reason."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import duckdb

from sequela.errors import InputError
from sequela.record.ingest.day_end import CAPPED_AT_STAY, SECONDS
from sequela.record.ingest.leakage import KEPT_OPEN, MOVED, LeakageRules
from sequela.record.ingest.mapping import EventRule
from sequela.record.ingest.spill import Spill
from sequela.record.ingest.tables.load import LoadedTable, place_of
from sequela.record.ingest.tables.sql import literal, quoted, run_sql
from sequela.record.schema import MEDIA, PAYLOAD
from sequela.record.validate import OUTSIDE, outside_error

EXPRESSIONS = ("patient", "where", "code", "time", "value", "answer", "text", "media", "description", "unit")
TIMELESS = NO_TIME, UNREADABLE_TIME, OUTSIDE_YEARS = ("no time", "unreadable time", "outside the years 1000 to 9999")
LARGEST = 3.4028234e38  # float32
# The answers of a code are categories if they are short, and if there are few or they come again; else they are free
# text, and no part of a code.
CATEGORIES, TIMES_EACH, LONGEST_ANSWER = 5, 3, 100
# What SQL would make of a patient's id or a time that is text (or of 1.5) is not always what it says.
PATIENT = (
    "CASE WHEN typeof(_who) IN ('BIGINT', 'INTEGER') OR _who IS NULL THEN CAST(_who AS BIGINT) "
    "ELSE coalesce(whole_in(_who), error('no whole number')) END"
)
DATED = (
    "CASE WHEN typeof(_when) <> 'VARCHAR' THEN CAST(_when AS TIMESTAMP) "
    "WHEN _when IS NULL OR is_sentinel(_when) THEN NULL ELSE coalesce(time_in(_when), error('no time')) END"
)


@dataclass(frozen=True)
class RuleResult:
    """The result of a rule; its events are in the spill, under `name`.

    Attributes:
        name: of its rows in the spill.
        selected: number of rows that fulfill the rule's `where`.
        dropped: reason -> number of selected rows that make no event.
        counted: label -> number of events counted under it by the rule's `count`.
        meanings: code -> description, for people.
        payload: which of the columns `PAYLOAD` have a value in any event.
        moved: what was done with events of a stay that its row names -> number of them.
    """

    name: str
    selected: int
    dropped: dict[str, int]
    counted: dict[str, int]
    meanings: dict[str, str]
    payload: frozenset[str]
    moved: dict[str, int] = field(default_factory=dict)


def count_rows(con: duckdb.DuckDBPyConnection, rule: EventRule, place: str) -> int:
    """The number of rows that the rule selects, after its join.

    Raises:
        InputError: if an expression is not valid SQL; `place` names the rule.
    """
    _check_syntax(con, rule, place)
    run_sql(con, f"SELECT count(*) FROM {_selected(rule)}", place)
    return con.fetchall()[0][0]


def find_events(
    con: duckdb.DuckDBPyConnection,
    rule: EventRule,
    number: int,
    table: LoadedTable,
    spill: Spill,
    leaks: LeakageRules,
) -> RuleResult:
    """Run `rule`, the `number`-th of its mapping, on its table and write its rows to `spill`.

    Args:
        leaks: of the mapping; they tell which events are known only at the end of a stay that their row names.

    Raises:
        InputError: if an expression fails, a join multiplies rows, a media path leads out of the dataset, or too many
            rows lack a readable time.
    """
    name, place = f"rule={number}", rule.place
    made = (
        "_patient AS subject_id, _time AS time, _code AS code, _value::FLOAT AS numeric_value, _text AS text_value, "
        f"_media AS media, _unit AS unit, {number}::SMALLINT AS rule, 0::BIGINT AS position, _named AS named, "
        f"{_reason(rule, table)} AS reason, _row AS row, _counted AS counted, _meaning AS meaning, _moved AS moved"
    )
    candidates = f"SELECT *, {_placed(_late(leaks, number))} FROM ({_answered(rule)})"
    run_sql(con, spill.write(f"SELECT {made} FROM ({candidates})", name), place)
    rows = spill.all(name)
    if rows is None:
        return RuleResult(name, 0, {}, dict.fromkeys(rule.count, 0), {}, frozenset())
    counts = ", ".join(f"count({column})" for column in PAYLOAD)
    sql = f"SELECT reason, count(*), min(row), {counts} FROM {rows} GROUP BY 1 ORDER BY 1"
    reasons = con.sql(sql).fetchall()
    dropped = {reason: count for reason, count, *_ in reasons if reason}
    selected = sum(count for _, count, *_ in reasons)
    if rule.join:
        _check_join(con, rows, selected, place)
    first = min((row for reason, _, row, *_ in reasons if reason in TIMELESS), default=None)
    _check_times(con, rule, table, dropped, selected, first)
    counts = next((counts for reason, _, _, *counts in reasons if reason is None), [])
    payload = frozenset(column for column, count in zip(PAYLOAD, counts, strict=False) if count)
    if rule.media:
        _check_media(con, rule, rows, place)
    meanings = _meanings(con, rows) if rule.description else {}
    moved = _number_by(con, rows, "moved") if rule.stay else {}
    return RuleResult(name, selected, dropped, _counted(con, rows, rule), meanings, payload, moved)


def count_unselected(con: duckdb.DuckDBPyConnection, name: str, rules: tuple[EventRule, ...], place: str) -> int:
    """The number of rows of the table `name` that none of its `rules` selects.

    Rules with the same join are evaluated together, and joins one after another, so that memory holds one at a time.

    Raises:
        InputError: if an expression fails, or memory is too small; `place` names the table.
    """
    if any(rule.where is None for rule in rules):
        return 0
    run_sql(con, f"SELECT count(*) FROM {quoted(name)}", place)
    rows = con.fetchall()[0][0]
    joins: dict[tuple[str, ...], list[str]] = {}
    for rule in rules:
        joins.setdefault(rule.join, []).append(f"coalesce(({rule.where}), false)")
    selects = [
        f"SELECT {quoted(name)}._row AS row, {' OR '.join(chosen)} AS read FROM {_joined(name, join)}"
        for join, chosen in joins.items()
    ]
    if len(selects) == 1:
        run_sql(con, f"SELECT count(*), count(*) FILTER (read) FROM ({selects[0]})", place)
        pairs, read = con.fetchall()[0]
        if pairs == rows:  # otherwise rows that no rule selects have several partners, which is allowed
            return rows - read
    run_sql(con, "CREATE OR REPLACE TABLE _read (row BIGINT)", place)
    for select in selects:
        run_sql(con, f"INSERT INTO _read SELECT row FROM ({select}) WHERE read", place)
    run_sql(con, "SELECT count(DISTINCT row) FROM _read", place)
    read = con.fetchall()[0][0]
    run_sql(con, "DROP TABLE _read", place)
    return rows - read


def _counted(con: duckdb.DuckDBPyConnection, rows: str, rule: EventRule) -> dict[str, int]:
    return dict.fromkeys(rule.count, 0) | _number_by(con, rows, "counted") if rule.count else {}


def _number_by(con: duckdb.DuckDBPyConnection, rows: str, column: str) -> dict[str, int]:
    sql = f"SELECT {column}, count(*) FROM {rows} WHERE reason IS NULL AND {column} IS NOT NULL GROUP BY 1 ORDER BY 1"
    return dict(con.sql(sql).fetchall())


def _meanings(con: duckdb.DuckDBPyConnection, rows: str) -> dict[str, str]:
    sql = f"SELECT code, min(meaning) FROM {rows} WHERE reason IS NULL AND meaning IS NOT NULL GROUP BY 1"
    return dict(con.sql(sql).fetchall())


def _check_syntax(con: duckdb.DuckDBPyConnection, rule: EventRule, place: str) -> None:
    """Parse each expression by itself, so that an error names the right one."""
    single = {name: getattr(rule, name) for name in EXPRESSIONS if getattr(rule, name) is not None}
    several = {
        f"{key} '{words}'": condition
        for key in ("drop", "count")
        for words, condition in getattr(rule, key).items()
    } | {f"stay[{at}]": sql for at, sql in enumerate(rule.stay or ())}
    for name, sql in (single | several).items():
        try:
            con.extract_statements(f"SELECT ({sql})")
        except duckdb.ParserException as error:
            raise InputError(
                f"{place}: {name} = {sql!r} is not valid SQL; fix it (a column whose name is an SQL keyword, such as "
                '"end" or "at", must be in double quotes).'
            ) from error


def _candidates(rule: EventRule) -> str:
    """SQL for the selected rows, with the rule's expressions evaluated."""
    base = quoted(rule.table)
    low, high = rule.range or ("NULL", "NULL")
    opens, closes = rule.stay or ("NULL", "NULL")
    columns = {
        "_row": f"{base}._row",
        "_unreadable": f"{base}._unreadable",
        "_asked": _first(rule.drop),
        "_counted": _first(rule.count),
        "_who": f"({rule.patient})",
        "_patient": PATIENT,
        "_when": f"({rule.time or 'NULL'})",
        "_dated": DATED,
        "_opens": f"CAST(({opens}) AS TIMESTAMP)",
        "_closes": f"CAST(({closes}) AS TIMESTAMP)",
        "_code": f"nullif(CAST(({rule.code}) AS VARCHAR), '')",
        "_given": f"CAST(({rule.value or 'NULL'}) AS DOUBLE)",
        "_value": f"CASE WHEN abs(_given) <= {LARGEST} THEN _given END",
        "_said": f"nullif(trim(CAST(({rule.answer or 'NULL'}) AS VARCHAR)), '')",
        "_text": f"CAST(({rule.text or 'NULL'}) AS VARCHAR)",
        "_media": f"nullif(CAST(({rule.media or 'NULL'}) AS VARCHAR), '')",
        "_low": f"CAST(({low}) AS DOUBLE)",
        "_high": f"CAST(({high}) AS DOUBLE)",
        "_unit": f"CAST(({rule.unit or 'NULL'}) AS VARCHAR)",
        "_meaning": f"({rule.description or 'NULL'}) || coalesce(' [' || _unit || ']', '')",
    }
    made = ", ".join(f"{sql} AS {name}" for name, sql in columns.items())
    return f"SELECT {made} FROM {_selected(rule)}"


def _late(leaks: LeakageRules, number: int) -> str:
    """SQL for whether an event of the rule is known only at the end of a stay."""
    if number in leaks.late or number in leaks.timely:
        return "true" if number in leaks.late else "false"
    heads = ", ".join(literal(head) for head in leaks.codes)
    return f"split_part(_code, '/', 1) IN ({heads})" if heads else "false"


def _placed(late: str) -> str:
    """SQL for the time of an event of a stay that its row names: `_time`, `_moved` and `_named`."""
    at_start = f"({late}) AND _dated = _opens"
    columns = {
        "_named": "_opens IS NOT NULL",
        "_moved": f"CASE WHEN {at_start} AND _closes > _opens THEN {literal(MOVED)} "
                  f"WHEN {at_start} AND coalesce(_closes < _opens, true) THEN {literal(KEPT_OPEN)} "
                  f"WHEN _dated = date_trunc('day', _dated) + INTERVAL {SECONDS} SECOND AND _closes < _dated "
                  "AND _closes >= greatest(_opens, date_trunc('day', _dated)) "
                  f"THEN {literal(CAPPED_AT_STAY)} END",
        "_time": f"CASE WHEN _moved IN ({literal(MOVED)}, {literal(CAPPED_AT_STAY)}) THEN _closes ELSE _dated END",
    }  # fmt: skip
    return ", ".join(f"{sql} AS {name}" for name, sql in columns.items())


def _answered(rule: EventRule) -> str:
    """The candidates, with answers that are categories as the last part of their code, and others as text."""
    if rule.answer is None:
        return f"SELECT *, NULL AS _answer FROM ({_candidates(rule)})"
    word = r"replace(upper(regexp_replace(_said, '\s+', ' ', 'g')), '//', '/')"
    spoken = f"SELECT *, CASE WHEN _value IS NULL THEN {word} END AS _word FROM ({_candidates(rule)})"
    categories = (
        "SELECT _code AS _asked_code FROM _spoken WHERE _word IS NOT NULL GROUP BY _code "
        f"HAVING max(length(_word)) <= {LONGEST_ANSWER} AND (count(DISTINCT _word) <= {CATEGORIES} "
        f"OR count(DISTINCT _word) * {TIMES_EACH} <= count(*))"
    )
    answer = "CASE WHEN _asked_code IS NOT NULL THEN _word END AS _answer"
    changed = (
        "coalesce(_code || '//' || _answer, _code) AS _code, "
        "coalesce(_text, CASE WHEN _answer IS NULL AND _value IS NULL THEN _said END) AS _text, "
        "coalesce(_meaning || ': ' || _answer, _meaning) AS _meaning"
    )
    return (
        f"WITH _spoken AS MATERIALIZED ({spoken}), _categories AS ({categories}), _replied AS (SELECT *, {answer} "
        f"FROM _spoken LEFT JOIN _categories ON _code = _asked_code) SELECT * REPLACE ({changed}) FROM _replied"
    )


def _first(conditions: dict[str, str]) -> str:
    """SQL for the label of the first condition that holds; null if none does."""
    cases = "".join(f" WHEN {condition} THEN {literal(words)}" for words, condition in conditions.items())
    return f"CASE{cases} END" if cases else "NULL::VARCHAR"


def _selected(rule: EventRule) -> str:
    """SQL for the rows that a rule selects, joined with other tables."""
    return f"{_joined(rule.table, rule.join)} WHERE {rule.where or 'true'}"


def _joined(table: str, joins: tuple[str, ...]) -> str:
    return quoted(table) + "".join(f" LEFT JOIN {join}" for join in joins)


def _reason(rule: EventRule, table: LoadedTable) -> str:
    """SQL for the first reason to drop a row; null if it makes an event."""
    cases = ["WHEN _asked IS NOT NULL THEN _asked", "WHEN _patient IS NULL THEN 'no patient'"]
    if rule.time:
        cases.append(
            f"WHEN _time IS NULL AND {table.unreadable_in(rule.time)} THEN '{UNREADABLE_TIME}' "
            f"WHEN _time IS NULL THEN '{NO_TIME}' "
            f"WHEN _sane(_time) IS NULL THEN '{OUTSIDE_YEARS}'"
        )
    cases.append("WHEN _code IS NULL THEN 'no code'")
    if rule.value and not rule.keep_without_value:
        cases.append("WHEN _value IS NULL AND _answer IS NULL THEN 'no value'")
    cases.append("WHEN _value < _low OR _value > _high THEN 'out of range'")
    return f"CASE {' '.join(cases)} END"


def _check_join(con: duckdb.DuckDBPyConnection, rows: str, selected: int, place: str) -> None:
    """Refuse a join with several partners, which would silently duplicate events."""
    once = con.sql(f"SELECT count(DISTINCT row) FROM {rows}").fetchall()[0][0]
    if once != selected:
        raise InputError(
            f"{place}: its join turns {once} rows into {selected}; join on a key that is unique in the other table."
        )


def _check_media(con: duckdb.DuckDBPyConnection, rule: EventRule, rows: str, place: str) -> None:
    """Refuse media paths that lead out of the dataset's folder."""
    sql = f"SELECT min(row) FROM {rows} WHERE reason IS NULL AND regexp_matches({MEDIA}, {literal(OUTSIDE)})"
    row = con.sql(sql).fetchall()[0][0]
    if row is not None:
        raise outside_error(f"{place}, from {place_of(con, rule.table, row)}")


def _check_times(
    con: duckdb.DuckDBPyConnection,
    rule: EventRule,
    table: LoadedTable,
    dropped: dict[str, int],
    rows: int,
    first: int | None,
) -> None:
    """Refuse too many rows without a readable time: then the mapping or the file is wrong, not a few cells."""
    missing = sum(dropped.get(reason, 0) for reason in TIMELESS)
    # A cell that stands for no time is not one that went wrong
    meant = sum(count for column, count in table.facts.get("sentinels", {}).items()
                if re.search(rf"\b{re.escape(column)}\b", rule.time or "", re.IGNORECASE))  # fmt: skip
    if missing - meant <= rule.missing_times * rows:
        return
    unreadable = [f"column '{column}' has {count} cells that are not times, the first at {where}"
                  for column, (count, where) in table.unreadable.items()]  # fmt: skip
    cause = "; ".join(unreadable) or f"the first is {place_of(con, rule.table, first)}"
    raise InputError(
        f"{rule.place}: {missing} of {rows} rows have no readable time in ({rule.time}); {cause}; fix the file, "
        "exclude such rows with `where`, or allow them with `missing_times`."
    )
