"""Runs a mapping's rules on its tables: unsorted events in the spill, and counts of the rows that make none."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from sequela.errors import InputError
from sequela.progress import Progress
from sequela.record.ingest.leakage import LeakageRules
from sequela.record.ingest.mapping import EventRule, FileTable, JsonTable, Mapping, QueryTable, RowTable
from sequela.record.ingest.rule import EXPRESSIONS, RuleResult, count_rows, count_unselected, find_events
from sequela.record.ingest.spill import Spill, database_in, parts_for
from sequela.record.ingest.tables.cells import add_macros
from sequela.record.ingest.tables.database import Database
from sequela.record.ingest.tables.json_table import load_json
from sequela.record.ingest.tables.load import LoadedTable, load_files, load_rows
from sequela.record.ingest.tables.sql import literal, quoted, run_sql

MOST = 0.5  # share of a column's times that must be readable


@dataclass(frozen=True)
class ExtractedRule:
    """Row counts of one rule; its events are in the spill under its `number`."""

    number: int
    code: str
    rows_in: int
    dropped: dict[str, int]
    counted: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ExtractedTable:
    """One table: its files, its number of rows, the counts of its rules, and further facts for the report."""

    files: tuple[str, ...]
    rows: int
    rules: tuple[ExtractedRule, ...]
    facts: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Extraction:
    """Unsorted events in the spill, and where they came from.

    Attributes:
        tables: name -> what was read and counted.
        meanings: code -> description, for people.
        events: number of events.
        payload: which of the columns `PAYLOAD` have a value in any event.
        name, metadata: of the dataset.
        leaks: which events are known only at the end of a stay.
        moved: what was done with events of a stay that their rows name -> number of them.
        parents: code -> parent codes, if the source gives them.
        splits: whether the spill also holds the split of each patient, under the name "splits".
        own_mapping: whether the user wrote the mapping.
    """

    spill: Spill
    tables: dict[str, ExtractedTable]
    meanings: dict[str, str]
    events: int
    payload: frozenset[str]
    name: str
    metadata: dict
    leaks: LeakageRules = field(default_factory=LeakageRules)
    moved: Counter[str] = field(default_factory=Counter)
    parents: dict[str, list[str]] = field(default_factory=dict)
    splits: bool = False
    own_mapping: bool = False


def extract_events(
    mapping: Mapping, raw: Path | Database, scratch: Path, memory: str, events_per_part: int, progress: Progress
) -> Extraction:
    """Read all tables below `raw`, run all rules, and write their events to the folder `scratch`.

    `progress` counts finished tables and rules.

    Raises:
        InputError: if the mapping or the raw files are faulty.
    """
    with database_in(scratch, memory) as con:
        loaded = _load_all(con, mapping, raw, progress)
        _lock(con, scratch / "events")
        rows = sum(count_rows(con, rule, place) for _, rule, place in _rules(mapping))
        spill = Spill(scratch / "events", parts_for(rows, events_per_part))
        results, unread = _run_all(con, mapping, loaded, spill, progress)
    tables = {name: _read(name, loaded[name], mapping, results, unread) for name in loaded}
    meanings = {code: text for number in sorted(results) for code, text in results[number].meanings.items()}
    events = sum(result.selected - sum(result.dropped.values()) for result in results.values())
    payload = frozenset().union(*(result.payload for result in results.values()))
    return Extraction(
        spill, tables, meanings, events, payload, mapping.name, mapping.metadata, mapping.leaks,
        moved=sum((Counter(result.moved) for result in results.values()), Counter()),
        own_mapping=not mapping.shipped,
    )  # fmt: skip


def _rules(mapping: Mapping) -> list[tuple[int, EventRule, str]]:
    """Rows (number, rule, position in the mapping file)."""
    return [(number, rule, rule.place) for number, rule in enumerate(mapping.rules, 1)]


def _load_all(
    con: duckdb.DuckDBPyConnection, mapping: Mapping, raw: Path | Database, progress: Progress
) -> dict[str, LoadedTable]:
    """Create all tables; those that no rule needs are dropped again."""
    steps = len(mapping.tables) + len(mapping.rules)
    loaded: dict[str, LoadedTable] = {}
    add_macros(con, mapping.timezone, mapping.sentinels)
    for head, sql in mapping.macros.items():
        run_sql(con, f"CREATE MACRO {head} AS ({sql})", f"{mapping.path}")
    for name, table in mapping.tables.items():
        progress(len(loaded), steps, stage=f"read {name}")
        loaded[name] = _load(con, name, table, raw, f"{mapping.path}, table '{name}'")
        _check_formats(name, loaded[name], mapping)
        _forget(con, mapping, list(loaded), list(mapping.tables)[len(loaded) :], mapping.rules)
    return loaded


def _check_formats(name: str, table: LoadedTable, mapping: Mapping) -> None:
    """Refuse a column of times most of whose cells cannot be read.

    A few such cells are in any export, and are counted. If they are more than half, the column has another format, and
    what rules make of the rest would pass for what the source says. A rule whose `missing_times` admits them may.
    """
    for column, (count, where) in table.unreadable.items():
        share = count / table.filled[column]
        word = re.compile(rf"\b{re.escape(column)}\b", re.IGNORECASE)
        readers = [rule for rule in mapping.rules if rule.table == name and word.search(rule.time or "")]
        if share > MOST and not any(rule.missing_times >= share for rule in readers):
            raise InputError(
                f"{mapping.path}, table '{name}': {count} of {table.filled[column]} cells in column '{column}' are not "
                f'times, the first at {where}; give its format in the mapping ("time FORMAT"), fix the file, or allow '
                "such rows with `missing_times`."
            )


def _run_all(
    con: duckdb.DuckDBPyConnection,
    mapping: Mapping,
    loaded: dict[str, LoadedTable],
    spill: Spill,
    progress: Progress,
) -> tuple[dict[int, RuleResult], dict[str, int]]:
    """The result of each rule by its number, and how many rows of each table no rule selects.

    Rules run table by table; a table is dropped once no later rule needs it.
    """
    steps = len(mapping.tables) + len(mapping.rules)
    results: dict[int, RuleResult] = {}
    unread: dict[str, int] = {}
    for at, name in enumerate(loaded):
        rules = [numbered for numbered in _rules(mapping) if numbered[1].table == name]
        for number, rule, _ in rules:
            progress(len(loaded) + len(results), steps, stage=f"events from {name}")
            results[number] = find_events(con, rule, number, loaded[name], spill, mapping.leaks)
        if rules:
            place = f"{mapping.path}, table '{name}'"
            unread[name] = count_unselected(con, name, tuple(rule for _, rule, _ in rules), place)
        behind = list(loaded)[at + 1 :]
        _forget(con, mapping, list(loaded), [], tuple(rule for rule in mapping.rules if rule.table in behind))
    return results, unread


def _load(
    con: duckdb.DuckDBPyConnection,
    name: str,
    table: FileTable | RowTable | QueryTable | JsonTable,
    raw: Path | Database,
    place: str,
) -> LoadedTable:
    if isinstance(table, FileTable):
        return load_files(con, name, table, raw)
    if isinstance(table, JsonTable) and isinstance(raw, Database):
        raise InputError(f"{place} is JSON, which is read from files: give a folder instead of {raw}.")
    if isinstance(table, JsonTable):
        return load_json(con, name, table, raw, place)
    if isinstance(table, RowTable):
        load_rows(con, name, table, place)
    else:
        numbered = f"row_number() OVER () - 1 AS _row, {literal(name)} AS _file, 0::BIGINT AS _unreadable"
        run_sql(con, f"CREATE TABLE {quoted(name)} AS SELECT {numbered}, * FROM ({table.sql})", place)
    return LoadedTable((), con.execute(f"SELECT count(*) FROM {quoted(name)}").fetchall()[0][0], {})


def _lock(con: duckdb.DuckDBPyConnection, events: Path) -> None:
    """From here on the mapping's SQL can reach only the tables and the folder `events`: no other files, no network."""
    events.mkdir()
    con.execute(f"SET allowed_directories = [{literal(f'{events}/')}]")
    con.execute("SET enable_external_access = false")
    con.execute("SET preserve_insertion_order = false")  # rows carry their position


