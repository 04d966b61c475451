"""Reads and checks mapping files."""

from __future__ import annotations

import codecs
import hashlib
import json
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

from sequela.errors import InputError, nearest
from sequela.record.ingest.leakage import AT_END, AT_TRANSFER, COMPARE, LeakageRules
from sequela.record.ingest.mapping import (
    COLUMN_TYPES,
    SHIPPED,
    EventRule,
    FileTable,
    JsonTable,
    Mapping,
    QueryTable,
    RowTable,
    filled,
)
from sequela.record.ingest.tables.cells import check_day, check_type, check_zone
from sequela.record.ingest.tables.json_shape import structure

MEDS = "meds"  # the source that needs no mapping

WORDS = {
    str: "a string",
    list: "a list",
    dict: "a table",
    bool: "true or false",
    int: "a number",
    float: "a number",
}
CELLS = {str: "text", int: "number", float: "number", bool: "boolean"}  # of tables written in the mapping
MAPPING = {
    "name": str,
    "extends": str,
    "patient": str,
    "metadata": dict,
    "tables": dict,
    "events": list,
    "macros": dict,
    "timezone": str,
    "sentinels": (str, list),
    "leaks": dict,
}
FILE_TABLE = {
    "files": (str, list),
    "columns": dict,
    "delimiter": str,
    "quote": str,
    "members": str,
    "missing": (str, list),
    "optional": bool,
    "optional_columns": dict,
    "table": str,
    "encoding": str,
}
JSON_TABLE = {
    "json": (str, list),
    "columns": dict,
    "shapes": dict,
    "kind": str,
    "where": str,
    "optional": bool,
}
RULE = {
    "table": str,
    "join": (str, list),
    "patient": str,
    "where": str,
    "drop": dict,
    "count": dict,
    "late": bool,
    "stay": list,
    "code": str,
    "time": str,
    "value": str,
    "answer": str,
    "text": str,
    "media": str,
    "keep_without_value": bool,
    "range": list,
    "missing_times": (int, float),
    "description": str,
    "unit": str,
    "each": dict,
}


def shipped() -> list[str]:
    """The names of the mappings shipped with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def load_mapping(source: str | Path) -> Mapping:
    """Read a mapping by name or path.

    Raises:
        InputError: if there is none, or it is not a valid mapping.
    """
    path = _find(source)
    content = _content(path)
    zone, sentinels = _zone(content, path), _sentinels(content, path)
    tables = {name: _table(name, entry, path, (zone, sentinels)) for name, entry in content["tables"].items()}
    _check_names(tables, f"{path}, tables")
    rules = [
        rule
        for number, entry in enumerate(content["events"], 1)
        for rule in _rules(entry, content.get("patient"), tables, f"{path}, events {number}")
    ]
    metadata, macros = content.get("metadata", {}), content.get("macros", {})
    _check(macros, dict.fromkeys(macros, str), (), f"{path}, macros")
    leaks = _leaks(content.get("leaks", {}), rules, f"{path}, leaks")
    return Mapping(content["name"], path, tables, tuple(rules), metadata, macros, zone, sentinels, leaks)


def fingerprint(source: str | Path) -> str:
    """A hash of the mapping, including the mappings that it extends.

    Raises:
        InputError: if there is no such mapping, or it is not valid TOML.
    """
    return hashlib.sha256(json.dumps(_content(_find(source)), default=str).encode()).hexdigest()


def _leaks(entry: dict, rules: list[EventRule], place: str) -> LeakageRules:
    """Code prefixes may end with slashes. An empty list of codes turns off late rules too."""
    _check(entry, {"codes": (str, list), "at_transfer": str}, (), place)
    at_transfer = entry.get("at_transfer", COMPARE)
    if at_transfer not in AT_TRANSFER:
        raise InputError(f"{place}: at_transfer is '{at_transfer}', but must be one of {_listed(AT_TRANSFER)}.")
    codes = tuple(code.rstrip("/") for code in _texts(entry.get("codes", list(AT_END)), f"{place}, codes"))
    numbered = list(enumerate(rules, 1))
    late = frozenset(number for number, rule in numbered if rule.late and codes)
    timely = frozenset(number for number, rule in numbered if rule.late is False)
    return LeakageRules(codes, late, timely, at_transfer)


def _zone(content: dict, path: Path) -> str:
    zone = content.get("timezone", "UTC")
    try:
        check_zone(zone)
    except InputError as error:
        raise InputError(f"{path}, timezone: {error}") from error
    return zone


def _sentinels(content: dict, path: Path) -> tuple[str, ...]:
    days = _texts(content.get("sentinels", []), f"{path}, sentinels")
    for day in days:
        if not check_day(day):
            raise InputError(f"{path}, sentinels: '{day}' is not a date; write one as 9999-12-31.")
    return days


def _check_names(names: Iterable[str], place: str) -> None:
    """Names must differ in more than case, which SQL ignores, and must not be reserved."""
    seen: dict[str, str] = {}
    for name in names:
        if (
            not name
            or "\0" in name
            or re.fullmatch(r"_(row|file|read|unreadable|raw|members|note_\d+)", name.casefold())
        ):
            raise InputError(f"{place}: '{name}' is not allowed as a name; choose another.")
        if name in seen.values():
            raise InputError(f"{place}: '{name}' is listed twice; list it once.")
        other = seen.setdefault(name.casefold(), name)
        if other is not name:
            raise InputError(f"{place}: '{other}' and '{name}' differ only in case, which SQL ignores; rename one.")


def _content(path: Path, heirs: tuple[Path, ...] = ()) -> dict:
    """The content of the file, merged into that of the mapping it extends."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid TOML ({error}): fix it there.") from error
    required = ("name",) if "extends" in content else ("name", "tables", "events")
    _check(content, MAPPING, required, f"{path}")
    if "extends" not in content:
        return content
    if path in heirs:
        raise InputError(f"{path}: it extends itself, through {_listed(str(heir) for heir in heirs)}.")
    base = _content(_find(content["extends"], path.parent), (*heirs, path))
    return base | content | {
        "tables": base["tables"] | content.get("tables", {}),
        "events": base["events"] + content.get("events", []),
        "metadata": base.get("metadata", {}) | content.get("metadata", {}),
        "macros": base.get("macros", {}) | content.get("macros", {}),
        "leaks": base.get("leaks", {}) | content.get("leaks", {}),
    }  # fmt: skip


