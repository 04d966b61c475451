"""One rule for each row: texts are filled in wherever they stand, and nothing else changes."""

import pytest

from sequela.errors import InputError
from sequela.record.ingest.mapping import RowTable, filled
from sequela.record.ingest.mapping_file import load_mapping

MAPPING = """
name = "x"
patient = "p"
[tables.t]
files = "t.csv"
columns = { p = "integer", hr = "number", rr = "number" }
[[events]]
table = "t"
code = "'FIRST'"
[[events]]
table = "t"
where = "{column} IS NOT NULL"
code = "'VITAL//{code}'"
value = "{column}"
range = ["{low}", 300]
drop = { "{code} of nobody" = "p IS NULL" }
[events.each]
columns = ["column", "code", "low"]
rows = [["hr", "HR", 10], ["rr", "RR", 0.5]]
[[events]]
table = "t"
code = "'LAST'"
"""


def test_cells_stand_wherever_a_text_names_their_column():
    said = {"a": "{x} || {x} || '{z}'", "b": ["{y}", 2], "c": {"{x}": "{y}"}, "d": True}
    assert filled(said, RowTable(("x", "y"), (("{y}", 1), ("q", 2.5))), "p")[1] == {
        "a": "q || q || '{z}'",
        "b": ["2.5", 2],
        "c": {"q": "2.5"},
        "d": True,
    }


def test_a_column_that_is_used_nowhere_is_refused():
    with pytest.raises(InputError, match=r"p, each: the rule never uses \{colum\}"):
        filled({"code": "'{column}'"}, RowTable(("column", "colum"), (("a", "b"),)), "p")


def test_the_rules_are_those_that_one_would_write_by_hand(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text(MAPPING)
    rules = load_mapping(path).rules
    assert [rule.code for rule in rules] == ["'FIRST'", "'VITAL//HR'", "'VITAL//RR'", "'LAST'"]
    assert (rules[2].where, rules[2].value, rules[2].range) == ("rr IS NOT NULL", "rr", ("0.5", "300"))
    assert rules[2].drop == {"RR of nobody": "p IS NULL"}
    assert [rule.place for rule in rules[1:]] == [f"{path}, events 2, each, row 1",
                                                  f"{path}, events 2, each, row 2", f"{path}, events 3"]  # fmt: skip


@pytest.mark.parametrize(
    "old, new, words",
    [
        ('["rr", "RR", 0.5]', '["rr", "RR"]', "events 2, each, row 2 must have 3 cells"),
        ('["rr", "RR", 0.5]', '["rr", "RR", "low"]', "events 2, each, column 'low' must hold only strings"),
        ('rows = [["hr", "HR", 10], ["rr", "RR", 0.5]]', "rows = []", "events 2, each has no rows"),
        ('columns = ["column", "code", "low"]', "", "events 2, each: 'columns' is missing"),
        ('[events.each]\ncolumns = ["column", "code", "low"]\nrows', "each", "events 2, each must be a table"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, old, new, words):
    path = tmp_path / "x.toml"
    path.write_text(MAPPING.replace(old, new))
    with pytest.raises(InputError, match=words):
        load_mapping(path)
