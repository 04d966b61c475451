"""JSON objects into a DuckDB table: lines of NDJSON, entries of bundles, elements of arrays.

A loaded table has the declared columns (or, without any, the column `resource`) and six more: `_row` (from 0), `_file`
(below the raw folder), `_line` (from 1), `_entry` (from 1, of a bundle or an array, else null; counted through bundles
inside), `_url` (the entry's `fullUrl`) and `_unreadable` (False). An object some of whose entries have a `resource` is
a bundle; one whose entries have none (a list) is a row. What cannot be read is put aside and counted, and the rest
goes on.
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
from sequela.record.ingest.tables.load import Loaded
from sequela.record.ingest.tables.names import find_paths
from sequela.record.ingest.tables.sql import literal, quoted

LINES = (".ndjson", ".jsonl", ".ndjson.gz", ".jsonl.gz")
FIRST = 20  # of the objects that were put aside, so many places are told
OTHER = "(other)"
# SQL: a text that is an object with something in it
IS_OBJECT = r"""regexp_matches(text, '^\s*\{\s*"') AND json_valid(text)"""
DEEP = 8  # so many bundles inside each other are opened
# Into `_documents`: one row a text. `_many` are the objects inside; `_nested`, that some of these may be bundles.
# Every text is parsed twice, and once more only where `_object` does not show that it is an object.
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
# Of `_documents`: the elements of an array as entries; and the entries of a bundle inside in its place.
WRAP = """
UPDATE _documents SET _type = 'OBJECT', _many = list_transform(_many, lambda one: json_object('resource', one))
WHERE _nested AND _type = 'ARRAY' AND len(list_filter(_many, lambda one: {bundle})) > 0
"""
UNFOLD = """
UPDATE _documents SET _many = flatten(list_transform(_many, lambda one:
  CASE WHEN {bundle} THEN json_extract(one, '$.resource.entry[*]') ELSE [one] END))
WHERE _nested AND _type = 'OBJECT' AND len(list_filter(_many, lambda one: {bundle})) > 0
"""
# Into `_read`: one row an object; where it is none, `_reason` says why.
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
class _Aside:
    """What was put aside: reason -> how often, and the first places; and how many rows there are of each kind."""

    rows: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)

    def facts(self) -> dict:
        told = {
            reason: {"rows": rows, "first": self.places[reason]} for reason, rows in sorted(self.rows.items())
        }
        kinds = {"kinds": dict(sorted(self.kinds.items()))} if self.kinds else {}
        return {"quarantined": told} | kinds


def load_json(
    con: duckdb.DuckDBPyConnection, name: str, table: JsonTable, raw: Path | Database, place: str
) -> Loaded:
    """Create the table `name` from the JSON files below the folder `raw`; `place` names it in error messages.

    The facts of the result are "quarantined": reason -> {"rows", "first": places}, and "kinds": kind -> rows, before
    the table's `where` leaves any out.

    Raises:
        InputError: where there is no file, one is damaged or cut off, or not a single row can be read.
    """
    paths = _matching(name, table, raw)
    aside, rows = _Aside(), 0
    _create(con, name, table, place)
    for path in paths:
        shown = path.relative_to(raw).as_posix()
        for batch in _batches(con, path):
            rows += _add(con, name, table, batch, shown, rows, aside)
    con.execute("DROP TABLE IF EXISTS _read; DROP TABLE IF EXISTS _documents")
    facts = aside.facts()
    if rows == 0 and not table.optional:
        first = next(iter(facts["quarantined"].items()), None)
        why = f"; the first is '{first[0]}' at {first[1]['first'][0]}" if first else ""
        raise InputError(
            f"{paths[0]} and {len(paths) - 1} other files hold no row of the table '{name}'{why}."
        )
    return Loaded(tuple(path.relative_to(raw).as_posix() for path in paths), rows, {}, facts)


def _matching(name: str, table: JsonTable, raw: Path | Database) -> list[Path]:
    if not isinstance(raw, Path):
        raise InputError(f"the table '{name}' is made from JSON files: give the folder that holds them.")
    if not raw.is_dir():
        raise InputError(f"there is no folder {raw}: give the folder that holds the raw files.")
    found = {path for pattern in table.json for path in find_paths(raw, pattern)}
    paths = sorted(path for path in found if not path.name.startswith("."))
    if not paths and not table.optional:
        raise InputError(
            f"{raw} has no file {' or '.join(table.json)} (table '{name}'): put it there, or give its folder."
        )
    return paths


def _object(table: JsonTable, text: str) -> str:
    """SQL for one row as a struct, made from the JSON in the column `text`."""
    if table.columns:
        return f"from_json({text}, {literal(structure(table))})"
    return f"{{'resource': json_extract({text}, '$')}}"


def _kind(table: JsonTable) -> str:
    """SQL for the kind of a row, within the struct `_object`; null if the table has no kinds."""
    if table.kind is None:
        return "NULL::VARCHAR"
    if table.columns:
        return f"_object.{quoted(table.kind)}"
    return f"json_extract_string(_object.resource, {literal('$.' + quoted(table.kind))})"


def _create(con: duckdb.DuckDBPyConnection, name: str, table: JsonTable, place: str) -> None:
    fixed = (
        "0::BIGINT AS _row, ''::VARCHAR AS _file, 0::BIGINT AS _line, 0::BIGINT AS _entry, ''::VARCHAR AS _url, "
        "false AS _unreadable"
    )
    empty = f"SELECT {fixed}, unnest(_object) FROM (SELECT {_object(table, literal('{}'))} AS _object)"
    try:
        con.execute(
            f"CREATE TABLE {quoted(name)} AS SELECT * FROM ({empty}) WHERE {table.where or 'true'} LIMIT 0"
        )
    except duckdb.Error as error:
        said = " ".join(str(error).split("LINE 1")[0].split())
        raise InputError(f"{place}: {said}; mend its columns or its `where`.") from error


def _batches(con: duckdb.DuckDBPyConnection, path: Path) -> Iterator[pa.RecordBatch]:
    """Lines, if the file's name or its first line says that each is a value; else the whole file as one.

    Where that is no JSON either, but one of its lines is an object, the file has lines, and the first is damaged.
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
    """Whether the SQL `what` is true of some text."""
    for batch in batches:
        con.register("_lines", batch)
        found = con.execute(f"SELECT coalesce(bool_or({what}), false) FROM _lines").fetchall()[0][0]
        con.unregister("_lines")
        if found:
            return True
    return False


