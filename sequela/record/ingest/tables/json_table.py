"""Loads JSON objects into a DuckDB table: lines of NDJSON, entries of bundles, elements of arrays.

A loaded table has the declared columns (or, without any, the column `resource`) and six more: `_row` (from 0), `_file`
(relative to the raw folder), `_line` (from 1), `_entry` (from 1, in a bundle or array, else null; nested bundles are
counted through), `_url` (the entry's `fullUrl`) and `_unreadable` (0). An object is a bundle if any of its entries
has a `resource`; otherwise it is a row. What cannot be read is quarantined and counted, and reading goes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import duckdb
import pyarrow as pa

from sequela.errors import InputError
from sequela.record.ingest.mapping import JsonTable
from sequela.record.ingest.tables.database import Database
from sequela.record.ingest.tables.json_lines import read_lines, read_whole
from sequela.record.ingest.tables.json_shape import structure
from sequela.record.ingest.tables.load import LoadedTable
from sequela.record.ingest.tables.names import find_paths
from sequela.record.ingest.tables.packed import each_once
from sequela.record.ingest.tables.sql import literal, quoted

LINES = (".ndjson", ".jsonl", ".ndjson.gz", ".jsonl.gz")
FIRST = 20  # places listed per reason for quarantine
OTHER = "(other)"
# SQL: a text that is a nonempty object
IS_OBJECT = r"""regexp_matches(text, '^\s*\{\s*"') AND json_valid(text)"""
DEEP = 8  # nested bundles that are opened
# Creates `_documents`, one row per text. `_many`: the objects inside; `_nested`: some of them may be bundles. A text is
# parsed twice, and a third time only if `_object` does not show that it is an object.
DOCUMENTS = r"""
CREATE OR REPLACE TEMP TABLE _documents AS
SELECT line, _type, _object, CASE WHEN _type = 'ARRAY' THEN json_extract(text, '$[*]') ELSE {entries} END AS _many,
  {nested} AS _nested,
  CASE WHEN text IS NULL THEN 'not UTF-8' ELSE 'not JSON' END AS _no_type
FROM (
  SELECT line, text, _object,
    CASE WHEN NOT _valid THEN NULL WHEN {kind} IS NOT NULL THEN 'OBJECT' ELSE json_type(text) END AS _type
  FROM (SELECT line, text, _valid, CASE WHEN _valid THEN {object} END AS _object
    FROM (SELECT line, text, coalesce(json_valid(text), false) AS _valid FROM _lines
      WHERE text IS NULL OR trim(text, e' \t\r\n') <> '')))
"""
# In `_documents`: turns the elements of an array into entries, and replaces a nested bundle by its entries.
WRAP = """
UPDATE _documents SET _type = 'OBJECT', _many = list_transform(_many, lambda one: json_object('resource', one))
WHERE _nested AND _type = 'ARRAY' AND len(list_filter(_many, lambda one: {bundle})) > 0
"""
UNFOLD = """
UPDATE _documents SET _many = flatten(list_transform(_many, lambda one:
  CASE WHEN {bundle} THEN json_extract(one, '$.resource.entry[*]') ELSE [one] END))
WHERE _nested AND _type = 'OBJECT' AND len(list_filter(_many, lambda one: {bundle})) > 0
"""
# Creates `_read`, one row per object; `_reason` says why a text is not one.
READ = r"""
CREATE OR REPLACE TEMP TABLE _read AS
SELECT line, entry, url, _object, CASE WHEN _type IS NULL THEN _no_type WHEN _type <> 'OBJECT' THEN 'no object'
  WHEN {kind} IS NULL THEN {no_kind} END AS _reason
FROM (
  SELECT line, NULL::BIGINT AS entry, NULL::VARCHAR AS url, _type, _no_type, _object FROM _documents WHERE _many IS NULL
  UNION ALL
  SELECT line, entry, url, json_type(text), 'no resource', {object}
  FROM (SELECT line, entry, json_extract_string(_one, '$.fullUrl') AS url,
      CASE WHEN _type = 'OBJECT' THEN json_extract(_one, '$.resource') ELSE _one END AS text
    FROM (SELECT line, _type, unnest(_many) AS _one, generate_subscripts(_many, 1) AS entry
      FROM _documents WHERE _many IS NOT NULL)))
