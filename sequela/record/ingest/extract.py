"""The rows of a mapping's tables, gathered as events not yet sorted, with an account of those that are none."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from sequela.errors import InputError
from sequela.progress import Progress
from sequela.record.ingest.leakage import Leaks
from sequela.record.ingest.mapping import FileTable, JsonTable, Mapping, QueryTable, RowTable, Rule
from sequela.record.ingest.rule import EXPRESSIONS, Found, count_rows, count_unread, find_events
from sequela.record.ingest.spill import Spill, database_in, parts_for
from sequela.record.ingest.tables.cells import add_macros
from sequela.record.ingest.tables.database import Database
from sequela.record.ingest.tables.json_table import load_json
from sequela.record.ingest.tables.load import Loaded, load_files, load_rows
from sequela.record.ingest.tables.sql import literal, quoted, run_sql


@dataclass(frozen=True)
class Ruled:
    """What one rule read and left aside; what it made lies in the spill under its `number`."""

    number: int
    code: str
    rows_in: int
    dropped: dict[str, int]
    counted: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Read:
    """One table: its files, how many rows it has, what its rules made of them, and facts worth reporting."""

    files: tuple[str, ...]
    rows: int
    rules: tuple[Ruled, ...]
    facts: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Gathered:
    """Events in the spill, not yet sorted, and where they came from.

    Attributes:
        tables: name -> what was read.
        meanings: code -> description, for people.
        events: how many they are.
        payload: which of the columns `PAYLOAD` any of them has.
        name, metadata: of the dataset.
        leaks: what is known only at the end of a stay.
        parents: code -> parent codes, where the source says so.
        splits: whether the spill also says whose split is whose, under the name "splits".
    """

    spill: Spill
    tables: dict[str, Read]
    meanings: dict[str, str]
    events: int
    payload: frozenset[str]
    name: str
    metadata: dict
    leaks: Leaks = field(default_factory=Leaks)
    parents: dict[str, list[str]] = field(default_factory=dict)
    splits: bool = False


def gather(
    mapping: Mapping, raw: Path | Database, scratch: Path, memory: str, events_a_part: int, progress: Progress
) -> Gathered:
    """Read all tables below `raw`, run all rules, and leave their events in the folder `scratch`.

    `progress` counts tables and rules, of all of both.

    Raises:
        InputError: where the mapping or the raw files are not as they should be.
    """
    with database_in(scratch, memory) as con:
        loaded = _load_all(con, mapping, raw, progress)
        _lock(con, scratch / "events")
        rows = sum(count_rows(con, rule, place) for _, rule, place in _rules(mapping))
        spill = Spill(scratch / "events", parts_for(rows, events_a_part))
        found, unread = _run_all(con, mapping, loaded, spill, progress)
    tables = {name: _read(name, loaded[name], mapping, found, unread) for name in loaded}
    meanings = {code: text for number in sorted(found) for code, text in found[number].meanings.items()}
    events = sum(one.selected - sum(one.dropped.values()) for one in found.values())
    payload = frozenset().union(*(one.payload for one in found.values()))
    return Gathered(spill, tables, meanings, events, payload, mapping.name, mapping.metadata, mapping.leaks)


def _rules(mapping: Mapping) -> list[tuple[int, Rule, str]]:
    """(number, rule, where it is written)."""
    return [(number, rule, rule.place) for number, rule in enumerate(mapping.rules, 1)]


def _load_all(
    con: duckdb.DuckDBPyConnection, mapping: Mapping, raw: Path | Database, progress: Progress
) -> dict[str, Loaded]:
    """Create all tables; those that only other tables are made from are gone afterwards."""
    steps = len(mapping.tables) + len(mapping.rules)
    loaded: dict[str, Loaded] = {}
    add_macros(con, mapping.timezone)
    for head, sql in mapping.macros.items():
        run_sql(con, f"CREATE MACRO {head} AS ({sql})", f"{mapping.path}")
    for name, table in mapping.tables.items():
        progress(len(loaded), steps, stage=f"read {name}")
        loaded[name] = _load(con, name, table, raw, f"{mapping.path}, table '{name}'")
        _forget(con, mapping, list(loaded), list(mapping.tables)[len(loaded) :], mapping.rules)
    return loaded


def _run_all(
    con: duckdb.DuckDBPyConnection,
    mapping: Mapping,
    loaded: dict[str, Loaded],
    spill: Spill,
    progress: Progress,
) -> tuple[dict[int, Found], dict[str, int]]:
    """What each rule found, by its number, and how many rows of each table no rule selects.

    Rules run table by table, and a table is dropped when no later rule speaks of it.
    """
    steps = len(mapping.tables) + len(mapping.rules)
    found: dict[int, Found] = {}
    unread: dict[str, int] = {}
    for at, name in enumerate(loaded):
        own = [one for one in _rules(mapping) if one[1].table == name]
        for number, rule, place in own:
            progress(len(loaded) + len(found), steps, stage=f"events from {name}")
            found[number] = find_events(con, rule, number, loaded[name], spill, place)
        if own:
            place = f"{mapping.path}, table '{name}'"
            unread[name] = count_unread(con, name, tuple(rule for _, rule, _ in own), place)
        behind = list(loaded)[at + 1 :]
        _forget(con, mapping, list(loaded), [], tuple(rule for rule in mapping.rules if rule.table in behind))
    return found, unread


def _load(
    con: duckdb.DuckDBPyConnection,
    name: str,
    table: FileTable | RowTable | QueryTable | JsonTable,
    raw: Path | Database,
    place: str,
) -> Loaded:
    if isinstance(table, FileTable):
        return load_files(con, name, table, raw)
    if isinstance(table, JsonTable) and isinstance(raw, Database):
        raise InputError(f"{place} is JSON, which is read from files: give a folder instead of {raw}.")
    if isinstance(table, JsonTable):
        return load_json(con, name, table, raw, place)
    if isinstance(table, RowTable):
        load_rows(con, name, table, place)
    else:
        numbered = f"row_number() OVER () - 1 AS _row, {literal(name)} AS _file, false AS _unreadable"
        run_sql(con, f"CREATE TABLE {quoted(name)} AS SELECT {numbered}, * FROM ({table.sql})", place)
    return Loaded((), con.execute(f"SELECT count(*) FROM {quoted(name)}").fetchall()[0][0], {})


def _lock(con: duckdb.DuckDBPyConnection, events: Path) -> None:
    """From here on the mapping's SQL sees the tables and the folder of `events`: no other files, no network."""
    events.mkdir()
    con.execute(f"SET allowed_directories = [{literal(f'{events}/')}]")
    con.execute("SET enable_external_access = false")
    con.execute("SET preserve_insertion_order = false")  # rows carry their place with them


