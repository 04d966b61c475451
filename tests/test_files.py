"""Which files count, that links lead where they lead, and what errors of the system mean."""

import errno
import os
import resource
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from sequela.errors import InputError
from sequela.files import (
    check_readable,
    check_text,
    check_working_folder,
    counts,
    files_below,
    plain_errors,
    system_error,
)

LEFT_BEHIND = ("._0.parquet", ".DS_Store", "~$x.csv", "_SUCCESS", ".0.parquet.crc", "x.csv~", "lost+found", "__MACOSX")


def names(folder: Path, ending: str = "") -> list[str]:
    return [str(path.relative_to(folder)) for path in files_below(folder, ending)]


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")


@pytest.mark.parametrize("name", LEFT_BEHIND)
def test_what_programs_leave_behind_does_not_count(name: str) -> None:
    assert not counts(name)


@pytest.mark.parametrize("name", ["0.parquet", "_x.csv", "a~b.csv", "run[1].csv", "Success"])
def test_other_names_do(name: str) -> None:
    assert counts(name)


def test_files_are_listed_through_links_and_loops_end(tmp_path: Path) -> None:
    for name in ("data/b/1.parquet", "data/a.parquet", "data/x.txt", "else/2.parquet", "data/.trash/3.parquet"):
        put(tmp_path / name)
    (tmp_path / "data/held_out").symlink_to("../else")
    (tmp_path / "data/b/up").symlink_to("..")
    (tmp_path / "data/file.parquet").symlink_to("../else/2.parquet")
    assert names(tmp_path / "data", ".parquet") == ["a.parquet", "b/1.parquet", "file.parquet", "held_out/2.parquet"]
    assert names(tmp_path / "gone") == []


def test_a_link_to_nothing_is_named_though_its_ending_is_another(tmp_path: Path) -> None:
    put(tmp_path / "a.parquet")
    (tmp_path / "held_out").symlink_to("gone")
    with pytest.raises(InputError, match=r"held_out is a link to nothing"):
        files_below(tmp_path, ".parquet")
    assert len(files_below(tmp_path, broken_links=True)) == 2
    (tmp_path / "held_out").unlink()
    (tmp_path / "held_out").symlink_to("held_out")
    with pytest.raises(InputError, match=r"held_out is a link that leads back to itself"):
        files_below(tmp_path, ".parquet")


def test_what_may_not_be_opened_is_no_missing_data(tmp_path: Path, locked) -> None:
    put(tmp_path / "a/1.parquet")
    put(tmp_path / "b/2.parquet")
    with locked(tmp_path / "b"), pytest.raises(InputError, match=r"/b cannot be opened \(permission denied\)"):
        files_below(tmp_path, ".parquet")
    with locked(tmp_path / "b"), pytest.raises(InputError, match=r"deeper cannot be opened"):
        files_below(tmp_path / "b/deeper")
    with locked(tmp_path / "a/1.parquet"), pytest.raises(InputError, match=r"1\.parquet cannot be opened"):
        check_readable(tmp_path / "a/1.parquet")
    assert names(tmp_path) == ["a/1.parquet", "b/2.parquet"]


def test_a_path_is_text(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"a\xff.parquet")
    path.touch()
    with pytest.raises(InputError, match=r"a\\xff\.parquet is not UTF-8 text"):
        files_below(tmp_path)
    check_text(tmp_path / "\u00fc.parquet")


def test_a_working_folder_that_was_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    check_working_folder()
    (tmp_path / "gone").rmdir()
    with pytest.raises(InputError, match="the working folder is gone"):
        check_working_folder()
    monkeypatch.chdir(tmp_path)


NUMBERS = np.random.default_rng(0).random(40_000)
WRITERS = {
    "python": lambda path: path.write_bytes(NUMBERS.tobytes()),
    "numpy": lambda path: np.save(path, NUMBERS),
    "polars": lambda path: pl.DataFrame({"x": NUMBERS}).write_parquet(path),
    "pyarrow": lambda path: pq.write_table(pl.DataFrame({"x": NUMBERS}).to_arrow(), path),
    "safetensors": lambda path: save_file({"x": NUMBERS}, path),
    "duckdb": lambda path: duckdb.execute(f"COPY (SELECT random() FROM range(40000)) TO '{path}' (FORMAT parquet)"),
}


@pytest.mark.parametrize("library", WRITERS)
def test_every_library_says_that_nothing_more_could_be_written(tmp_path: Path, library: str) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(InputError, match="would be larger than the system allows"), plain_errors(tmp_path):
            WRITERS[library](tmp_path / "x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize(
    ("code", "word"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "check the disk"),
        (errno.ENAMETOOLONG, "too long"),
        (errno.EACCES, "permission denied"),
    ],
)
def test_an_error_of_the_system_is_a_sentence_however_it_is_wrapped(code: int, word: str) -> None:
    plain = OSError(code, os.strerror(code), "there")
    wrapped = RuntimeError(f"writing failed: {os.strerror(code)} (os error {code})")
    assert word in str(system_error(plain)) and str(system_error(plain)).startswith("there ")
    assert word in str(system_error(wrapped, "here")) and str(system_error(wrapped, "here")).startswith("here ")


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("row 28 has 2 cells"), FileNotFoundError(2, "no", "x")])
def test_other_errors_pass(error: Exception) -> None:
    assert system_error(error) is None
    with pytest.raises(type(error)), plain_errors():
        raise error
