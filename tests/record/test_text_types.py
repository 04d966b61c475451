"""Cells of every type: what is a number, a quantity, a time; and what is not."""

import duckdb
import pytest

from sequela.record.text_types import (
    add_macros,
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
     "1 234", "1O5", "positive", "nan", "inf", "1e400", "", " ", "-", "++++++", "(5)", "٣", None],
)  # fmt: skip
def test_what_is_no_quantity(of, cell):
    assert of("number_in($1)", cell) == (None,)
