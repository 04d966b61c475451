"""Any bytes give a result or an InputError: never another exception, never a hang."""

from __future__ import annotations

import gzip
import json
import math
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sequela.errors import InputError
from sequela.record.ingest.mapping import Mapping
from sequela.record.ingest.tables.database import raw_origin
from tests.fuzz.targets import (
    HEADER,
    SEEDS,
    TARGETS,
    fuzz_archive,
    fuzz_cell,
    fuzz_csv,
    fuzz_gzip,
    fuzz_mapping,
    judge,
    tar,
)

bounded = settings(
    max_examples=25,
    deadline=5000,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def about(*pieces: bytes) -> st.SearchStrategy[bytes]:
    """Bytes made of `pieces` and of anything else."""
    return st.lists(st.one_of(st.sampled_from(pieces), st.binary(max_size=4)), max_size=30).map(b"".join)


CSV = about(
    HEADER,
    b'"',
    b",",
    b"\n",
    b"\r\n",
    b"\r",
    b"\0",
    b"\xff",
    b"1",
    b"-",
    b"1e999",
    b"NA",
    b"2020-01-05",
    b"05.01.2020",
    b"9999-12-31 24:00",
    b"1:2",
    b">5 mg",
    "ü".encode(),
    b"\xef\xbb\xbf",
    b"a,b",
)


@pytest.mark.parametrize("name", TARGETS)
@bounded
@given(data=st.binary(max_size=200))
def test_any_bytes(name, data):
    TARGETS[name](data)


@settings(bounded, max_examples=60)
@given(choice=st.integers(0, 255), content=CSV)
def test_csv(choice, content):
    fuzz_csv(bytes([choice]) + content)


cells = st.text(st.characters(codec="utf-8", exclude_characters='\0"'), max_size=12)


@settings(bounded, max_examples=40)
@given(st.lists(st.lists(cells, min_size=7, max_size=7), min_size=1, max_size=5))
def test_whole_csv_is_either_read_whole_or_refused(rows):
    content = HEADER + b"".join(",".join(f'"{cell}"' for cell in row).encode() + b"\n" for row in rows)
    found = fuzz_csv(bytes([24]) + content.removeprefix(HEADER))
    if not isinstance(found, InputError):
        loaded, read = found
        assert loaded.rows == len(rows) and [row[-1] or "" for row in read] == [
            "" if r[-1] == "NA" else r[-1] for r in rows
        ]


@settings(bounded, max_examples=20)
@given(st.integers(0, 400), st.integers(0, 255))
def test_a_changed_byte_in_gzip_and_tar(place, value):
    body = HEADER + b"1,2,2020-01-05,05.01.2020,1:00,5,x\n" * 20
    packed = bytearray(gzip.compress(body, mtime=0))
    packed[place % len(packed)] = value
    fuzz_gzip(bytes(packed))
    packed = bytearray(tar(body))
    packed[place] = value
    fuzz_archive(bytes(packed[: len(packed) - place * (value % 2)]))


CELL = about(
    b"<",
    b">=",
    "≥".encode(),
    b"1",
    b"234",
    b",",
    b".",
    b"-",
    b"/",
    b":",
    b" ",
    b"e5",
    b"mg",
    b"x10",
    b"+",
    b"T",
    b"Z",
    b"+02:00",
    b"2020-01-05",
    b"%",
    "µ".encode(),
    b"to",
)


@settings(bounded, max_examples=120)
@given(CELL)
def test_cells(cell):
    number, comparator, unit, time = fuzz_cell(cell)
    assert number is None or math.isfinite(number)
    assert number is not None or (comparator, unit) == (None, None)
    assert time is None or 1000 <= time.year <= 9999


@settings(bounded, max_examples=60)
@given(
    st.sampled_from(["", "<", ">", "<=", ">=", "~"]),
    st.floats(-1e15, 1e15),
    st.sampled_from(["", " mg", "mmol/L", " x10^9/L", " %"]),
)
def test_a_quantity_keeps_its_parts(sign, number, unit):
    cell = f"{sign}{number!r}{unit}"
    assert fuzz_cell(cell.encode())[:3] == (number, sign or None, unit.strip() or None)


def toml(value: object) -> str:
    """A value as inline TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml(one) for one in value) + "]"
    return json.dumps(value) if isinstance(value, str) else str(value).lower()


plain = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=8)
words = st.sampled_from(
    [
        "people",
        "PEOPLE",
        "_row",
        "pid",
        "integer",
        "time",
        "time %Y",
        "time %Q",
        "'A'",
        "utf-8",
        "hex",
        "idna",
        "punycode",
        "undefined",
        "UTC",
        "Mars",
        "",
        '"',
        ",",
        ";;",
        "rows",
        "x.csv",
        "0",
        "omop",
        "\u0000",
    ]
)
leaves = st.one_of(words, plain, st.booleans(), st.integers(-5, 5), st.floats(-2, 2, allow_nan=False))
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | plain, inner, max_size=3)
)
table_keys = [
    "files",
    "rows",
    "sql",
    "json",
    "columns",
    "optional_columns",
    "delimiter",
    "encoding",
    "missing",
    "members",
    "optional",
    "table",
    "kind",
    "where",
    "shapes",
]
rule_keys = ["table", "code", "patient", "time", "value", "range", "drop", "join", "where", "missing_times", "each"]
tables = st.dictionaries(
    words, st.dictionaries(st.sampled_from(table_keys), values, max_size=5) | values, max_size=3
)
rules = st.lists(st.dictionaries(st.sampled_from(rule_keys), values, max_size=6) | values, max_size=3)
mappings = st.fixed_dictionaries(
    {"name": st.just("x"), "tables": tables | values, "events": rules | values},
    optional={"patient": values, "timezone": values, "metadata": values, "macros": values, "extends": values},
)


@settings(bounded, max_examples=400)
@given(mappings)
def test_mappings(said):
    content = "\n".join(f"{key} = {toml(value)}" for key, value in said.items())
    assert isinstance(fuzz_mapping(content.encode()), (Mapping, InputError))


GOOD = {
    "name": "x",
    "patient": "pid",
    "tables": {
        "people": {"files": "x.csv", "columns": {"pid": "integer"}},
        "words": {"columns": ["a"], "rows": [["b"]]},
        "more": {"sql": "SELECT 1"},
    },
    "events": [{"table": "people", "code": "'A'", "drop": {"b": "c"}}, {"table": "more", "code": "'B'"}],
}


def spots(value: object, path: tuple = ()) -> list[tuple]:
    """The path of every value inside `value`."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(spot for key, one in inner for spot in spots(one, (*path, key)))]


@settings(bounded, max_examples=300)
@given(st.sampled_from(spots(GOOD)[1:]), values)
def test_a_good_mapping_with_one_thing_changed(spot, value):
    said = json.loads(json.dumps(GOOD))
    place = said
    for key in spot[:-1]:
        place = place[key]
    place[spot[-1]] = value
    content = "\n".join(f"{key} = {toml(one)}" for key, one in said.items())
    assert isinstance(fuzz_mapping(content.encode()), (Mapping, InputError))


def test_the_good_mapping_is_good():
    assert isinstance(fuzz_mapping(SEEDS["mapping"][0]), Mapping)
    content = "\n".join(f"{key} = {toml(one)}" for key, one in GOOD.items())
    assert isinstance(fuzz_mapping(content.encode()), Mapping)


@settings(bounded, max_examples=200)
@given(
    st.text(min_size=6, max_size=12), st.sampled_from(["", "/db", "/db?schema=a,b", "/db?sslmode=disable"])
)
def test_a_password_never_shows(word, rest):
    word = f"SECRET{word}"
    assert "SECRET" not in str(judge(raw_origin, f"postgresql://me:{word}@host:5432{rest}"))
    place = raw_origin(f"postgresql://me:{quote(word, safe='', errors='replace')}@host:5432{rest}")
    assert "SECRET" not in str(place) and str(place).startswith("postgresql://me@host:5432")


def test_a_defect_would_be_found():
    """The negative control: a target that raises anything but InputError, or says nothing, fails."""

    def broken(data: bytes) -> None:
        if data.startswith(b"x"):
            raise KeyError(data)
        raise InputError("")

    with pytest.raises(KeyError):
        judge(broken, b"x")
    with pytest.raises(AssertionError):
        judge(broken, b"y")
