"""What a mapping file says: which raw tables there are, and which events a row of them makes.

A mapping is TOML whose expressions are SQL (DuckDB); docs/reference/mapping.md teaches how to write one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sequela.errors import InputError
from sequela.record.ingest.leakage import Leaks

# Words for people; `sequela.record.ingest.tables.cells` reads each from text. "time" may be followed by formats.
COLUMN_TYPES = ("text", "integer", "number", "quantity", "time", "duration")
# What a value inside JSON is read as; one of another kind is null, "json" is the value itself.
JSON_TYPES = {
    "text": "VARCHAR",
    "integer": "BIGINT",
    "number": "DOUBLE",
    "boolean": "BOOLEAN",
    "json": "JSON",
}


@dataclass(frozen=True)
class FileTable:
    """Rows that lie in files: CSV, Parquet, or many small CSV files, also inside tar archives; or in a database.

    Names of files, tables and columns match without regard to case.

    Attributes:
        files: glob patterns below the raw folder; the first that matches anything is used.
        columns: name -> one of `COLUMN_TYPES`, or "time FORMAT | FORMAT"; only these are read.
        optional_columns: those of `columns` that need not be there; where one is absent, its cells are empty.
        delimiter, quote: between and around the cells of CSV, "" for no quote; None where the header tells.
        members: which members of a tar archive are rows of this table (a glob on the member's path).
        missing: cells that mean "no value" besides the empty one.
        optional: True if the table may be absent or empty.
        table: what it is called in a database, "NAME" or "SCHEMA.NAME"; None for its name in the mapping.
        encoding: of CSV, by its name in Python.
        timezone: IANA name of the zone whose local times the table's times become.
    """

    files: tuple[str, ...]
    columns: dict[str, str]
    delimiter: str | None = None
    quote: str | None = None
    members: str = "*"
    missing: tuple[str, ...] = ()
    optional: bool = False
    optional_columns: frozenset[str] = frozenset()
    table: str | None = None
    encoding: str = "utf-8"
    timezone: str = "UTC"

    @property
    def required_columns(self) -> list[str]:
        """The columns without which the table cannot be read."""
        return [column for column in self.columns if column not in self.optional_columns]


@dataclass(frozen=True)
class RowTable:
    """Rows written in the mapping itself: a dictionary of codes, units and plausible ranges."""

    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]


@dataclass(frozen=True)
class QueryTable:
    """Rows that a SQL query makes from the tables before it."""

    sql: str


@dataclass(frozen=True)
class JsonTable:
    """Rows that are JSON objects: lines of NDJSON files, or the entries of bundles (`entry[].resource`).

    Attributes:
        json: glob patterns below the raw folder; every file that matches one of them is read.
        columns: key of the object -> what lies there: one of `JSON_TYPES`, the name of a shape, a table of such
            keys (an object), or a list that holds one of these (an array). Empty: one column `resource` of JSON.
        shapes: names for objects that occur in several places.
        kind: the key that says what a row is; rows without it are put aside, and counted as "no KIND".
        where: SQL; only rows for which it holds are kept.
        optional: True if there may be no file or no row.
    """

    json: tuple[str, ...]
    columns: dict[str, Any] = field(default_factory=dict)
    shapes: dict[str, Any] = field(default_factory=dict)
    kind: str | None = None
    where: str | None = None
    optional: bool = False


@dataclass(frozen=True)
class Rule:
    """One kind of event: every row of `table` for which `where` holds makes one, or is dropped and counted.

    All fields but `table`, `keep_without_value`, `missing_times` and `place` are SQL expressions over the row.

    Attributes:
        join: tables whose columns the expressions need as well, "TABLE USING (KEY)" or "TABLE ON condition";
            rows without a partner keep nulls, and a partner must be unique.
        patient: the patient's number.
        time: when it happened; None makes a static event.
        value: the numeric value; None for events without one.
        text: free text that belongs to the event.
        media: the path of a file that belongs to it (an image, a signal), relative to the dataset's folder.
        keep_without_value: True if an event whose `value` is null is still an event.
        range: lowest and highest plausible value, both included.
        drop: reason -> condition; rows that fulfil it are dropped and counted under the reason.
        count: words -> condition; how many of the rule's events fulfil it is told in the report (of several, the first
            that an event fulfils), and nothing else.
        late: whether its events are known only at the end of the stay that opens at their time (see
            `sequela.record.ingest.leakage`), whatever their code; None: their code tells.
        missing_times: the share of the rows that may lack a readable time; above it, ingest stops.
        description, unit: for people; they end up in metadata/codes.parquet.
        place: where the rule is written, for messages.
    """

    table: str
    code: str
    patient: str
    join: tuple[str, ...] = ()
    where: str | None = None
    time: str | None = None
    value: str | None = None
    text: str | None = None
    media: str | None = None
    keep_without_value: bool = False
    range: tuple[str, str] | None = None
    drop: dict[str, str] = field(default_factory=dict)
    count: dict[str, str] = field(default_factory=dict)
    late: bool | None = None
    missing_times: float = 0.01
    description: str | None = None
    unit: str | None = None
    place: str = field(default="", compare=False)


@dataclass(frozen=True)
class Mapping:
    """A whole mapping file. Events of a patient at the same time are kept in the order of `rules`.

    `macros` are SQL functions of the mapping's own: "name(argument, ...)" -> SQL. `leaks` says which codes are known
    only at the end of a stay.
    """

    name: str
    path: Path
    tables: dict[str, FileTable | RowTable | QueryTable | JsonTable]
    rules: tuple[Rule, ...]
    metadata: dict[str, Any]
    macros: dict[str, str] = field(default_factory=dict)
    timezone: str = "UTC"
    leaks: Leaks = field(default_factory=Leaks)


def filled(said: dict, each: RowTable, place: str) -> list[dict]:
    """`said` once for each row of `each`: wherever a text of it has "{COLUMN}", the row's cell stands, as it is.

    Raises:
        InputError: where a column of `each` is used nowhere; `place` names the rule.
    """
    for column in each.columns:
        if _fill(said, {column: ""}) == said:
            raise InputError(f"{place}, each: nothing in the rule says {{{column}}}; say it, or leave the column out.")
    return [_fill(said, dict(zip(each.columns, row, strict=True))) for row in each.rows]


def _fill(said: object, cells: dict[str, object]) -> object:
    if isinstance(said, str):
        for column, cell in cells.items():
            said = said.replace(f"{{{column}}}", str(cell))
        return said
    if isinstance(said, list):
        return [_fill(one, cells) for one in said]
    if isinstance(said, dict):
        return {_fill(key, cells): _fill(value, cells) for key, value in said.items()}
    return said