def _forget(
    con: duckdb.DuckDBPyConnection,
    mapping: Mapping,
    names: list[str],
    later: list[str],
    rules: tuple[EventRule, ...],
) -> None:
    """Drop those of the tables `names` that no table in `later`, no rule in `rules` and no macro mentions."""
    queries = [table.sql for name in later if isinstance(table := mapping.tables[name], QueryTable)]
    text = " ".join([*queries, *mapping.macros.values(), *(_words(rule) for rule in rules)]).casefold()
    for name in names:
        if name.casefold() not in text:
            con.execute(f"DROP TABLE IF EXISTS {quoted(name)}")


def _words(rule: EventRule) -> str:
    """All SQL of a rule, which may mention any table."""
    expressions = [getattr(rule, name) or "" for name in EXPRESSIONS]
    conditions = [*rule.drop.values(), *rule.count.values()]
    return " ".join([rule.table, *rule.join, *expressions, *conditions, *(rule.range or ()), *(rule.stay or ())])


def _read(
    name: str, table: LoadedTable, mapping: Mapping, results: dict[int, RuleResult], unread: dict[str, int]
) -> ExtractedTable:
    rules = []
    for number, rule in enumerate(mapping.rules, 1):
        if rule.table == name:
            result = results[number]
            unselected = table.rows - result.selected
            dropped = ({"not selected": unselected} if unselected else {}) | result.dropped
            rules.append(ExtractedRule(number, rule.code, table.rows, dropped, result.counted))
    unreadable = {
        column: {"rows": count, "first": where} for column, (count, where) in table.unreadable.items()
    }
    facts = (
        {"unreadable_times": unreadable}
        | ({"rows_without_rule": unread[name]} if rules else {})
        | table.facts
    )
    return ExtractedTable(table.files, table.rows, tuple(rules), facts)
