"""JSON into tables: which rows, which places, what is put aside; and any bytes whatsoever."""

import gzip
import json
import time

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sequela.errors import InputError
from sequela.record.ingest.mapping import JsonTable
from sequela.record.ingest.tables.json_table import load_json

COLUMNS = {
    "kind": "text",
    "id": "text",
    "value": "number",
    "on": "boolean",
    "parts": [{"code": "text"}],
    "rest": "json",
}
TABLE = JsonTable(("*.json", "*.json.gz", "*.ndjson", "*.ndjson.gz"), COLUMNS, kind="kind")
PLACES = "_row, _file, _line, _entry, _url, _unreadable"


@pytest.fixture
def load(tmp_path):
    def run(table=TABLE, **files):
        for name, content in files.items():
            (tmp_path / name.replace("_", ".")).write_bytes(
                content if isinstance(content, bytes) else content.encode()
            )
        run.con = duckdb.connect()
        loaded = load_json(run.con, "t", table, tmp_path, "m.toml, table 't'")
        return loaded, run.con.sql("SELECT * FROM t ORDER BY _row").fetchall()

    return run


def thing(number, **more):
    return {"kind": "Thing", "id": str(number)} | more


def bundle(*things):
    return {
        "kind": "Bundle",
        "entry": [{"fullUrl": f"urn:uuid:{one['id']}", "resource": one} for one in things],
    }


def test_lines(load):
    first = thing(1, value="2.5", on=True, parts=[{"code": 3}, 4], rest={"a": [1]})
    text = f"{json.dumps(first)}\n\n  \r\n{json.dumps(thing(2))}\r\n{json.dumps(thing(3, value={}))}"
    loaded, rows = load(a_ndjson="\ufeff" + text)
    assert (loaded.files, loaded.rows, loaded.unreadable) == (("a.ndjson",), 3, {})
    assert loaded.facts == {"quarantined": {}, "kinds": {"Thing": 3}}
    assert rows[0][:6] == (0, "a.ndjson", 1, None, None, False)
    assert rows[0][6:] == ("Thing", "1", 2.5, True, [{"code": "3"}, {"code": None}], '{"a":[1]}')
    assert [row[2] for row in rows] == [1, 4, 5]
    assert rows[1][8:] == rows[2][8:] == (None, None, None, None)


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("packed", [False, True])
def test_bundles_and_arrays_and_single_objects(load, indent, packed):
    documents = [bundle(thing(1), thing(2)), [thing(3), thing(4)], thing(5)]
    files = {}
    for letter, document in zip("abc", documents, strict=True):
        content = json.dumps(document, indent=indent).encode()
        files[f"{letter}_json_gz" if packed else f"{letter}_json"] = (
            gzip.compress(content) if packed else content
        )
    loaded, rows = load(**files)
    assert loaded.facts == {"quarantined": {}, "kinds": {"Thing": 5}}
    names = [name.replace("_", ".") for name in files for _ in range(1 if name[0] == "c" else 2)]
    assert [(row[0], row[1]) for row in rows] == list(enumerate(names))
    assert [row[3] for row in rows] == [1, 2, 1, 2, None]
    assert [row[4] for row in rows] == ["urn:uuid:1", "urn:uuid:2", None, None, None]
    assert [row[7] for row in rows] == list("12345")


def test_bundles_within_lines_keep_the_order(load):
    documents = [thing(1), bundle(thing(2), thing(3)), thing(4), bundle(thing(5))]
    _, rows = load(a_ndjson="\n".join(map(json.dumps, documents)))
    assert [(row[0], row[2], row[3], row[7]) for row in rows] == [
        (0, 1, None, "1"),
        (1, 2, 1, "2"),
        (2, 2, 2, "3"),
        (3, 3, None, "4"),
        (4, 4, 1, "5"),
    ]


def test_lines_under_the_name_of_a_bundle(load):
    _, rows = load(a_json="\n" + "\n".join(json.dumps(thing(i)) for i in range(3)) + "\nnonsense\n")
    assert [row[2] for row in rows] == [2, 3, 4]


def test_lines_with_a_bad_first_under_the_name_of_a_bundle(load):
    loaded, rows = load(a_json="nonsense\n" + "\n".join(json.dumps(thing(i)) for i in range(3)))
    assert [row[2] for row in rows] == [2, 3, 4]
    assert loaded.facts["quarantined"] == {"not JSON": {"rows": 1, "first": ["a.json, line 1"]}}


def test_a_document_that_is_cut_off_is_one_row_put_aside(load):
    cut = json.dumps(bundle(thing(1), thing(2)), indent=2)[:-20]
    loaded, rows = load(a_json=cut, b_json=json.dumps(thing(3)))
    assert [row[7] for row in rows] == ["3"]
    assert loaded.facts["quarantined"] == {"not JSON": {"rows": 1, "first": ["a.json, line 1"]}}


