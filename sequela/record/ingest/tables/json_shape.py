"""The columns of a JSON table, as a mapping declares them, in the form that DuckDB's `from_json` takes."""

from __future__ import annotations

import json
from typing import Any

from sequela.errors import InputError, nearest
from sequela.record.ingest.mapping import JSON_TYPES, JsonTable

DEPTH = 12  # a shape that holds itself has no end


def structure(table: JsonTable) -> str:
    """The structure of one row: `{"id": "VARCHAR", "code": {"coding": [{"code": "VARCHAR"}]}}`, as JSON text.

    Raises:
        InputError: naming the column, where it has a type that is neither known nor one of the table's shapes.
    """
    return json.dumps(_object(table.columns, table.shapes, "", 0))


def _part(said: object, shapes: dict[str, Any], place: str, depth: int) -> object:
    if depth > DEPTH:
        raise InputError(f"column '{place}' is nested deeper than {DEPTH}; does a shape hold itself?")
    if isinstance(said, dict) and said:
        return _object(said, shapes, f"{place}.", depth + 1)
    if isinstance(said, list) and len(said) == 1:
        return [_part(said[0], shapes, f"{place}[]", depth + 1)]
    if isinstance(said, str) and said in shapes:
        return _part(shapes[said], shapes, place, depth + 1)
    if isinstance(said, str) and said in JSON_TYPES:
        return JSON_TYPES[said]
    known = [*JSON_TYPES, *shapes]
    close = nearest(said, known) if isinstance(said, str) else ""
    raise InputError(
        f"column '{place}' has the type {json.dumps(said)}{close}; give one of {', '.join(known)}, a table of "
        "columns, or a list that holds one of these."
    )


def _object(said: dict[str, Any], shapes: dict[str, Any], place: str, depth: int) -> dict[str, object]:
    known: set[str] = set()
    for key in said:  # SQL does not tell "ID" from "id"
        if key.casefold() in known:
            raise InputError(f"column '{place}{key}' stands twice; leave one out.")
        known.add(key.casefold())
    return {key: _part(value, shapes, f"{place}{key}", depth) for key, value in said.items()}
