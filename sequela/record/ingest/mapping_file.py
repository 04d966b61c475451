"""Reads a mapping file, and says what is wrong with one."""

from __future__ import annotations

import codecs
import hashlib
import json
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

from sequela.errors import InputError, nearest
from sequela.record.ingest.leakage import AT_END, AT_TRANSFER, COMPARE, Leaks
from sequela.record.ingest.mapping import (
    COLUMN_TYPES,
    FileTable,
    JsonTable,
    Mapping,
    QueryTable,
    RowTable,
    Rule,
    filled,
)
from sequela.record.ingest.tables.cells import check_type, check_zone
from sequela.record.ingest.tables.json_shape import structure

SHIPPED = Path(__file__).parent / "sources"
MEDS = "meds"  # the source that needs no mapping: a dataset in the format to which mappings lead

WORDS = {
    str: "a text",
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
    "code": str,
    "time": str,
    "value": str,
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
    """The names of the mappings that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def load_mapping(source: str | Path) -> Mapping:
    """Read the mapping with that name, or the one at that path.

    Raises:
        InputError: where there is none, or it says something that no mapping can say.
    """
    path = _find(source)
    content = _content(path)
    zone = _zone(content, path)
    tables = {name: _table(name, said, path, zone) for name, said in content["tables"].items()}
    _check_names(tables, f"{path}, tables")
    rules = [
        rule
        for number, said in enumerate(content["events"], 1)
        for rule in _rules(said, content.get("patient"), tables, f"{path}, events {number}")
    ]
    metadata, macros = content.get("metadata", {}), content.get("macros", {})
    _check(macros, dict.fromkeys(macros, str), (), f"{path}, macros")
    leaks = _leaks(content.get("leaks", {}), rules, f"{path}, leaks")
    return Mapping(content["name"], path, tables, tuple(rules), metadata, macros, zone, leaks)


def fingerprint(source: str | Path) -> str:
    """A hash of all that the mapping says, with what it takes from those it extends.

    Raises:
        InputError: where there is no such mapping, or it is no TOML.
    """
    return hashlib.sha256(json.dumps(_content(_find(source)), default=str).encode()).hexdigest()


def _leaks(said: dict, rules: list[Rule], place: str) -> Leaks:
    """Heads of codes may be written with the slashes behind them; with none of them, no rule is watched either."""
    _check(said, {"codes": (str, list), "at_transfer": str}, (), place)
    at_transfer = said.get("at_transfer", COMPARE)
    if at_transfer not in AT_TRANSFER:
        raise InputError(f"{place}: at_transfer is '{at_transfer}', but must be one of {_listed(AT_TRANSFER)}.")
    codes = tuple(code.rstrip("/") for code in _texts(said.get("codes", list(AT_END)), f"{place}, codes"))
    numbered = list(enumerate(rules, 1))
    late = frozenset(number for number, rule in numbered if rule.late and codes)
    timely = frozenset(number for number, rule in numbered if rule.late is False)
    return Leaks(codes, late, timely, at_transfer)


def _zone(content: dict, path: Path) -> str:
    zone = content.get("timezone", "UTC")
    try:
        check_zone(zone)
    except InputError as error:
        raise InputError(f"{path}, timezone: {error}") from error
    return zone


def _check_names(names: Iterable[str], place: str) -> None:
    """SQL knows no case, so names must differ in more; and some are taken."""
    seen: dict[str, str] = {}
    for name in names:
        if (
            not name
            or "\0" in name
            or re.fullmatch(r"_(row|file|read|unreadable|raw|members|note_\d+)", name.casefold())
        ):
            raise InputError(f"{place}: '{name}' cannot be a name here; choose another.")
        if name in seen.values():
            raise InputError(f"{place}: '{name}' is there twice; name it once.")
        other = seen.setdefault(name.casefold(), name)
        if other is not name:
            raise InputError(f"{place}: '{other}' and '{name}' differ only in case, which SQL does not see.")


def _content(path: Path, heirs: tuple[Path, ...] = ()) -> dict:
    """What the file says; with `extends`, on top of what the mapping it extends says."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid TOML ({error}): mend it there.") from error
    required = ("name",) if "extends" in content else ("name", "tables", "events")
    _check(content, MAPPING, required, f"{path}")
    if "extends" not in content:
        return content
    if path in heirs:
        raise InputError(f"{path}: it extends itself, by way of {_listed(str(heir) for heir in heirs)}.")
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
        raise InputError(f"there is no mapping file {path}: check the path, or name one of {_listed(known)}.")
    raise InputError(
        f"there is no source '{source}'{nearest(str(source), known)}: the sources are {_listed(known)}; "
        "for another, give the path of a mapping file (.toml, see docs/reference/mapping.md)."
    )


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)


def _check(
    said: object, known: dict[str, type | tuple[type, ...]], required: tuple[str, ...], place: str
) -> None:
    """`said` is a TOML table with all `required` keys and no others than `known`, whose values have those types."""
    if not isinstance(said, dict):
        raise InputError(f"{place} must be a table with {_listed(known)}.")
    for key, value in said.items():
        if key not in known:
            raise InputError(
                f"{place}: '{key}' is not known{nearest(key, known)}; known are {_listed(known)}."
            )
        if not isinstance(value, known[key]):
            kinds = known[key] if isinstance(known[key], tuple) else (known[key],)
            raise InputError(
                f"{place}: '{key}' must be {' or '.join(dict.fromkeys(WORDS[kind] for kind in kinds))}."
            )
    for key in required:
        if key not in said:
            raise InputError(f"{place}: '{key}' is missing; add it (see docs/reference/mapping.md).")


