"""Tar archives of many small files: read whole, never unpacked."""

import gzip
import io
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from sequela.errors import InputError
from sequela.record.ingest.mapping import FileTable
from sequela.record.ingest.tables import csv_stream
from sequela.record.ingest.tables.archive import read_archives

TABLE = FileTable(("*.tar.xz",), {"time": "text", "value": "text"}, members="*.txt")
HEADER = "time,value\n"


def pack(path: Path, members: dict[str, str]) -> Path:
    with tarfile.open(path, "w:" + path.suffix[1:]) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content.encode())
            archive.addfile(info, io.BytesIO(content.encode()))
    return path


def read(*paths: Path, table: FileTable = TABLE) -> list[tuple]:
    rows = read_archives(list(paths), table, paths[0].parent).reader.read_all().to_pylist()
    return [(row["_file"], row["time"], row["value"]) for row in rows]


def test_an_optional_column_that_is_absent_is_empty(tmp_path):
    path = pack(tmp_path / "a.tar.xz", {"1.txt": HEADER + "00:00,5\n"})
    columns = {"value": "text", "unit": "text"}
    table = FileTable(("*.tar.xz",), columns, members="*.txt", optional_columns=frozenset({"unit"}))
    rows = read_archives([path], table, tmp_path).reader.read_all().to_pylist()
    assert rows == [{"value": "5", "unit": None, "_file": "a.tar.xz/1.txt"}]


@pytest.mark.parametrize("suffix", ["xz", "gz", "bz2"])
def test_rows_know_their_file(tmp_path, suffix):
    a = pack(
        tmp_path / f"a.tar.{suffix}", {"set/1.txt": HEADER + "00:00,5\n00:07,6", "set/readme.md": "no table"}
    )
    b = pack(tmp_path / f"b.tar.{suffix}", {"2.txt": HEADER, "3.txt": HEADER + "01:00,\n"})
    assert read(a, b) == [
        (f"a.tar.{suffix}/set/1.txt", "00:00", "5"),
        (f"a.tar.{suffix}/set/1.txt", "00:07", "6"),
        (f"b.tar.{suffix}/3.txt", "01:00", ""),
    ]


def test_leftovers_in_an_archive_do_not_count(tmp_path):
    members = {"./set/._1.txt": "\0", "./set/1.txt": HEADER + "1,x\n", "__MACOSX/set/1.txt": "\0"}
    assert read(pack(tmp_path / "a.tar.gz", members)) == [("a.tar.gz/./set/1.txt", "1", "x")]


def test_rows_of_several_lines_and_blank_lines_stay_with_their_file(tmp_path):
    path = pack(tmp_path / "a.tar.xz", {"1.txt": HEADER + '1,"two\nlines"\n2,x\n', "2.txt": HEADER + "3,y\n"})
    assert [(file[-5:], time, value) for file, time, value in read(path)] == [
        ("1.txt", "1", "two\nlines"),
        ("1.txt", "2", "x"),
        ("2.txt", "3", "y"),
    ]


def test_hostile_members_touch_nothing(tmp_path):
    inside = tmp_path / "in"
    inside.mkdir()
    path = pack(
        inside / "a.tar.xz", {"../../evil.txt": HEADER + "1,2\n", "/tmp/evil-sequela.txt": HEADER + "3,4\n"}
    )
    with tarfile.open(inside / "b.tar.gz", "w:gz") as archive:
        link = tarfile.TarInfo("link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert [row[1:] for row in read(path, inside / "b.tar.gz")] == [("1", "2"), ("3", "4")]
    assert not list(tmp_path.glob("**/evil*")) and not Path("/tmp/evil-sequela.txt").exists()


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_truncated_archives(tmp_path, share):
    members = {f"{i}.txt": HEADER + "".join(f"{i},{i * j % 977}\n" for j in range(50)) for i in range(200)}
    for suffix in ("xz", "gz"):
        path = pack(tmp_path / f"a.tar.{suffix}", members)
        assert len(read(path)) == 10_000
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(InputError, match=rf"a\.tar\.{suffix}(/\d+\.txt)? is damaged or incomplete"):
            read(path)


@pytest.mark.parametrize(
    "members, words",
    [
        ({"1.md": "x"}, "no member that matches"),
        ({"1.txt": "time,val\n1,2\n"}, "a.tar.xz/1.txt has no column 'value'"),
        ({"1.txt": HEADER + "1,2\n", "2.txt": "value,time\n"}, "2.txt has other columns than"),
        ({"1.txt": ""}, "1.txt is empty"),
        ({"1.txt": HEADER + "1,2,3\n"}, "ragged"),
    ],
)
def test_wrong_members(tmp_path, members, words):
    path = pack(tmp_path / "a.tar.xz", members)
    with pytest.raises(InputError) as caught:
        read(path)
    assert words in str(caught.value)


def test_an_archive_without_its_end(tmp_path):
    """Cut between two members, a tar archive looks whole, and so does one whose checksum was cut off."""
    path = pack(tmp_path / "a.tar.gz", {f"{i}.txt": HEADER + "1,2\n" for i in range(3)})
    whole = gzip.decompress(path.read_bytes())
    assert len(read(path)) == 3
    broken = path.read_bytes()[:-8] + b"\0" * 8
    for content in (gzip.compress(whole[:2048]), path.read_bytes()[:-8], broken):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.tar\.gz is damaged or incomplete"):
            read(path)


def test_memory_does_not_grow_with_the_members(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_stream, "BLOCK", 1 << 16)
    table = FileTable(("*.tar",), {"time": "text", "value": "text"})
    peaks = []
    for members in (200, 2000):
        with tarfile.open(tmp_path / "a.tar", "w:") as archive:
            body = (HEADER + "00:00,5\n" * 500).encode()
            for number in range(members):
                info = tarfile.TarInfo(f"{number}.txt")
                info.size = len(body)
                archive.addfile(info, io.BytesIO(body))
        tracemalloc.start()
        rows = sum(batch.num_rows for batch in read_archives([tmp_path / "a.tar"], table, tmp_path).reader)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert rows == members * 500
    assert peaks[1] < 1.3 * peaks[0] + 100_000, peaks
