"""Names match without regard to case, and where two would do nobody guesses."""

import pytest

from sequela.errors import InputError
from sequela.record.ingest.tables.names import find_name, find_paths


def test_a_name_is_found_in_any_case():
    assert find_name("value", ["VALUE", "x"], "t", "column") == "VALUE"
    assert find_name("value", ["VALUE", "value"], "t", "column") == "value", "letter by letter comes first"
    assert find_name("value", ["values"], "t", "column") is None
    with pytest.raises(InputError, match="t has two columns named 'VALUE' and 'Value': rename one"):
        find_name("value", ["VALUE", "Value"], "t", "column")


def test_files_are_found_in_any_case(tmp_path):
    for name in ("Results-1.CSV", "results-2.csv", "SUB/person.csv", "x[1].csv", "ß.csv"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "results-folder.csv").mkdir()
    found = lambda pattern: [str(path.relative_to(tmp_path)) for path in find_paths(tmp_path, pattern)]  # noqa: E731
    assert found("results-*.csv") == ["Results-1.CSV", "results-2.csv"]
    assert found("results-[13].csv") == ["Results-1.CSV"]
    assert found("sub/PERSON.csv") == found("**/Person.csv") == ["SUB/person.csv"]
    assert found("ß.csv") == ["ß.csv"] and found("gone.csv") == []


def test_two_files_that_differ_only_in_case(tmp_path):
    for name in ("person.csv", "PERSON.csv"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"PERSON\.csv and .*person\.csv have names that differ only in case"):
        find_paths(tmp_path, "person.csv")