def _forget(
    con: duckdb.DuckDBPyConnection,
    mapping: Mapping,
    names: list[str],
    later: list[str],
    rules: tuple[Rule, ...],
) -> None:
    """Drop those of the tables `names` that neither a table of `later`, one of `rules` nor a macro speaks of."""
    queries = [table.sql for name in later if isinstance(table := mapping.tables[name], QueryTable)]
    said = " ".join([*queries, *mapping.macros.values(), *(_words(rule) for rule in rules)]).casefold()
    for name in names:
        if name.casefold() not in said:
            con.execute(f"DROP TABLE IF EXISTS {quoted(name)}")


def _words(rule: Rule) -> str:
    """All that a rule says in SQL, where it may speak of any table."""
    expressions = [getattr(rule, name) or "" for name in EXPRESSIONS]
    conditions = [*rule.drop.values(), *rule.count.values()]
    return " ".join([rule.table, *rule.join, *expressions, *conditions, *(rule.range or ())])


def _read(
    name: str, table: Loaded, mapping: Mapping, found: dict[int, Found], unread: dict[str, int]
) -> Read:
    rules = []
    for number, rule in enumerate(mapping.rules, 1):
        if rule.table == name:
            aside = table.rows - found[number].selected
            dropped = ({"not selected": aside} if aside else {}) | found[number].dropped
            rules.append(Ruled(number, rule.code, table.rows, dropped, found[number].counted))
    unreadable = {
        column: {"rows": count, "first": where} for column, (count, where) in table.unreadable.items()
    }
    facts = (
        {"unreadable_times": unreadable}
        | ({"rows_without_rule": unread[name]} if rules else {})
        | table.facts
    )
    return Read(table.files, table.rows, tuple(rules), facts)