def test_names_in_capitals(load):
    lines = "nonsense\n" + "\n".join(json.dumps(thing(i)) for i in range(2))
    loaded, rows = load(
        A_NDJSON=lines, B_Ndjson_GZ=gzip.compress(lines.encode()), C_JSON=json.dumps(thing(9))
    )
    assert loaded.files == ("A.NDJSON", "B.Ndjson.GZ", "C.JSON")
    assert [row[7] for row in rows] == ["0", "1", "0", "1", "9"]


def test_entries_without_a_resource_are_no_bundle(load):
    a_list = thing("list") | {"entry": [{"item": {"reference": "Thing/1"}}, {"item": {}}]}
    loaded, rows = load(a_ndjson=json.dumps(a_list), b_json=json.dumps(bundle(thing(1), a_list)))
    assert loaded.facts == {"quarantined": {}, "kinds": {"Thing": 3}}
    assert [(row[1], row[3], row[7]) for row in rows] == [
        ("a.ndjson", None, "list"),
        ("b.json", 1, "1"),
        ("b.json", 2, "list"),
    ]


@pytest.mark.parametrize("indent", [None, 2])
def test_bundles_within_bundles_and_arrays(load, indent):
    inner = bundle(thing(2), thing(3), bundle(thing(4) | {"id": "4"}) | {"id": "deep"}) | {"id": "inner"}
    loaded, rows = load(
        a_json=json.dumps(bundle(thing(1), inner, thing(5)), indent=indent),
        b_json=json.dumps([bundle(thing(6)), thing(7), 8, bundle(thing(9), thing(10))], indent=indent),
    )
    assert [row[7] for row in rows] == ["1", "2", "3", "4", "5", "6", "7", "9", "10"]
    assert [row[3] for row in rows] == [1, 2, 3, 4, 5, 1, 2, 4, 5], "entries are counted through"
    assert [row[4] for row in rows][5:7] == ["urn:uuid:6", None]
    assert loaded.facts["quarantined"] == {"no object": {"rows": 1, "first": ["b.json, entry 3"]}}


def test_bundles_nested_without_end_stay_bundles(load):
    deep = thing(1)
    for _ in range(50):
        deep = bundle(deep | {"id": "x"})
    start = time.perf_counter()
    loaded, _ = load(a_json=json.dumps(deep))
    assert loaded.facts == {"quarantined": {}, "kinds": {"Bundle": 1}}
    assert time.perf_counter() - start < 5


def test_what_is_put_aside_is_counted_and_placed(load):
    good = json.dumps(thing(1))
    wrong = bundle(thing(2), thing(3))
    wrong["entry"] += [
        {"request": {"method": "DELETE"}},
        {"resource": "SECRET"},
        {"resource": {"id": "SECRET"}},
    ]
    lines = [good, '{"SECRET', '"SECRET"', '{"id": "SECRET"}', "[]", good, json.dumps(wrong), "{}{}", "null"]
    content = "\n".join(lines).encode() + b'\n{"kind": "\xe9"}\n' + good.encode()
    loaded, rows = load(a_ndjson=content)
    assert len(rows) == loaded.rows == 5
    assert loaded.facts["kinds"] == {"Thing": 5}
    assert loaded.facts["quarantined"] == {
        "no kind": {"rows": 2, "first": ["a.ndjson, line 4", "a.ndjson, line 7, entry 5"]},
        "no object": {
            "rows": 3,
            "first": ["a.ndjson, line 3", "a.ndjson, line 7, entry 4", "a.ndjson, line 9"],
        },
        "no resource": {"rows": 1, "first": ["a.ndjson, line 7, entry 3"]},
        "not JSON": {"rows": 2, "first": ["a.ndjson, line 2", "a.ndjson, line 8"]},
        "not UTF-8": {"rows": 1, "first": ["a.ndjson, line 10"]},
    }
    assert "SECRET" not in json.dumps(loaded.facts)


def test_only_the_first_places_are_told_over_all_files(load):
    loaded, _ = load(a_ndjson=json.dumps(thing(1)) + "\n" + "x\n" * 15, b_ndjson="x\n" * 15)
    told = loaded.facts["quarantined"]["not JSON"]
    assert told["rows"] == 30
    assert told["first"] == [f"a.ndjson, line {i}" for i in range(2, 17)] + [
        f"b.ndjson, line {i}" for i in range(1, 6)
    ]


def test_where_and_kinds(load):
    table = JsonTable(("*",), {"kind": "text", "id": "text"}, kind="kind", where="kind = 'Thing'")
    other = {"kind": "Other", "id": "9"}
    loaded, rows = load(
        table, a_ndjson="\n".join(map(json.dumps, [other, thing(1), {"kind": "not a word"}, thing(2)]))
    )
    assert [(row[0], row[2], row[7]) for row in rows] == [(0, 2, "1"), (1, 4, "2")]
    assert loaded.facts["kinds"] == {"Thing": 2, "Other": 1, "(other)": 1}


