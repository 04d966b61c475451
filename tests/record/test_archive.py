"""Tar archives of many small files: read whole, never unpacked."""

import io
import tarfile
from pathlib import Path

import pytest

from sequela.record.archive import read_archives
from sequela.record.errors import InputError
from sequela.record.mapping import FileTable

TABLE = FileTable(("*.tar.xz",), {"time": "text", "value": "text"}, members="*.txt")
HEADER = "time,value\n"


def pack(path: Path, members: dict[str, str]) -> Path:
    with tarfile.open(path, "w:" + path.suffix[1:]) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content.encode())
            archive.addfile(info, io.BytesIO(content.encode()))
    return path


def read(*paths: Path) -> list[tuple]:
    return read_archives(list(paths), TABLE, paths[0].parent).select("_file", "time", "value").rows()


def test_an_optional_column_that_is_absent_is_empty(tmp_path):
    path = pack(tmp_path / "a.tar.xz", {"1.txt": HEADER + "00:00,5\n"})
    columns = {"value": "text", "unit": "text"}
    table = FileTable(("*.tar.xz",), columns, members="*.txt", optional_columns=frozenset({"unit"}))
    assert read_archives([path], table, tmp_path).select("value", "unit").rows() == [("5", None)]


@pytest.mark.parametrize("suffix", ["xz", "gz", "bz2"])
def test_rows_know_their_file(tmp_path, suffix):
    a = pack(
        tmp_path / f"a.tar.{suffix}", {"set/1.txt": HEADER + "00:00,5\n00:07,6", "set/readme.md": "no table"}
    )
    b = pack(tmp_path / f"b.tar.{suffix}", {"2.txt": HEADER, "3.txt": HEADER + "01:00,\n"})
    assert read(a, b) == [
        (f"a.tar.{suffix}/set/1.txt", "00:00", "5"),
        (f"a.tar.{suffix}/set/1.txt", "00:07", "6"),
        (f"b.tar.{suffix}/3.txt", "01:00", None),
    ]


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
        with pytest.raises(InputError, match=f"a.tar.{suffix} is damaged or incomplete"):
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
