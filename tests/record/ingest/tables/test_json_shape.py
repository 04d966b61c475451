"""The columns of JSON tables, and what is said of those that nothing can be read as."""

import json

import pytest

from sequela.errors import InputError
from sequela.record.ingest.mapping import JsonTable
from sequela.record.ingest.tables.json_shape import structure


def test_shapes_stand_for_what_they_say():
    shapes = {
        "Concept": {"coding": ["Coding"], "text": "text"},
        "Coding": {"code": "text", "rank": "integer"},
    }
    columns = {
        "id": "text",
        "code": "Concept",
        "category": ["Concept"],
        "value": "number",
        "yes": "boolean",
        "all": "json",
    }
    concept = {"coding": [{"code": "VARCHAR", "rank": "BIGINT"}], "text": "VARCHAR"}
    assert json.loads(structure(JsonTable(("*",), columns, shapes))) == {
        "id": "VARCHAR",
        "code": concept,
        "category": [concept],
        "value": "DOUBLE",
        "yes": "BOOLEAN",
        "all": "JSON",
    }


@pytest.mark.parametrize(
    "columns, words",
    [
        ({"id": "txt"}, "column 'id' has the type \"txt\" (did you mean 'text'?)"),
        ({"a": {"b": ["Codin"]}}, "column 'a.b[]' has the type \"Codin\" (did you mean 'Coding'?)"),
        ({"a": []}, "column 'a' has the type []"),
        ({"a": ["text", "text"]}, "column 'a' has the type"),
        ({"a": {}}, "column 'a' has the type {}"),
        (
            {"a": 3},
            "column 'a' has the type 3; give one of text, integer, number, boolean, json, Coding, Self",
        ),
        ({"a": "Self"}, "nested deeper than"),
        ({"Id": "text", "id": "text"}, "column 'id' is listed twice"),
    ],
)
def test_what_no_column_can_be(columns, words):
    shapes = {"Coding": {"code": "text"}, "Self": {"again": "Self"}}
    with pytest.raises(InputError) as caught:
        structure(JsonTable(("*",), columns, shapes))
    assert words in str(caught.value)