def _find(source: str | Path, beside: Path = Path()) -> Path:
    named = SHIPPED / f"{source}.toml"
    if named.is_file():
        return named
    path = beside / source
    if path.is_file():
        return path
    known = [*shipped(), MEDS]
    if path.suffix == ".toml":
        raise InputError(f"there is no mapping file {path}: check the path, or use one of {_listed(known)}.")
    raise InputError(
        f"there is no source '{source}'{nearest(str(source), known)}: the sources are {_listed(known)}; "
        "for any other, give the path of a mapping file (.toml, see docs/reference/mapping.md)."
    )


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)


def _check(
    entry: object, known: dict[str, type | tuple[type, ...]], required: tuple[str, ...], place: str
) -> None:
    """Check that `entry` is a TOML table with all `required` keys, and only `known` keys with values of those types."""
    if not isinstance(entry, dict):
        raise InputError(f"{place} must be a table with {_listed(known)}.")
    for key, value in entry.items():
        if key not in known:
            raise InputError(
                f"{place}: unknown key '{key}'{nearest(key, known)}; the keys are {_listed(known)}."
            )
        if not isinstance(value, known[key]):
            kinds = known[key] if isinstance(known[key], tuple) else (known[key],)
            raise InputError(
                f"{place}: '{key}' must be {' or '.join(dict.fromkeys(WORDS[kind] for kind in kinds))}."
            )
    for key in required:
        if key not in entry:
            raise InputError(f"{place}: '{key}' is missing; add it (see docs/reference/mapping.md).")


def _texts(value: str | list, place: str) -> tuple[str, ...]:
    """A string or a list of strings, as a tuple."""
    values = [value] if isinstance(value, str) else value
    if not all(isinstance(item, str) for item in values):
        raise InputError(f"{place} must be a string or a list of strings.")
    return tuple(values)


def _table(
    name: str, entry: object, path: Path, times: tuple[str, tuple[str, ...]]
) -> FileTable | RowTable | QueryTable | JsonTable:
    place = f"{path}, table '{name}'"
    readers = {"files": _file_table, "rows": _row_table, "sql": _query_table, "json": _json_table}
    kinds = [kind for kind in readers if isinstance(entry, dict) and kind in entry]
    if len(kinds) != 1:
        raise InputError(f"{place}: give the source of its rows with exactly one of {_listed(readers)}.")
    if kinds == ["files"]:
        return _file_table(entry, place, times)
    return readers[kinds[0]](entry, place)


def _file_table(entry: dict, place: str, times: tuple[str, tuple[str, ...]]) -> FileTable:
    """`times` are the zone and the sentinels of the mapping."""
    _check(entry, FILE_TABLE, ("columns",), place)
    may_be_absent = entry.get("optional_columns", {})
    columns = entry["columns"] | may_be_absent
    for column in may_be_absent:
        if column in entry["columns"]:
            raise InputError(
                f"{place}: column '{column}' is in both columns and optional_columns; list it once."
            )
    _check_names(columns, f"{place}, columns")
    for column, kind in columns.items():
        problem = check_type(kind) if isinstance(kind, str) else "is unknown"
        if problem == "is unknown":
            raise InputError(
                f"{place}, column '{column}' has type '{kind}'{nearest(str(kind), COLUMN_TYPES)}; "
                f'the types are {_listed(COLUMN_TYPES)}, or time with formats: "time %d.%m.%Y | %d.%m.%Y %H:%M".'
            )
        if problem is not None:
            raise InputError(f"{place}, column '{column}' {problem}: see docs/reference/mapping.md.")
    _check_encoding(entry, place)
    lists = {key: _texts(entry[key], f"{place}, {key}") for key in ("files", "missing") if key in entry}
    parsed = {"columns": columns, "optional_columns": frozenset(may_be_absent)}
    parsed |= dict(zip(("timezone", "sentinels"), times, strict=True))
    return FileTable(**(entry | lists | parsed))


