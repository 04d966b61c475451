"""Cells of every type: what is a number, a quantity, a time; and what is not."""

import duckdb
import pytest

from sequela.errors import InputError
from sequela.record.ingest.tables.cells import (
    add_macros,
    check_type,
    check_zone,
    is_time,
    likely_format,
    notes,
    read_cell,
    value_or_null,
)


@pytest.fixture
def of():
    def run(expression, *cells, zone="UTC"):
        con = duckdb.connect()
        add_macros(con, zone)
        return con.execute(f"SELECT {expression}", cells).fetchall()[0]

    return run


@pytest.mark.parametrize(
    "cell, number, comparator, unit",
    [
        ("7.35", 7.35, None, None),
        (" -5 ", -5, None, None),
        ("−5", -5, None, None),
        ("1e5", 1e5, None, None),
        (">100", 100, ">", None),
        ("<0.2", 0.2, "<", None),
        (">=3", 3, ">=", None),
        ("≥ 3", 3, ">=", None),
        ("=< 3", 3, "<=", None),
        ("= 3", 3, None, None),
        ("~7", 7, "~", None),
        ("1,234", 1234, None, None),
        ("> 1,234,567.8 U/L", 1234567.8, ">", "U/L"),
        ("5 mg", 5, None, "mg"),
        ("5mg", 5, None, "mg"),
        ("98.6°F", 98.6, None, "°F"),
        ("60 mL/min/1.73m2", 60, None, "mL/min/1.73m2"),
        ("5 x10^9/L", 5, None, "x10^9/L"),
        ("5.1 µmol/l", 5.1, None, "µmol/l"),
        ("12 (H)", 12, None, "(H)"),
        ("2+", 2, None, None),
        ("+++", 3, None, None),
    ],
)
def test_quantities(of, cell, number, comparator, unit):
    assert of("number_in($1), comparator_in($1), unit_in($1)", cell) == (number, comparator, unit)


@pytest.mark.parametrize(
    "cell",
    ["3-5", "3 - 5", "3 to 5", "1 of 2", "5mg-10mg", "120/80", "1:80", "12:30", "2020-01-05", "10^5", "2x3", "1,5",
     "0,014", "-0,014 mg", "01,234",
     "1 234", "1O5", "positive", "nan", "inf", "1e400", "", " ", "-", "++++++", "(5)", "٣", None],
)  # fmt: skip
def test_what_is_no_quantity(of, cell):
    assert of("number_in($1)", cell) == (None,)


@pytest.mark.parametrize(
    "cell, read",
    [
        ("2020-01-05", "2020-01-05 00:00:00"),
        (" 2020-1-5 8:30 ", "2020-01-05 08:30:00"),
        ("2020/01/05T08:30:00.25", "2020-01-05 08:30:00.25"),
        ("2020-01-05T23:30:00Z", "2020-01-06 00:30:00"),
        ("2020-07-05 08:30:00+0200", "2020-07-05 08:30:00"),
        ("2020-07-05T08:30:00.5-05:30", "2020-07-05 16:00:00.5"),
        ("2020-07-05 08:30 UTC", "2020-07-05 10:30:00"),
        ("2020-01-05 24:00:00", "2020-01-06 00:00:00"),
        ("9999-12-31", "9999-12-31 00:00:00"),
    ],
)
def test_times(of, cell, read):
    assert of("time_in($1)::VARCHAR", cell, zone="Europe/Berlin") == (read,)


@pytest.mark.parametrize(
    "cell",
    ["03/14/2020", "2020-02-30", "2020-13-01", "20200105", "infinity", "epoch", "0001-01-01", "9999-12-31 24:00:00",
     "9999-12-31T23:59:00-05:00", "12020-01-01", "2020-01-05 (BC)", "2020-01-05 08:30:00 America/New_York",
     "2020-01-05T08:30+15:00", "2020-01-05T08:30+02:75", "2020-01-05 25:00", "2020-01-05+02:00", "soon", "", None],
)  # fmt: skip
def test_what_is_no_time(of, cell):
    assert of("time_in($1)", cell) == (None,)


def test_types_of_columns():
    for kind in (
        "text",
        "integer",
        "number",
        "quantity",
        "duration",
        "time",
        "time %d.%m.%Y | %d.%m.%Y %H:%M",
    ):
        assert check_type(kind) is None
    for kind in ("int", "times %Y", "number %Y", "", "time "):
        assert check_type(kind) == "is unknown"
    assert "'%Q'" in check_type("time %Y-%m-%d | %Q")
    assert "without a year" in check_type("time %d.%m.")
    assert is_time("time") and is_time("time %Y") and is_time("duration") and not is_time("quantity")


def test_zones():
    check_zone("America/New_York")
    with pytest.raises(InputError, match="'Mars/Olympus' is not a time zone"):
        check_zone("Mars/Olympus")


def test_the_sql_of_a_column(of):
    """The parts that a table is made of: value, sanity, notes."""
    sql = value_or_null("time %d.%m.%y", "_read")
    assert (
        of(f"{sql} FROM (SELECT {read_cell('time %d.%m.%y', '$1', 'UTC')} AS _read)", "05.01.20")[0].year
        == 2020
    )
    assert of(f"{sql} FROM (SELECT TIMESTAMP '0020-01-05' AS _read)") == (None,)
    assert value_or_null("number", "x") == value_or_null("text", "x") == "x"
    noted = notes("time", "$1", "NULL::TIMESTAMP")
    found = {name: of(condition, "03/14/2020 08:30")[0] for name, condition in noted.items()}
    assert [name for name, holds in found.items() if holds] == ["wrong", "%m/%d/%Y", "%H:%M"]
    assert notes("text", "x", "x") == {} and list(notes("integer", "x", "x")) == ["wrong"]


def test_the_likely_format():
    assert likely_format({"wrong": 3}) == ""
    assert "%m/%d/%Y %H:%M" in likely_format({"%m/%d/%Y": 3, "%d/%m/%Y": 2, "%H:%M": 3})
    assert '"time %m/%d/%Y" or "time %d/%m/%Y"' in likely_format({"%m/%d/%Y": 3, "%d/%m/%Y": 3})
