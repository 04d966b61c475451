"""Converts the columns of a JSON table to the structure that DuckDB's `from_json` takes."""

from __future__ import annotations

import json
from typing import Any

from sequela.errors import InputError, nearest
from sequela.record.ingest.mapping import JSON_TYPES, JsonTable

DEPTH = 12  # a shape that contains itself never ends


def structure(table: JsonTable) -> str:
    """The structure of one row: `{"id": "VARCHAR", "code": {"coding": [{"code": "VARCHAR"}]}}`, as JSON text.

    Raises:
        InputError: naming the column, if its type is neither known nor one of the table's shapes.
    """
    return json.dumps(_object(table.columns, table.shapes, "", 0))


def _part(declared: object, shapes: dict[str, Any], place: str, depth: int) -> object:
    if depth > DEPTH:
        raise InputError(f"column '{place}' is nested deeper than {DEPTH}; does a shape contain itself?")
    if isinstance(declared, dict) and declared:
        return _object(declared, shapes, f"{place}.", depth + 1)
    if isinstance(declared, list) and len(declared) == 1:
        return [_part(declared[0], shapes, f"{place}[]", depth + 1)]
    if isinstance(declared, str) and declared in shapes:
        return _part(shapes[declared], shapes, place, depth + 1)
    if isinstance(declared, str) and declared in JSON_TYPES:
        return JSON_TYPES[declared]
    known = [*JSON_TYPES, *shapes]
    close = nearest(declared, known) if isinstance(declared, str) else ""
    raise InputError(
        f"column '{place}' has the type {json.dumps(declared)}{close}; give one of {', '.join(known)}, a table of "
        "columns, or a list of one of these."
    )


def _object(declared: dict[str, Any], shapes: dict[str, Any], place: str, depth: int) -> dict[str, object]:
    known: set[str] = set()
    for key in declared:  # SQL does not distinguish "ID" from "id"
        if key.casefold() in known:
            raise InputError(f"column '{place}{key}' is listed twice; remove one.")
        known.add(key.casefold())
    return {key: _part(value, shapes, f"{place}{key}", depth) for key, value in declared.items()}
