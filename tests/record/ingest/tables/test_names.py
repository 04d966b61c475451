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


def put(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(folder, pattern):
    return [str(path.relative_to(folder)) for path in find_paths(folder, pattern)]


def test_links_are_followed_and_a_file_is_found_once(tmp_path):
    put(tmp_path, "raw/2024/a.csv", "else/b.csv")
    (tmp_path / "raw/linked").symlink_to("../else")
    (tmp_path / "raw/latest").symlink_to("2024")
    (tmp_path / "raw/2024/up").symlink_to("..")
    (tmp_path / "raw/2024/again.csv").symlink_to("a.csv")
    assert names(tmp_path / "raw", "**/*.csv") == ["2024/a.csv", "linked/b.csv"]
    assert names(tmp_path / "raw", "latest/a.csv") == ["latest/a.csv"], "who asks for the link gets it"
    (tmp_path / "raw/2024/c.csv").symlink_to("gone")
    with pytest.raises(InputError, match=r"c\.csv is a link to nothing"):
        find_paths(tmp_path / "raw", "*/*.csv")
    assert names(tmp_path / "raw", "*/a*.csv") == ["2024/a.csv"]


def test_leftovers_do_not_count_unless_they_are_asked_for(tmp_path):
    put(tmp_path, "a.csv", "._a.csv", "~$a.csv", ".hidden.csv", ".git/b.csv", "__MACOSX/a.csv", "lost+found/c.csv")
    assert names(tmp_path, "**/*.csv") == ["a.csv"]
    assert names(tmp_path, ".hidden.csv") == [".hidden.csv"]


def test_a_folder_that_may_not_be_read_is_named(tmp_path, locked):
    put(tmp_path, "a.csv", "b/a.csv")
    with locked(tmp_path / "b"):
        assert names(tmp_path, "*.csv") == ["a.csv"]
        with pytest.raises(InputError, match=r"/b cannot be opened \(permission denied\)"):
            find_paths(tmp_path, "**/*.csv")


def test_a_name_with_brackets_is_a_name_first(tmp_path):
    put(tmp_path, "labs[1].csv", "labs1.csv", "u\u0308.csv")
    assert names(tmp_path, "labs[1].csv") == ["labs[1].csv"]
    assert names(tmp_path, "labs*.csv") == ["labs1.csv", "labs[1].csv"]
    assert names(tmp_path, "\u00fc.csv") == ["u\u0308.csv"], "one letter, spelled in two ways"
    with pytest.raises(InputError, match="absolute path"):
        find_paths(tmp_path, "/labs1.csv")
