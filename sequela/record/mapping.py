"""What a mapping file says: which raw tables there are, and which events a row of them makes.

A mapping is TOML whose expressions are SQL (DuckDB); docs/sources.md teaches how to write one.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sequela.record.errors import InputError

SHIPPED = Path(__file__).parent / "sources"

# Words for people; how each is read from text is in `sequela.record.raw`.
COLUMN_TYPES = ("text", "integer", "number", "time", "duration")


@dataclass(frozen=True)
class FileTable:
    """Rows that lie in files: CSV, Parquet, or many small CSV files, also inside tar archives.

    Attributes:
        files: glob patterns below the raw folder; the first that matches anything is used.
        columns: name -> one of `COLUMN_TYPES`; only these are read, and all of them must be there.
        delimiter: between the columns of CSV.
        members: which members of a tar archive are rows of this table (a glob on the member's path).
        missing: cells that mean "no value" besides the empty one.
        optional: True if the table may be absent or empty.
    """

    files: tuple[str, ...]
    columns: dict[str, str]
    delimiter: str = ","
    members: str = "*"
    missing: tuple[str, ...] = ()
    optional: bool = False


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
class Rule:
    """One kind of event: every row of `table` for which `where` holds makes one, or is dropped and counted.

    All fields but `table`, `keep_without_value` and `missing_times` are SQL expressions over the row.

    Attributes:
        join: tables whose columns the expressions need as well, "TABLE USING (KEY)" or "TABLE ON condition";
            rows without a partner keep nulls, and a partner must be unique.
        patient: the patient's number.
        time: when it happened; None makes a static event.
        value: the numeric value; None for events without one.
        keep_without_value: True if an event whose `value` is null is still an event.
        range: lowest and highest plausible value, both included.
        drop: reason -> condition; rows that fulfil it are dropped and counted under the reason.
        missing_times: the share of the rows that may lack a readable time; above it, ingest stops.
        description, unit: for people; they end up in metadata/codes.parquet.
    """

    table: str
    code: str
    patient: str
    join: tuple[str, ...] = ()
    where: str | None = None
    time: str | None = None
    value: str | None = None
    text: str | None = None
    keep_without_value: bool = False
    range: tuple[str, str] | None = None
    drop: dict[str, str] = field(default_factory=dict)
    missing_times: float = 0.01
    description: str | None = None
    unit: str | None = None


@dataclass(frozen=True)
class Mapping:
    """A whole mapping file. Events of a patient at the same time are kept in the order of `rules`."""

    name: str
    path: Path
    tables: dict[str, FileTable | RowTable | QueryTable]
    rules: tuple[Rule, ...]
    metadata: dict[str, Any]


def shipped() -> list[str]:
    """The names of the mappings that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def load_mapping(source: str | Path) -> Mapping:
    """Read the mapping with that name, or the one at that path.

    Raises:
        InputError: where there is none, or it says something that no mapping can say.
    """
    path = _find(source)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid TOML ({error}): mend it there.") from error
    _check_keys(
        content, ("name", "patient", "metadata", "tables", "events"), ("name", "tables", "events"), f"{path}"
    )
    tables = {name: _table(name, said, path) for name, said in content["tables"].items()}
    rules = [
        _rule(number, said, content.get("patient"), tables, path)
        for number, said in enumerate(content["events"], 1)
    ]
    return Mapping(content["name"], path, tables, tuple(rules), content.get("metadata", {}))


def _find(source: str | Path) -> Path:
    named = SHIPPED / f"{source}.toml"
    if named.is_file():
        return named
    path = Path(source)
    if path.is_file():
        return path
    if path.suffix == ".toml":
        raise InputError(
            f"there is no mapping file {path}: check the path, or name one of {_listed(shipped())}."
        )
    raise InputError(
        f"there is no source '{source}'{nearest(str(source), shipped())}: the sources are {_listed(shipped())}; "
        "for another, give the path of a mapping file (.toml, see docs/sources.md)."
    )


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)


def nearest(word: str, known: Iterable[str]) -> str:
    """ " (did you mean ...?)" where a known word is close to `word`, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""


def _check_keys(said: dict, known: tuple[str, ...], required: tuple[str, ...], place: str) -> None:
    for key in said:
        if key not in known:
            raise InputError(
                f"{place}: '{key}' is not known{nearest(key, known)}; known are {_listed(known)}."
            )
    for key in required:
        if key not in said:
            raise InputError(f"{place}: '{key}' is missing; add it (see docs/sources.md).")


def _strings(value: object, place: str) -> tuple[str, ...]:
    """One string or a list of them."""
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise InputError(f"{place} must be a text or a list of texts.")
    return tuple(values)


def _table(name: str, said: dict, path: Path) -> FileTable | RowTable | QueryTable:
    place = f"{path}, table '{name}'"
    kinds = [kind for kind in ("files", "rows", "sql") if kind in said]
    if len(kinds) != 1:
        raise InputError(f"{place}: say where its rows come from, with exactly one of files, rows, sql.")
    if kinds == ["sql"]:
        _check_keys(said, ("sql",), (), place)
        return QueryTable(said["sql"])
    if kinds == ["rows"]:
        _check_keys(said, ("rows", "columns"), ("columns",), place)
        for number, row in enumerate(said["rows"], 1):
            if len(row) != len(said["columns"]):
                raise InputError(
                    f"{place}, row {number} has {len(row)} cells for {len(said['columns'])} columns."
                )
        return RowTable(_strings(said["columns"], place), tuple(tuple(row) for row in said["rows"]))
    _check_keys(
        said, ("files", "columns", "delimiter", "members", "missing", "optional"), ("columns",), place
    )
    for column, kind in said["columns"].items():
        if kind not in COLUMN_TYPES:
            raise InputError(
                f"{place}, column '{column}' has type '{kind}'{nearest(str(kind), COLUMN_TYPES)}; "
                f"the types are {_listed(COLUMN_TYPES)}."
            )
    lists = {key: _strings(said[key], f"{place}, {key}") for key in ("files", "missing") if key in said}
    return FileTable(**{**said, **lists})


def _rule(number: int, said: dict, patient: str | None, tables: Iterable[str], path: Path) -> Rule:
    place = f"{path}, events {number}"
    known = tuple(Rule.__dataclass_fields__)
    said = {"patient": patient, **said} if patient else said
    _check_keys(said, known, ("table", "code", "patient"), place)
    if said["table"] not in tables:
        raise InputError(
            f"{place}: there is no table '{said['table']}'{nearest(said['table'], tables)}; "
            f"the tables are {_listed(tables)}."
        )
    said = dict(said)
    if "join" in said:
        said["join"] = _strings(said["join"], f"{place}, join")
    if "range" in said:
        if not isinstance(said["range"], list) or len(said["range"]) != 2 or "value" not in said:
            raise InputError(f"{place}: range is [lowest, highest] and needs a value.")
        said["range"] = tuple(str(bound) for bound in said["range"])
    return Rule(**said)