def test_without_columns_the_object_itself(load):
    loaded, rows = load(JsonTable(("*",), kind="kind"), a_ndjson='{"kind": "x", "a": {"b": 1}}\n{"a": 1}')
    assert [row[6] for row in rows] == ['{"kind":"x","a":{"b":1}}']
    assert loaded.facts["quarantined"]["no kind"]["rows"] == 1
    loaded, rows = load(JsonTable(("*",)), a_ndjson='{"a": 1}\n[{"a": 2}, 3]\n4')
    assert [row[6] for row in rows] == ['{"a":1}', '{"a":2}']
    assert loaded.facts == {
        "quarantined": {"no object": {"rows": 2, "first": ["a.ndjson, line 2, entry 2", "a.ndjson, line 3"]}}
    }


def test_a_column_named_entry_is_a_column(load):
    _, rows = load(JsonTable(("*",), {"entry": ["text"]}), a_ndjson='{"entry": ["x", "y"]}')
    assert rows[0][6] == ["x", "y"]


def refused(load, *words, **said):
    with pytest.raises(InputError) as caught:
        load(**said)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message and "SECRET" not in message


def test_wrong_folders_and_files(load, tmp_path):
    refused(load, "has no file *.json or *.json.gz", "table 't'")
    with pytest.raises(InputError, match="no folder"):
        load_json(duckdb.connect(), "t", TABLE, tmp_path / "gone", "m")
    refused(
        load, "a.ndjson", "no row of the table 't'", "'not JSON' at a.ndjson, line 1", a_ndjson="SECRET\n"
    )
    refused(load, "a.ndjson", "no row", a_ndjson="")
    refused(load, "b.json.gz is damaged or incomplete", b_json_gz=gzip.compress(b"[" + b"1," * 999)[:-9])


def test_optional_and_hidden_files(load, tmp_path):
    (tmp_path / ".hidden.json").write_text(json.dumps(thing(1)))
    loaded, rows = load(JsonTable(("*.json",), COLUMNS, kind="kind", optional=True))
    assert (loaded.files, loaded.rows, rows) == ((), 0, [])
    assert [name for name, *_ in load.con.sql("DESCRIBE t").fetchall()] == [*PLACES.split(", "), *COLUMNS]


def test_a_mistake_in_the_mapping(load):
    table = JsonTable(("*",), {"a": "text"}, where="b = 1")
    refused(load, "m.toml, table 't'", '"b"', table=table, a_ndjson='{"a": 1}')


def test_several_batches(load, monkeypatch):
    import sequela.record.ingest.tables.json_lines as lines

    things = [thing(i, value=i / 2) if i % 7 else "x" for i in range(500)]
    content = "\n".join(map(json.dumps, things))
    whole, rows = load(a_ndjson=content)
    monkeypatch.setattr(lines.read_lines, "__defaults__", (300,))
    pieces, again = load(a_ndjson=content)
    assert rows == again and whole == pieces and len(rows) == 428
    assert [row[0] for row in rows] == list(range(428))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["kind", "id", "value", "parts", "code", "entry", "resource"]), inner, max_size=3
        )
    ),
    max_leaves=12,
)
BITS = st.binary(max_size=40) | VALUES.map(lambda value: json.dumps(value).encode())


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(BITS, max_size=6).map(b"\n".join),
    st.sampled_from(["a_ndjson", "a_json", "a_json_gz"]),
    st.integers(0, 60),
)
def test_any_bytes_give_rows_or_a_sentence(load, tmp_path, content, name, cut):
    for path in tmp_path.iterdir():
        path.unlink()
    content = gzip.compress(content)[: 1000 - cut] if name.endswith("gz") else content
    start = time.perf_counter()
    try:
        loaded, rows = load(**{name: content})
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert [row[0] for row in rows] == list(range(loaded.rows))
        assert sum(loaded.facts["kinds"].values()) == loaded.rows
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 1_000_000,
        b'{"kind": "x", "parts": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"kind": "x", "rest": ' + b'{"a":' * 200_000 + b"1" + b"}" * 200_000 + b"}",
        b'{"kind": "' + b"x" * 5_000_000 + b'"}',
        b'{"kind": "x", "value": 1' + b"0" * 100_000 + b"}",
        b"\x00" * 1_000_000,
    ],
    ids=["open", "deep array", "deep object", "long", "number", "zeros"],
)
def test_bombs_are_rows_or_put_aside(load, content):
    start = time.perf_counter()
    loaded, _ = load(a_ndjson=b'{"kind": "x"}\n' + content)
    assert loaded.rows + sum(one["rows"] for one in loaded.facts["quarantined"].values()) == 2
    assert time.perf_counter() - start < 20