"""


@dataclass
class _Quarantine:
    """What was quarantined: reason -> count, and the first places. Also the number of rows of each kind."""

    rows: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)

    def facts(self) -> dict:
        reasons = {
            reason: {"rows": rows, "first": self.places[reason]} for reason, rows in sorted(self.rows.items())
        }
        kinds = {"kinds": dict(sorted(self.kinds.items()))} if self.kinds else {}
        return {"quarantined": reasons} | kinds


def load_json(
    con: duckdb.DuckDBPyConnection, name: str, table: JsonTable, raw: Path | Database, place: str
) -> LoadedTable:
    """Create the table `name` from the JSON files below the folder `raw`; `place` names it in error messages.

    The facts of the result are "quarantined": reason -> {"rows", "first": places}, and "kinds": kind -> number of rows,
    before the table's `where` is applied.

    Raises:
        InputError: if there is no file, a file is damaged or truncated, or no row can be read.
    """
    paths = _matching(name, table, raw)
    quarantine, rows = _Quarantine(), 0
    _create(con, name, table, place)
    for path in paths:
        shown = path.relative_to(raw).as_posix()
        for batch in _batches(con, path):
            rows += _add(con, name, table, batch, shown, rows, quarantine)
    con.execute("DROP TABLE IF EXISTS _read; DROP TABLE IF EXISTS _documents")
    facts = quarantine.facts()
    if rows == 0 and not table.optional:
        first = next(iter(facts["quarantined"].items()), None)
        why = f"; the first is '{first[0]}' at {first[1]['first'][0]}" if first else ""
        raise InputError(
            f"{paths[0]} and {len(paths) - 1} other files hold no row of the table '{name}'{why}."
        )
    return LoadedTable(tuple(path.relative_to(raw).as_posix() for path in paths), rows, {}, facts)


def _matching(name: str, table: JsonTable, raw: Path | Database) -> list[Path]:
    if not isinstance(raw, Path):
        raise InputError(f"the table '{name}' is made from JSON files: give the folder that holds them.")
    if not raw.is_dir():
        raise InputError(f"there is no folder {raw}: give the folder that holds the raw files.")
    paths = each_once(path for pattern in table.json for path in find_paths(raw, pattern))
    if not paths and not table.optional:
        raise InputError(
            f"{raw} has no file {' or '.join(table.json)} (table '{name}'): put it there, or give the right folder."
        )
    return paths


def _object(table: JsonTable, text: str) -> str:
    """SQL for one row as a struct, made from the JSON in the column `text`."""
    if table.columns:
        return f"from_json({text}, {literal(structure(table))})"
    return f"{{'resource': json_extract({text}, '$')}}"


def _kind(table: JsonTable) -> str:
    """SQL for the kind of a row, from the struct `_object`; null if the table has no kinds."""
    if table.kind is None:
        return "NULL::VARCHAR"
    if table.columns:
        return f"_object.{quoted(table.kind)}"
    return f"json_extract_string(_object.resource, {literal('$.' + quoted(table.kind))})"


def _create(con: duckdb.DuckDBPyConnection, name: str, table: JsonTable, place: str) -> None:
    fixed = (
        "0::BIGINT AS _row, ''::VARCHAR AS _file, 0::BIGINT AS _line, 0::BIGINT AS _entry, ''::VARCHAR AS _url, "
        "0::BIGINT AS _unreadable"
    )
    empty = f"SELECT {fixed}, unnest(_object) FROM (SELECT {_object(table, literal('{}'))} AS _object)"
    try:
        con.execute(
            f"CREATE TABLE {quoted(name)} AS SELECT * FROM ({empty}) WHERE {table.where or 'true'} LIMIT 0"
        )
    except duckdb.Error as error:
        message = " ".join(str(error).split("LINE 1")[0].split())
        raise InputError(f"{place}: {message}; fix its columns or its `where`.") from error


def _batches(con: duckdb.DuckDBPyConnection, path: Path) -> Iterator[pa.RecordBatch]:
    """The lines of the file if its name or its first line shows that each is a JSON value; else the whole file as one.

    If the whole file is not valid JSON but one of its lines is an object, the file has lines and the first is damaged.
    """
    lines = read_lines(path)
    if path.name.lower().endswith(LINES):
        return lines
    before = []
    for batch in lines:
        before.append(batch)
        first = next((text for text in map(str, batch["text"]) if text.strip()), None)
        if first is not None:
            alone = con.execute("SELECT json_valid($1)", [first]).fetchall()[0][0]
            if alone:
                return chain(before, lines)
            whole = list(read_whole(path))
            if _any(con, whole, "json_valid(text)") or not _any(con, read_lines(path), IS_OBJECT):
                return iter(whole)
            return read_lines(path)
    return iter(before)


def _any(con: duckdb.DuckDBPyConnection, batches: Iterable[pa.RecordBatch], what: str) -> bool:
    """Whether the SQL condition `what` holds for any text."""
    for batch in batches:
        con.register("_lines", batch)
        holds = con.execute(f"SELECT coalesce(bool_or({what}), false) FROM _lines").fetchall()[0][0]
        con.unregister("_lines")
        if holds:
            return True
    return False


def _bundle(text: str, path: str) -> str:
    """SQL for whether the value at `path` of the JSON `text` is an object with resources in its entries."""
    # A cheap test first: without this word there is no such key.
    return (
        f"(contains({text}, '\"entry\"') AND json_type({text}, '{path}.entry') = 'ARRAY' "
        f"AND len(json_extract({text}, '{path}.entry[*].resource')) > 0)"
    )


def _add(
    con: duckdb.DuckDBPyConnection,
    name: str,
    table: JsonTable,
    batch: pa.RecordBatch,
    file: str,
    rows: int,
    quarantine: _Quarantine,
) -> int:
    """Append the rows in a batch of lines to the table, which has `rows` so far; the number of rows added."""
    con.register("_lines", batch)
    entries, nested = "NULL", "false"
    if "entry" not in table.columns:
        entries = (
            f"CASE WHEN _type = 'OBJECT' AND {_bundle('text', '$')} THEN json_extract(text, '$.entry[*]') END"
        )
        nested = "coalesce(_type IN ('OBJECT', 'ARRAY') AND contains(text, '\"entry\"'), false)"
    no_kind = literal(f"no {table.kind}") if table.kind else "NULL"
    words = {"object": _object(table, "text"), "kind": _kind(table), "no_kind": no_kind}
    con.execute(DOCUMENTS.format(entries=entries, nested=nested, **words))
    con.unregister("_lines")
    _unfold(con)
    con.execute(READ.format(**words))
    _count(con, table, file, quarantine)
    # Lines and entries are already in order, and sorting would cost as much as reading.
    mixed = con.execute("SELECT count(DISTINCT entry IS NULL) > 1 FROM _read").fetchall()[0][0]
    order = "ORDER BY _line, _entry" if mixed else ""
    added = con.execute(
        f"INSERT INTO {quoted(name)} SELECT {rows} - 1 + row_number() OVER ({order}), * FROM "
        f"(SELECT {literal(file)} AS _file, line AS _line, entry AS _entry, url AS _url, 0::BIGINT AS _unreadable, "
        f"unnest(_object) FROM _read WHERE _reason IS NULL) WHERE {table.where or 'true'} {order}"
    )
    return added.fetchall()[0][0]


def _unfold(con: duckdb.DuckDBPyConnection) -> None:
    """Replace bundles nested in the documents by their entries, level by level."""
    con.execute(WRAP.format(bundle=_bundle("one", "$")))
    for _ in range(DEEP):
        if not con.execute(UNFOLD.format(bundle=_bundle("one", "$.resource"))).fetchall()[0][0]:
            return


def _count(con: duckdb.DuckDBPyConnection, table: JsonTable, file: str, quarantine: _Quarantine) -> None:
    reasons = con.execute(
        f"SELECT _reason, count(*), list((line, entry) ORDER BY line, entry)[:{FIRST}] FROM _read "
        "WHERE _reason IS NOT NULL GROUP BY 1 ORDER BY 1"
    )
    for reason, count, places in reasons.fetchall():
        quarantine.rows[reason] += count
        listed = quarantine.places.setdefault(reason, [])
        listed += [_place(file, *where) for where in places][: FIRST - len(listed)]
    if table.kind:
        # Only plain words are reported: anything else could be patient data, such as a name.
        word = f"CASE WHEN regexp_full_match(_kind, '[A-Za-z]{{1,64}}') THEN _kind ELSE {literal(OTHER)} END"
        kinds = con.execute(
            f"SELECT {word}, count(*) FROM (SELECT {_kind(table)} AS _kind FROM _read WHERE _reason IS NULL) GROUP BY 1"
        )
        quarantine.kinds.update(dict(kinds.fetchall()))


def _place(file: str, line: int, entry: int | None) -> str:
    if entry is None:
        return f"{file}, line {line}"
    return f"{file}, entry {entry}" if line == 1 else f"{file}, line {line}, entry {entry}"
