"""Folders are known by what is in them, and lead back to what they were made from."""

from pathlib import Path

import pytest

from sequela.errors import InputError
from sequela.serve.folder import manifest
from sequela.serve.folder.work import make_folder


def write(text: str):
    def make(work: Path) -> dict:
        (work / "file").write_text(text)
        return {}

    return make


def test_foreign_folders_are_hashed_byte_by_byte(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("one")
    before = manifest.fingerprint(tmp_path / "a")
    assert manifest.fingerprint(tmp_path / "a") == before
    (tmp_path / "a" / "file").write_text("two")
    assert manifest.fingerprint(tmp_path / "a") != before


def test_a_uri_that_is_no_path_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="URI") as caught:
        manifest.fingerprint(Path("postgresql://me:SECRET@host/db"))
    assert "SECRET" not in str(caught.value)
    with pytest.raises(InputError, match="gone does not exist"):
        manifest.fingerprint(tmp_path / "gone")


def test_names_of_files_count(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("one")
    before = manifest.fingerprint(tmp_path / "a")
    (tmp_path / "a" / "file").rename(tmp_path / "a" / "other")
    assert manifest.fingerprint(tmp_path / "a") != before


def test_a_truncated_file_in_our_folder_is_seen(tmp_path: Path) -> None:
    make_folder(tmp_path / "a", "copy", {}, {}, write("one"))
    before = manifest.fingerprint(tmp_path / "a")
    (tmp_path / "a" / "file").write_text("on")
    assert manifest.fingerprint(tmp_path / "a") != before


def test_sources_are_found_after_a_move(tmp_path: Path) -> None:
    make_folder(tmp_path / "run" / "a", "copy", {}, {}, write("one"))
    make_folder(tmp_path / "run" / "b", "train", {}, {"corpus": tmp_path / "run" / "a"}, write("two"))
    (tmp_path / "run").rename(tmp_path / "moved")
    assert manifest.source(tmp_path / "moved" / "b", "corpus") == tmp_path / "moved" / "a"
    assert manifest.source(tmp_path / "moved" / "b", "meds") is None
    assert manifest.source(tmp_path / "moved" / "a", "corpus") is None


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"made_by": "seq')
    with pytest.raises(InputError, match=r"manifest\.json is not JSON .* run its stage again"):
        manifest.read(tmp_path)


def test_a_folder_with_the_names_of_earlier_settings_is_still_up_to_date(tmp_path: Path) -> None:
    make_folder(tmp_path / "a", "train", {"optimiser": "muon"}, {}, write("one"))
    assert make_folder(tmp_path / "a", "train", {"optimizer": "muon"}, {}, write("two"))["skipped"]
    assert not make_folder(tmp_path / "a", "train", {"optimizer": "adamw"}, {}, write("two"))["skipped"]


def test_a_change_behind_a_link_is_seen(tmp_path: Path) -> None:
    (tmp_path / "behind").mkdir()
    (tmp_path / "behind" / "file").write_text("one")
    make_folder(tmp_path / "ours", "copy", {}, {}, write("one"))
    (tmp_path / "other").mkdir()
    for folder in ("ours", "other"):
        (tmp_path / folder / "held_out").symlink_to("../behind")
    before = [manifest.fingerprint(tmp_path / folder) for folder in ("ours", "other")]
    assert before == [manifest.fingerprint(tmp_path / folder) for folder in ("ours", "other")]
    (tmp_path / "behind" / "file").write_text("two")
    after = [manifest.fingerprint(tmp_path / folder) for folder in ("ours", "other")]
    assert after[0] != before[0] and after[1] != before[1]


def test_a_leftover_and_a_link_to_nothing_are_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("one")
    before = manifest.fingerprint(tmp_path / "a")
    (tmp_path / "a" / ".DS_Store").write_text("x")
    assert manifest.fingerprint(tmp_path / "a") == before
    (tmp_path / "a" / "old").symlink_to("gone")
    assert manifest.fingerprint(tmp_path / "a") != before


def test_what_may_not_be_read_is_named(tmp_path: Path, locked) -> None:
    for name in ("a/b/file", "a/file"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("one")
    for name in ("a/b", "a/file"):
        with locked(tmp_path / name), pytest.raises(InputError, match=rf"{name} cannot be opened"):
            manifest.fingerprint(tmp_path / "a")