def _check_encoding(entry: dict, place: str) -> None:
    delimiter, quote = entry.get("delimiter", ","), entry.get("quote", "")
    if len(delimiter.encode()) != 1 or delimiter in '"\r\n':
        raise InputError(f"{place}, delimiter: it must be a single ASCII character other than a quote.")
    if quote and (len(quote.encode()) != 1 or quote in "\r\n" or quote == delimiter):
        raise InputError(
            f"{place}, quote: it must be a single ASCII character other than the delimiter, or empty if there is none."
        )
    try:
        text = codecs.lookup(entry.get("encoding", "utf-8"))._is_text_encoding
    except (LookupError, ValueError):
        text = False
    if not text:
        raise InputError(
            f"{place}, encoding: '{entry['encoding']}' is unknown; use for example utf-8, latin-1 or cp1252."
        )


def _row_table(entry: dict, place: str) -> RowTable:
    _check(entry, {"rows": list, "columns": list}, ("columns",), place)
    if not entry["rows"]:
        raise InputError(f"{place} has no rows: add some, or remove the table.")
    for number, row in enumerate(entry["rows"], 1):
        if not isinstance(row, list) or len(row) != len(entry["columns"]):
            raise InputError(
                f"{place}, row {number} must have {len(entry['columns'])} cells, one per column."
            )
    columns = _texts(entry["columns"], f"{place}, columns")
    _check_names(columns, f"{place}, columns")
    for column, cells in zip(columns, zip(*entry["rows"], strict=True), strict=True):
        kinds = {CELLS.get(type(cell)) for cell in cells}
        if None in kinds or len(kinds) > 1:
            raise InputError(f"{place}, column '{column}' must hold only strings, only numbers or only booleans.")
    return RowTable(columns, tuple(tuple(row) for row in entry["rows"]))


def _query_table(entry: dict, place: str) -> QueryTable:
    _check(entry, {"sql": str}, (), place)
    return QueryTable(entry["sql"])


def _json_table(entry: dict, place: str) -> JsonTable:
    _check(entry, JSON_TABLE, (), place)
    table = JsonTable(**(entry | {"json": _texts(entry["json"], f"{place}, json")}))
    try:
        structure(table)
    except InputError as error:
        raise InputError(f"{place}, {error}") from error
    if table.columns and table.kind is not None and table.kind not in table.columns:
        raise InputError(f"{place}: kind = '{table.kind}' is not one of its columns; add the column.")
    return table


def _rules(entry: object, patient: str | None, tables: Iterable[str], place: str) -> list[EventRule]:
    """The rules that an entry stands for: one, or with `each` one per row."""
    if not isinstance(entry, dict) or "each" not in entry:
        return [_rule(entry, patient, tables, place)]
    each = _row_table(entry["each"], f"{place}, each")
    copies = filled({key: value for key, value in entry.items() if key != "each"}, each, place)
    return [_rule(copy, patient, tables, f"{place}, each, row {row}") for row, copy in enumerate(copies, 1)]


def _rule(entry: object, patient: str | None, tables: Iterable[str], place: str) -> EventRule:
    if patient and isinstance(entry, dict):
        entry = {"patient": patient} | entry
    _check(entry, RULE, ("table", "code", "patient"), place)
    if entry["table"] not in tables:
        raise InputError(
            f"{place}: there is no table '{entry['table']}'{nearest(entry['table'], tables)}; "
            f"the tables are {_listed(tables)}."
        )
    if "range" in entry and (len(entry["range"]) != 2 or "value" not in entry):
        raise InputError(f"{place}: range must be [lowest, highest], and needs a value.")
    bounds = {"range": tuple(str(bound) for bound in entry["range"])} if "range" in entry else {}
    if "stay" in entry:
        if len(_texts(entry["stay"], f"{place}, stay")) != 2 or "time" not in entry:
            raise InputError(f"{place}: stay must be [when it opens, when it closes], and needs a time.")
        bounds["stay"] = tuple(entry["stay"])
    joins = {"join": _texts(entry["join"], f"{place}, join")} if "join" in entry else {}
    return EventRule(place=place, **(entry | bounds | joins))