def _texts(value: str | list, place: str) -> tuple[str, ...]:
    """One text or a list of them."""
    values = [value] if isinstance(value, str) else value
    if not all(isinstance(item, str) for item in values):
        raise InputError(f"{place} must be a text or a list of texts.")
    return tuple(values)


def _table(name: str, said: object, path: Path, zone: str) -> FileTable | RowTable | QueryTable | JsonTable:
    place = f"{path}, table '{name}'"
    readers = {"files": _file_table, "rows": _row_table, "sql": _query_table, "json": _json_table}
    kinds = [kind for kind in readers if isinstance(said, dict) and kind in said]
    if len(kinds) != 1:
        raise InputError(f"{place}: say where its rows come from, with exactly one of {_listed(readers)}.")
    if kinds == ["files"]:
        return _file_table(said, place, zone)
    return readers[kinds[0]](said, place)


def _file_table(said: dict, place: str, zone: str) -> FileTable:
    _check(said, FILE_TABLE, ("columns",), place)
    may_be_absent = said.get("optional_columns", {})
    columns = said["columns"] | may_be_absent
    for column in may_be_absent:
        if column in said["columns"]:
            raise InputError(
                f"{place}: column '{column}' is in columns and in optional_columns; name it once."
            )
    _check_names(columns, f"{place}, columns")
    for column, kind in columns.items():
        wrong = check_type(kind) if isinstance(kind, str) else "is not known"
        if wrong == "is not known":
            raise InputError(
                f"{place}, column '{column}' has type '{kind}'{nearest(str(kind), COLUMN_TYPES)}; "
                f'the types are {_listed(COLUMN_TYPES)}, or time with formats, as "time %d.%m.%Y | %d.%m.%Y %H:%M".'
            )
        if wrong is not None:
            raise InputError(f"{place}, column '{column}' {wrong}: see docs/reference/mapping.md.")
    _check_encoding(said, place)
    lists = {key: _texts(said[key], f"{place}, {key}") for key in ("files", "missing") if key in said}
    own = {"columns": columns, "optional_columns": frozenset(may_be_absent), "timezone": zone}
    return FileTable(**(said | lists | own))


def _check_encoding(said: dict, place: str) -> None:
    delimiter, quote = said.get("delimiter", ","), said.get("quote", "")
    if len(delimiter.encode()) != 1 or delimiter in '"\r\n':
        raise InputError(f"{place}, delimiter: it must be one character of ASCII, and no quote.")
    if quote and (len(quote.encode()) != 1 or quote in "\r\n" or quote == delimiter):
        raise InputError(
            f"{place}, quote: it must be one character of ASCII and not the delimiter, or empty where there is none."
        )
    try:
        text = codecs.lookup(said.get("encoding", "utf-8"))._is_text_encoding
    except (LookupError, ValueError):
        text = False
    if not text:
        raise InputError(
            f"{place}, encoding: '{said['encoding']}' is not known; say for example utf-8, latin-1 or cp1252."
        )


def _row_table(said: dict, place: str) -> RowTable:
    _check(said, {"rows": list, "columns": list}, ("columns",), place)
    if not said["rows"]:
        raise InputError(f"{place} has no rows: add some, or leave the table out.")
    for number, row in enumerate(said["rows"], 1):
        if not isinstance(row, list) or len(row) != len(said["columns"]):
            raise InputError(
                f"{place}, row {number} must have {len(said['columns'])} cells, one for each column."
            )
    columns = _texts(said["columns"], f"{place}, columns")
    _check_names(columns, f"{place}, columns")
    for column, cells in zip(columns, zip(*said["rows"], strict=True), strict=True):
        kinds = {CELLS.get(type(cell)) for cell in cells}
        if None in kinds or len(kinds) > 1:
            raise InputError(f"{place}, column '{column}' must hold texts only, numbers only, or true and false only.")
    return RowTable(columns, tuple(tuple(row) for row in said["rows"]))


def _query_table(said: dict, place: str) -> QueryTable:
    _check(said, {"sql": str}, (), place)
    return QueryTable(said["sql"])


def _json_table(said: dict, place: str) -> JsonTable:
    _check(said, JSON_TABLE, (), place)
    table = JsonTable(**(said | {"json": _texts(said["json"], f"{place}, json")}))
    try:
        structure(table)
    except InputError as error:
        raise InputError(f"{place}, {error}") from error
    if table.columns and table.kind is not None and table.kind not in table.columns:
        raise InputError(f"{place}: kind = '{table.kind}' is none of its columns; add the column.")
    return table


def _rules(said: object, patient: str | None, tables: Iterable[str], place: str) -> list[Rule]:
    """The rule; of one with `each`, the rules."""
    if not isinstance(said, dict) or "each" not in said:
        return [_rule(said, patient, tables, place)]
    each = _row_table(said["each"], f"{place}, each")
    written = filled({key: value for key, value in said.items() if key != "each"}, each, place)
    return [_rule(one, patient, tables, f"{place}, each, row {row}") for row, one in enumerate(written, 1)]


def _rule(said: object, patient: str | None, tables: Iterable[str], place: str) -> Rule:
    if patient and isinstance(said, dict):
        said = {"patient": patient} | said
    _check(said, RULE, ("table", "code", "patient"), place)
    if said["table"] not in tables:
        raise InputError(
            f"{place}: there is no table '{said['table']}'{nearest(said['table'], tables)}; "
            f"the tables are {_listed(tables)}."
        )
    if "range" in said and (len(said["range"]) != 2 or "value" not in said):
        raise InputError(f"{place}: range is [lowest, highest], and needs a value.")
    bounds = {"range": tuple(str(bound) for bound in said["range"])} if "range" in said else {}
    joins = {"join": _texts(said["join"], f"{place}, join")} if "join" in said else {}
    return Rule(place=place, **(said | bounds | joins))
