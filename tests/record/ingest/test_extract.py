"""Tables are read and forgotten, rules run, and their rows lie in the spill."""

import duckdb
import polars as pl
import pytest

from sequela.errors import InputError
from sequela.progress import silent
from sequela.record.ingest.extract import extract_events
from sequela.record.ingest.mapping_file import load_mapping


@pytest.fixture
def extraction(clinic, tmp_path):
    def run(events_per_part: int = 1000):
        clinic.write()
        mapping = load_mapping(clinic.folder / "clinic.toml")
        return extract_events(mapping, clinic.raw, tmp_path, "500MB", events_per_part, silent)

    return run


def test_rows_become_events_in_the_spill(extraction):
    found = extraction()
    assert (found.name, found.events, found.payload, found.splits) == ("clinic", 13, frozenset(), False)
    assert found.meanings["LAB//HB"] == "Test hb [g/dL]"
    assert found.tables["visits"].files == ("visits.csv",)
    (rule,) = found.tables["visits"].rules
    assert (rule.number, rule.rows_in, rule.dropped) == (3, 5, {"no value": 1})
    rows = pl.read_parquet(found.spill.part("rule=3", 0)).sort("row")
    assert rows["code"].to_list() == ["LAB//HB", "VITAL//HR", "LAB//HB", "VITAL//HR", "LAB//HB"]
    assert rows["unit"].to_list() == ["g/dL", "beats/min", "g/dL", "beats/min", "g/dL"]
    assert rows["reason"].to_list() == [None] * 4 + ["no value"]


def test_parts_follow_from_the_rows_that_rules_select(extraction, clinic):
    assert extraction(events_per_part=7).spill.parts == 2, "14 rows: 3 people for three rules and 5 visits"


def test_a_table_lies_on_disk_only_as_long_as_something_speaks_of_it(extraction, clinic, tmp_path):
    clinic.mapping = clinic.mapping.replace(
        "[[events]]", '[tables.adults]\nsql = "SELECT * FROM people"\n\n[[events]]', 1
    ).replace('table = "people"\ncode = "\'GENDER', 'table = "adults"\ncode = "\'GENDER')
    extraction()
    with duckdb.connect(tmp_path / "tables.duckdb") as con:
        assert con.sql("SHOW TABLES").fetchall() == []


@pytest.mark.parametrize("wrong", [2, 3])
def test_a_column_most_of_whose_times_cannot_be_read_is_an_error_though_rules_can_do_without_it(
    extraction, clinic, wrong
):
    """Half of them is only counted."""
    clinic.mapping = clinic.mapping.replace('seen = "time",', 'seen = "time", noted = "time",').replace(
        'time = "seen"', 'time = "coalesce(noted, seen)"'
    )
    cells = ["noted", *["05.01.2020 08:30"] * wrong, *["2020-05-05"] * (4 - wrong), ""]
    clinic.visits = "".join(f"{row},{cell}\n" for row, cell in zip(clinic.visits.splitlines(), cells, strict=True))
    if wrong == 2:
        assert extraction().tables["visits"].facts["unreadable_times"]["noted"]["rows"] == 2
    else:
        with pytest.raises(InputError, match=r"table 'visits': 3 of 4 cells in column 'noted'.*row 1.*%d.%m.%Y %H:%M"):
            extraction()


def test_rows_that_no_rule_selects_are_counted_with_and_without_join(extraction, clinic):
    old = 'code = "code"\ntime = "seen"'
    clinic.mapping = clinic.mapping.replace(old, old + "\nwhere = \"unit = 'g/dL'\"")
    assert extraction().tables["visits"].facts["rows_without_rule"] == 2


def test_a_row_for_which_a_condition_is_unknown_is_not_selected(extraction, clinic):
    old = 'code = "code"\ntime = "seen"'
    clinic.mapping = clinic.mapping.replace(old, old + '\nwhere = "value > 10"').replace(
        'join = "names USING (test)"\n', ""
    )
    clinic.mapping = clinic.mapping.replace('code = "code"', 'code = "test"').replace(
        'range = ["low", "high"]\n', ""
    )
    clinic.mapping = clinic.mapping.replace('unit = "unit"', "")
    table = extraction().tables["visits"]
    assert table.facts["rows_without_rule"] == 2, "a value of 9, and an empty one"
    assert table.rules[0].dropped == {"not selected": 2}
