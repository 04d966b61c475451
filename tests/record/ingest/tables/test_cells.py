"""Cells of every type: what is a number, a quantity, a time; and what is not."""

import duckdb
import pytest

from sequela.errors import InputError
from sequela.record.ingest.tables.cells import (
    add_macros,
    check_day,
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
    def run(expression, *cells, zone="UTC", sentinels=()):
        con = duckdb.connect()
        add_macros(con, zone, sentinels)
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
        # as SQL Server and Snowflake write an offset
        ("2018-08-03 22:20:52.0000000 +00:00", "2018-08-04 00:20:52"),
        ("2018-08-03 22:20:52.123456789 -05:30", "2018-08-04 05:50:52.123456"),
        ("2018-08-03T22:20:52 +0000", "2018-08-04 00:20:52"),
        ("2018-08-03 22:20:52 +00", "2018-08-04 00:20:52"),
        ("2018-08-03 22:20:52 Z", "2018-08-04 00:20:52"),
        ("2018-08-03 22:20:52.5 UTC", "2018-08-04 00:20:52.5"),
        ("2018-08-03 22:20 UTC+02:00", "2018-08-03 22:20:00"),
        ("2018-08-03 22:20:52,25", "2018-08-03 22:20:52.25"),
        ("2018-08-03T22:20:52,25Z", "2018-08-04 00:20:52.25"),
        ("2018-08-03 10:20:52 PM", "2018-08-03 22:20:52"),
        ("2018-08-03 12:05 a.m.", "2018-08-03 00:05:00"),
        ("2018-08-03 12:05:00PM", "2018-08-03 12:05:00"),
        ("2018-08-03  22:20:52", "2018-08-03 22:20:52"),
    ],
)
def test_times(of, cell, read):
    assert of("time_in($1)::VARCHAR", cell, zone="Europe/Berlin") == (read,)


@pytest.mark.parametrize(
    "cell",
    ["03/14/2020", "2020-02-30", "2020-13-01", "20200105", "infinity", "epoch", "0001-01-01", "9999-12-31 24:00:00",
     "9999-12-31T23:59:00-05:00", "12020-01-01", "2020-01-05 (BC)", "2020-01-05 08:30:00 America/New_York",
     "2020-01-05T08:30+15:00", "2020-01-05T08:30+02:75", "2020-01-05 25:00", "2020-01-05+02:00", "soon", "", None,
     "2020-01-05 13:00 PM", "2020-01-05 00:30 AM", "2020-01-05 08:30 XM",
     "2020-01-05 08:30 PM +01:00", "2020-01-05 08:30:00 + 02:00"],
)  # fmt: skip
def test_what_is_no_time(of, cell):
    assert of("time_in($1)", cell) == (None,)


@pytest.mark.parametrize(
    "cell, read",
    [("12", 12), (" 12 ", 12), ("012", 12), ("+5", 5), ("-7", -7), ("12.0", 12), ("12.", 12),
     ("9007199254740993", 2**53 + 1)],
)  # fmt: skip
def test_whole_numbers(of, cell, read):
    assert of("whole_in($1)", cell) == (read,)
    assert of(read_cell("integer", "$1", "UTC"), cell) == (read,)


@pytest.mark.parametrize(
    "cell",
    ["1_23", "1e3", "1.2E+11", "0x1F", "0b11", "1,234", "1.000,5", "1 250", "1\u2009250", "\uff11\uff12", "12.5",
     "12.05", "Infinity", "nan", "1d5", "9223372036854775808", "--5", "", "id 5", None],
)  # fmt: skip
def test_what_is_no_whole_number(of, cell):
    assert of("whole_in($1)", cell) == (None,)


def test_an_underscore_is_no_part_of_a_number(of):
    for kind in ("number", "quantity"):
        sql = f"{read_cell(kind, '$1', 'UTC')}, {read_cell(kind, '$2', 'UTC')}"
        assert of(sql, "1_250.5", "1250.5") == (None, 1250.5)


def test_days_that_stand_for_no_time(of):
    said = {"sentinels": ("9999-12-31", "1900-01-01")}
    for cell in ("9999-12-31", "9999-12-31 23:59:59", "1900-01-01T00:00:00Z", "1900-01-01 00:00:00 -05:00"):
        assert of("time_in($1)", cell, **said) == (None,)
    assert of("is_sentinel($1)", "1900-01-01T05:00:00Z", **said) == (True,)
    for cell in ("1900-01-02", "9998-12-31"):
        assert of("time_in($1) IS NOT NULL, is_sentinel($1)", cell, **said) == (True, False)
    assert of("time_in('9999-12-31') IS NOT NULL") == (True,), "unless a mapping says so, it is a day like any other"


def test_which_days_can_stand_for_none():
    assert check_day("9999-12-31")
    assert not any(map(check_day, ("31.12.9999", "9999-13-31", "2020-02-30", "0001-01-01", "never", "")))


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
    assert notes("text", "x", "x") == {} and list(notes("integer", "x", "x")) == ["wrong", "padded"]


def test_the_likely_format():
    assert likely_format({"wrong": 3}) == ""
    assert "%m/%d/%Y %H:%M" in likely_format({"%m/%d/%Y": 3, "%d/%m/%Y": 2, "%H:%M": 3})
    assert '"time %m/%d/%Y" or "time %d/%m/%Y"' in likely_format({"%m/%d/%Y": 3, "%d/%m/%Y": 3})
