"""The contents of a mapping file: the raw tables, and the events that their rows make.

A mapping is TOML with SQL expressions (DuckDB); docs/reference/mapping.md explains how to write one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sequela.errors import InputError
from sequela.record.ingest.leakage import LeakageRules

SHIPPED = Path(__file__).parent / "sources"
# `sequela.record.ingest.tables.cells` parses each of them from text. "time" may be followed by formats.
COLUMN_TYPES = ("text", "integer", "number", "quantity", "time", "duration")
# The DuckDB type of a value inside JSON. A value of another type is read as null; "json" keeps it as it is.
JSON_TYPES = {
    "text": "VARCHAR",
    "integer": "BIGINT",
    "number": "DOUBLE",
    "boolean": "BOOLEAN",
    "json": "JSON",
}


@dataclass(frozen=True)
class FileTable:
    """Rows from files (CSV, Parquet, or many small CSV files inside tar archives) or from a database table.

    Names of files, tables and columns are matched case-insensitively.

    Attributes:
        files: glob patterns below the raw folder; the first one that matches any file is used.
        columns: name -> one of `COLUMN_TYPES`, or "time FORMAT | FORMAT"; only these are read.
        optional_columns: those of `columns` that may be absent; their cells are then empty.
        delimiter, quote: of CSV, "" for no quote; None to detect it from the header.
        members: glob pattern for the tar members that hold this table.
        missing: cells that mean "no value", besides the empty cell.
        optional: True if the table may be absent or empty.
        table: its name in a database, "NAME" or "SCHEMA.NAME"; None for its name in the mapping.
        encoding: of CSV, by its Python name.
        timezone: IANA name of the zone; times with an offset are converted to its local time.
        sentinels: days ("9999-12-31") that stand for no time.
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
    sentinels: tuple[str, ...] = ()

    @property
    def required_columns(self) -> list[str]:
        """The columns that must be present."""
        return [column for column in self.columns if column not in self.optional_columns]


@dataclass(frozen=True)
class RowTable:
    """Rows written in the mapping itself, such as a dictionary of codes, units and plausible ranges."""

    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]


@dataclass(frozen=True)
class QueryTable:
    """Rows of an SQL query over the tables above it in the mapping."""

    sql: str


@dataclass(frozen=True)
class JsonTable:
    """Rows that are JSON objects: lines of NDJSON files or entries of bundles (`entry[].resource`).

    Attributes:
        json: glob patterns below the raw folder; every file that matches any of them is read.
        columns: key of the object -> its type: one of `JSON_TYPES`, the name of a shape, a table of such keys (an
            object), or a list with one of these (an array). If empty, there is one JSON column, `resource`.
        shapes: names for object types that occur in several places.
        kind: the key that tells what a row is; rows without it are quarantined and counted as "no KIND".
        where: SQL condition; only rows that fulfill it are kept.
        optional: True if there may be no file or no row.
    """

    json: tuple[str, ...]
    columns: dict[str, Any] = field(default_factory=dict)
    shapes: dict[str, Any] = field(default_factory=dict)
    kind: str | None = None
    where: str | None = None
    optional: bool = False


@dataclass(frozen=True)
class EventRule:
    """One kind of event: every row of `table` that fulfills `where` makes one event, or is dropped and counted.

    All fields but `table`, `keep_without_value`, `missing_times` and `place` are SQL expressions over the row.

    Attributes:
        join: further tables that the expressions use, "TABLE USING (KEY)" or "TABLE ON condition"; rows without a
            partner get nulls, and there may be only one partner.
        patient: the patient id, an integer.
        time: when it happened; None for a static event.
        value: the numeric value; None for events without one.
        answer: a category, such as never, former or current: where there is no value, it becomes the last part of the
            code (see `sequela.record.ingest.rule.CATEGORIES`).
        text: free text that belongs to the event.
        media: the path of a file that belongs to it (an image, a signal), relative to the dataset's folder.
        keep_without_value: True if an event whose `value` is null is still an event.
        range: lowest and highest plausible value, both included.
        drop: reason -> condition; rows that fulfill it are dropped and counted under the reason.
        count: label -> condition; the report gives the number of events under each label (an event counts under the
            first condition that it fulfills). Nothing else changes.
        stay: when the stay that the row names opens and closes, null where it is not known. It decides where an event
            known late belongs, and how late a date without a clock may stand, in place of a guess by time.
        late: whether its events are known only at the end of the stay that opens at their time (see
            `sequela.record.ingest.leakage`), whatever their code; None to decide by the code.
        missing_times: the share of rows that may lack a readable time; above it, ingest stops.
        description, unit: for people, in metadata/codes.parquet.
        place: position in the mapping file, for error messages.
    """

    table: str
    code: str
    patient: str
    join: tuple[str, ...] = ()
    where: str | None = None
    time: str | None = None
    value: str | None = None
    answer: str | None = None
    text: str | None = None
    media: str | None = None
    keep_without_value: bool = False
    range: tuple[str, str] | None = None
    drop: dict[str, str] = field(default_factory=dict)
    count: dict[str, str] = field(default_factory=dict)
    stay: tuple[str, str] | None = None
    late: bool | None = None
    missing_times: float = 0.01
    description: str | None = None
    unit: str | None = None
    place: str = field(default="", compare=False)


@dataclass(frozen=True)
class Mapping:
    """A whole mapping file. Simultaneous events of a patient keep the order of `rules`.

    `macros` are SQL functions defined by the mapping: "name(argument, ...)" -> SQL. `leaks` says which codes are known
    only at the end of a stay, `sentinels` which days stand for no time.
    """

    name: str
    path: Path
    tables: dict[str, FileTable | RowTable | QueryTable | JsonTable]
    rules: tuple[EventRule, ...]
    metadata: dict[str, Any]
    macros: dict[str, str] = field(default_factory=dict)
    timezone: str = "UTC"
    sentinels: tuple[str, ...] = ()
    leaks: LeakageRules = field(default_factory=LeakageRules)

    @property
    def shipped(self) -> bool:
        """Whether it comes with Sequela."""
        return self.path.parent == SHIPPED


def filled(content: dict, each: RowTable, place: str) -> list[dict]:
    """One copy of `content` for each row of `each`, with "{COLUMN}" in its text replaced by the row's cell.

    Raises:
        InputError: if a column of `each` is never used; `place` names the rule.
    """
    for column in each.columns:
        if _fill(content, {column: ""}) == content:
            raise InputError(f"{place}, each: the rule never uses {{{column}}}; use it, or leave the column out.")
    return [_fill(content, dict(zip(each.columns, row, strict=True))) for row in each.rows]


def _fill(content: object, cells: dict[str, object]) -> object:
    if isinstance(content, str):
        for column, cell in cells.items():
            content = content.replace(f"{{{column}}}", str(cell))
        return content
    if isinstance(content, list):
        return [_fill(item, cells) for item in content]
    if isinstance(content, dict):
        return {_fill(key, cells): _fill(value, cells) for key, value in content.items()}
    return content
