"""A stage's folder is there whole or not at all, is made once, and never replaces what is not its own."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from sequela.errors import InputError
from sequela.serve.folder.work import copy_whole, make_folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "rows.csv").write_text("a,b\n1,2\n")
    return folder


def copy_rows(source: Path):
    def make(work: Path) -> dict:
        (work / "rows.csv").write_text((source / "rows.csv").read_text())
        return {"rows": 1}

    return make


def never(work: Path) -> dict:
    raise AssertionError("this stage should have been skipped")


def contents(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_folder_and_manifest(tmp_path: Path, source: Path) -> None:
    facts = make_folder(tmp_path / "out", "copy", {"depth": 2}, {"rows": source}, copy_rows(source))
    written = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert contents(tmp_path / "out") == ["manifest.json", "rows.csv"]
    assert written["stage"] == "copy"
    assert written["settings"] == {"depth": 2}
    assert written["inputs"]["rows"]["path"] == "../source"
    assert written["result"] == {"rows": 1}
    assert written["seconds"] >= 0
    assert 1 < written["peak_rss_mb"] < 100_000
    assert facts == {**written, "skipped": False}
    assert contents(tmp_path) == ["out", "source"]


def test_up_to_date_is_skipped(tmp_path: Path, source: Path) -> None:
    make_folder(tmp_path / "out", "copy", {"depth": 2}, {"rows": source}, copy_rows(source))
    again = make_folder(tmp_path / "out", "copy", {"depth": 2}, {"rows": source}, never)
    assert again["skipped"]


@pytest.mark.parametrize("change", ["settings", "content", "deeper"])
def test_what_changed_is_made_anew(tmp_path: Path, source: Path, change: str) -> None:
    make_folder(tmp_path / "first", "copy", {}, {"rows": source}, copy_rows(source))
    out, settings = tmp_path / "out", {"depth": 2}
    inputs = {"rows": tmp_path / "first"}
    make_folder(out, "copy", settings, inputs, copy_rows(source))
    if change == "settings":
        settings = {"depth": 3}
    if change == "content":
        inputs = {"rows": source}
    if change == "deeper":
        (source / "rows.csv").write_text("a,b\n1,3\n")
        make_folder(tmp_path / "first", "copy", {}, {"rows": source}, copy_rows(source))
    assert not make_folder(out, "copy", settings, inputs, copy_rows(source))["skipped"]
    assert contents(tmp_path) == ["first", "out", "source"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_nothing_half_written(tmp_path: Path, source: Path, error: BaseException) -> None:
    def fail(work: Path) -> dict:
        (work / "half").write_text("half")
        raise error

    with pytest.raises(type(error)):
        make_folder(tmp_path / "out", "copy", {}, {"rows": source}, fail)
    assert contents(tmp_path) == ["source"]
    assert not make_folder(tmp_path / "out", "copy", {}, {"rows": source}, copy_rows(source))["skipped"]


def test_failure_keeps_the_previous_result(tmp_path: Path, source: Path) -> None:
    make_folder(tmp_path / "out", "copy", {"depth": 2}, {"rows": source}, copy_rows(source))
    with pytest.raises(AssertionError):
        make_folder(tmp_path / "out", "copy", {"depth": 3}, {"rows": source}, never)
    assert make_folder(tmp_path / "out", "copy", {"depth": 2}, {"rows": source}, never)["skipped"]


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path, source: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from sequela.serve.folder.work import make_folder\n"
        "def make(work): (work / 'half').write_text('x'); time.sleep(60)\n"
        "make_folder(Path(sys.argv[1]), 'copy', {}, {'rows': Path(sys.argv[2])}, make)"
    )
    run = subprocess.Popen([sys.executable, "-c", script, tmp_path / "out", source])
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob(".out.unfinished-*/half")) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert list(tmp_path.glob(".out.unfinished-*/half"))
    other = make_folder(tmp_path / "other", "copy", {}, {"rows": source}, copy_rows(source))
    assert not other["skipped"]
    assert list(tmp_path.glob(".out.unfinished-*/half")), "a run that is alive keeps its folder"
    run.send_signal(signal.SIGKILL)
    run.wait()
    make_folder(tmp_path / "out", "copy", {}, {"rows": source}, copy_rows(source))
    assert contents(tmp_path) == ["other", "out", "source"]


def test_a_foreign_folder_is_never_touched(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"out exists and was not made by sequela: .* choose another"):
        make_folder(out, "copy", {}, {"rows": source}, never)
    (out / "manifest.json").write_text('{"name": "some web app"}')
    with pytest.raises(InputError, match="was not made by sequela"):
        make_folder(out, "copy", {}, {"rows": source}, never)
    assert (out / "thesis.txt").read_text() == "years of work"


def test_an_empty_folder_will_do(tmp_path: Path, source: Path) -> None:
    (tmp_path / "out").mkdir()
    make_folder(tmp_path / "out", "copy", {}, {"rows": source}, copy_rows(source))
    assert contents(tmp_path / "out") == ["manifest.json", "rows.csv"]


def test_the_result_of_another_stage_is_not_replaced(tmp_path: Path, source: Path) -> None:
    make_folder(tmp_path / "out", "copy", {}, {"rows": source}, copy_rows(source))
    with pytest.raises(InputError, match="result of `sequela copy`, which `sequela train` will not replace"):
        make_folder(tmp_path / "out", "train", {}, {"rows": source}, never)


@pytest.mark.parametrize("place", ["source", "source/inside", "."])
def test_result_and_input_may_not_overlap(tmp_path: Path, source: Path, place: str) -> None:
    with pytest.raises(InputError, match="overlap"):
        make_folder(tmp_path / place, "copy", {}, {"rows": source}, never)


def test_missing_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere does not exist"):
        make_folder(tmp_path / "out", "copy", {}, {"rows": tmp_path / "nowhere"}, never)
    assert contents(tmp_path) == []


def test_a_place_that_cannot_be_written_to(tmp_path: Path, source: Path) -> None:
    with pytest.raises(InputError, match="cannot be written to"):
        make_folder(source / "rows.csv" / "out", "copy", {}, {}, never)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
@pytest.mark.parametrize("writer", ["python", "polars"])
def test_a_full_disk_is_named(tmp_path: Path, source: Path, writer: str) -> None:
    def fill(work: Path) -> dict:
        (work / "rows").symlink_to("/dev/full")
        if writer == "python":
            (work / "rows").write_text("x" * 100_000)
        else:
            pl.DataFrame({"a": range(100_000)}).write_csv(work / "rows")
        return {}

    with pytest.raises(InputError, match=r"the disk is full: .*out could not be written, \d+ MB are free in"):
        make_folder(tmp_path / "out", "copy", {}, {"rows": source}, fill)
    assert contents(tmp_path) == ["source"]


def test_other_system_errors_are_not_called_a_full_disk(tmp_path: Path, source: Path) -> None:
    def fail(work: Path) -> dict:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(OSError, match="Input/output error"):
        make_folder(tmp_path / "out", "copy", {}, {"rows": source}, fail)


def half(work: Path) -> dict:
    """Writes one of two files a run, the second time both are there."""
    if not (work / "first").exists():
        (work / "first").write_text("1")
        raise KeyboardInterrupt
    (work / "second").write_text("2")
    return {}


def test_a_resumable_stage_goes_on_where_it_was_cut_short(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        make_folder(out, "copy", {"a": 1}, {"rows": source}, half, resumable=True)
    assert not out.exists()
    make_folder(out, "copy", {"a": 1}, {"rows": source}, half, resumable=True)
    assert sorted(path.name for path in out.iterdir()) == ["first", "manifest.json", "second"]
    assert contents(tmp_path) == ["out", "source"]


@pytest.mark.parametrize("change", ["settings", "input", "not resumable"])
def test_what_was_begun_for_another_result_is_not_taken_over(
    tmp_path: Path, source: Path, change: str
) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        make_folder(out, "copy", {"a": 1}, {"rows": source}, half, resumable=True)
    if change == "input":
        (source / "rows.csv").write_text("other")
    settings = {"a": 2 if change == "settings" else 1}
    with pytest.raises(KeyboardInterrupt):  # begins anew
        make_folder(out, "copy", settings, {"rows": source}, half, resumable=change != "not resumable")


def test_bad_input_leaves_nothing_of_a_resumable_stage(tmp_path: Path, source: Path) -> None:
    def refuse(work: Path) -> dict:
        """Before it has done anything."""
        raise InputError("no")

    with pytest.raises(InputError):
        make_folder(tmp_path / "out", "copy", {}, {"rows": source}, refuse, resumable=True)
    assert contents(tmp_path) == ["source"]


def test_a_resumable_stage_begins_anew_where_asked(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            make_folder(out, "copy", {}, {"rows": source}, half, resumable=True, fresh=True)
    make_folder(out, "copy", {}, {"rows": source}, half, resumable=True)


def left_elsewhere(out: Path, source: Path) -> Path:
    """What a run on another machine that shares the folder leaves behind."""
    with pytest.raises(KeyboardInterrupt):
        make_folder(out, "copy", {}, {"rows": source}, half, resumable=True)
    (leftover,) = out.parent.glob(".out.unfinished-*")
    return leftover.rename(out.parent / ".out.unfinished-another-machine-7")


def test_what_another_machine_left_is_taken_over(tmp_path: Path, source: Path) -> None:
    left_elsewhere(tmp_path / "out", source)
    make_folder(tmp_path / "out", "copy", {}, {"rows": source}, half, resumable=True)
    assert contents(tmp_path / "out") == ["first", "manifest.json", "second"]
    assert contents(tmp_path) == ["out", "source"]


@pytest.mark.parametrize("minutes", [1, 10])
def test_of_another_machine_at_work_nothing_is_taken(tmp_path: Path, source: Path, minutes: float) -> None:
    """It touches a file again and again as long as it lives."""
    leftover = left_elsewhere(tmp_path / "out", source)
    alive = leftover.with_name(leftover.name + ".alive")
    alive.touch()
    past = time.time() - 60 * minutes
    os.utime(alive, (past, past))
    if minutes > 5:
        make_folder(tmp_path / "out", "copy", {}, {"rows": source}, half, resumable=True)
        assert contents(tmp_path) == ["out", "source"]
    else:
        with pytest.raises(InputError, match=r"another process is working on the same result in .*-7, or did so"):
            make_folder(tmp_path / "out", "copy", {}, {"rows": source}, half, resumable=True)
        assert leftover.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_full_disk_leaves_what_a_stage_can_go_on_from(tmp_path: Path, source: Path) -> None:
    def fill(work: Path) -> dict:
        (work / "first").write_text("1")
        (work / "rows").symlink_to("/dev/full")
        (work / "rows").write_text("x" * 100_000)
        return {}

    with pytest.raises(InputError, match=r"the disk is full: .* run the same command again, which continues"):
        make_folder(tmp_path / "out", "copy", {}, {"rows": source}, fill, resumable=True)
    (leftover,) = tmp_path.glob(".out.unfinished-*")
    assert (leftover / "first").exists()


def test_a_file_is_copied_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("new")
    (tmp_path / "b").write_text("old")
    copy_whole(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "new" and len(list(tmp_path.iterdir())) == 2


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path, source: Path) -> None:
    (tmp_path / "disk" / "target").mkdir(parents=True)
    (tmp_path / "out").symlink_to("disk/target")
    for depth in (1, 2):
        make_folder(tmp_path / "out", "copy", {"depth": depth}, {"rows": source}, copy_rows(source))
    assert make_folder(tmp_path / "out", "copy", {"depth": 2}, {"rows": source}, never)["skipped"]
    assert (tmp_path / "out").is_symlink()
    assert contents(tmp_path / "disk" / "target") == ["manifest.json", "rows.csv"]
    assert contents(tmp_path / "disk") == ["target"] and contents(tmp_path) == ["disk", "out", "source"]


@pytest.mark.parametrize("name", ["run[1]", "r*", "o" * 255])
def test_what_a_dead_run_left_is_removed_whatever_the_name(tmp_path: Path, source: Path, name: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        make_folder(tmp_path / name, "copy", {}, {"rows": source}, half, resumable=True)
    (left,) = (path for path in tmp_path.iterdir() if path.name.startswith("."))
    left.rename(left.with_name(f"{left.name.rpartition('-')[0]}-999999999"))
    make_folder(tmp_path / name, "copy", {}, {"rows": source}, half, resumable=True)
    assert contents(tmp_path / name) == ["first", "manifest.json", "second"]
    assert contents(tmp_path) == sorted([name, "source"])


def test_a_work_folder_that_was_deleted_is_no_bug(tmp_path: Path, source: Path) -> None:
    def lose(work: Path) -> dict:
        shutil.rmtree(work)
        (work / "rows").write_text("x")
        return {}

    for resumable in (False, True):
        with pytest.raises(InputError, match="was deleted meanwhile: run this again"):
            make_folder(tmp_path / "out", "copy", {}, {"rows": source}, lose, resumable=resumable)
    assert [name for name in contents(tmp_path) if not name.startswith(".")] == ["source"]


def test_a_disk_that_is_full_from_the_start_keeps_nothing(tmp_path: Path, source: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(InputError, match=r"cannot be written to \(File too large\)"):
            make_folder(tmp_path / "out", "copy", {}, {"rows": source}, never, resumable=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert contents(tmp_path) == ["source"]