def _bundle(text: str, path: str) -> str:
    """SQL for whether the value at `path` of the JSON `text` is an object with resources in its entries."""
    # Only a word with this name can be the key
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
    aside: _Aside,
) -> int:
    """Append what a batch of lines holds to the table, which has `rows` so far; how many rows were added."""
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
    _count(con, table, file, aside)
    # Lines and entries are each in order already; sorting costs as much as reading
    mixed = con.execute("SELECT count(DISTINCT entry IS NULL) > 1 FROM _read").fetchall()[0][0]
    order = "ORDER BY _line, _entry" if mixed else ""
    added = con.execute(
        f"INSERT INTO {quoted(name)} SELECT {rows} - 1 + row_number() OVER ({order}), * FROM "
        f"(SELECT {literal(file)} AS _file, line AS _line, entry AS _entry, url AS _url, false AS _unreadable, "
        f"unnest(_object) FROM _read WHERE _reason IS NULL) WHERE {table.where or 'true'} {order}"
    )
    return added.fetchall()[0][0]


def _unfold(con: duckdb.DuckDBPyConnection) -> None:
    """Open the bundles inside the documents, and those inside these."""
    con.execute(WRAP.format(bundle=_bundle("one", "$")))
    for _ in range(DEEP):
        if not con.execute(UNFOLD.format(bundle=_bundle("one", "$.resource"))).fetchall()[0][0]:
            return


def _count(con: duckdb.DuckDBPyConnection, table: JsonTable, file: str, aside: _Aside) -> None:
    reasons = con.execute(
        f"SELECT _reason, count(*), list((line, entry) ORDER BY line, entry)[:{FIRST}] FROM _read "
        "WHERE _reason IS NOT NULL GROUP BY 1 ORDER BY 1"
    )
    for reason, count, places in reasons.fetchall():
        aside.rows[reason] += count
        told = aside.places.setdefault(reason, [])
        told += [_place(file, *where) for where in places][: FIRST - len(told)]
    if table.kind:
        # A kind that is no plain word is no kind: it may be anything, a name too
        word = f"CASE WHEN regexp_full_match(_kind, '[A-Za-z]{{1,64}}') THEN _kind ELSE {literal(OTHER)} END"
        kinds = con.execute(
            f"SELECT {word}, count(*) FROM (SELECT {_kind(table)} AS _kind FROM _read WHERE _reason IS NULL) GROUP BY 1"
        )
        aside.kinds.update(dict(kinds.fetchall()))


def _place(file: str, line: int, entry: int | None) -> str:
    if entry is None:
        return f"{file}, line {line}"
    return f"{file}, entry {entry}" if line == 1 else f"{file}, line {line}, entry {entry}"
