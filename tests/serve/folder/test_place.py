"""What is wrong with the path of a result is said before any work."""

import os
from pathlib import Path

import pytest

from sequela.errors import InputError
from sequela.serve.folder.place import checked_place, hidden_name


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    (tmp_path / "raw").mkdir()
    (tmp_path / "folder").mkdir()
    for link, target in (("nothing", "gone"), ("itself", "itself"), ("linked", "folder"), ("twice", "linked")):
        (tmp_path / link).symlink_to(target)
    return tmp_path


@pytest.mark.parametrize(
    ("out", "word"),
    [
        ("nothing", "nothing is a link to nothing"),
        ("nothing/out", "nothing is a link to nothing"),
        ("itself", "itself is a link that leads back to itself"),
        ("itself/out", "itself is a link that leads back to itself"),
        ("file/out", "file/out cannot be written to: file is a file"),
        ("file/a/out", "file is a file"),
        ("o" * 300, "name that is too long"),
        (os.fsdecode(b"o\xff"), r"o\\xff is not UTF-8 text"),
        ("raw", "the result raw and the input raw overlap"),
        ("raw/out", "overlap"),
        (".", "overlap"),
        ("raw/../raw", "overlap"),
        ("postgresql://me:SECRET@host/out", "this kind of URI"),
    ],
)
def test_a_place_that_can_be_no_result(here: Path, out: str, word: str) -> None:
    before = sorted(path.name for path in here.iterdir())
    with pytest.raises(InputError, match=word):
        checked_place(Path(out), [Path("raw")])
    assert sorted(path.name for path in here.iterdir()) == before


@pytest.mark.parametrize(
    ("out", "target"),
    [
        ("new", "new"),
        ("deep/new", "deep/new"),
        ("gone/../new", "new"),
        ("linked", "folder"),
        ("twice/new", "folder/new"),
        ("o" * 255, "o" * 255),
        ("raw2", "raw2"),
    ],
)
def test_a_place_is_what_its_links_lead_to(here: Path, out: str, target: str) -> None:
    assert checked_place(Path(out), [Path("raw")]) == here.resolve() / target


@pytest.mark.skipif(not os.path.ismount("/proc"), reason="needs a folder that is a disk of its own")
def test_a_disk_of_its_own_cannot_be_replaced(here: Path) -> None:
    with pytest.raises(InputError, match=r"choose a folder in it, such as /proc/result"):
        checked_place(Path("/proc"), [])


def test_hidden_names_are_short_and_differ() -> None:
    assert hidden_name(Path("a/out")) == ".out"
    names = {hidden_name(Path(letter * 120)) for letter in ("a", "\u00fc", "ab")}
    assert len(names) == 3 and all(len(name.encode()) < 100 for name in names)
