"""A packed file and its plain twin are one file if they are the same, and an error if not."""

import gzip

import pytest

from sequela.errors import InputError
from sequela.record.ingest.tables.packed import each_once, has_mixed_line_ends, packings


def test_a_pattern_is_for_both_packings():
    assert packings("a/x.CSV.GZ") == ("a/x.CSV", "a/x.CSV.gz") and packings("t*") == ("t*", "t*.gz")
    assert packings("x.parquet") == ("x.parquet",)


def test_a_copy_is_left_out_and_another_file_is_not(tmp_path):
    plain, packed, other = (tmp_path / name for name in ("x.csv", "x.csv.gz", "y.csv.gz"))
    plain.write_bytes(b"a\n" * 2_000_000)
    packed.write_bytes(gzip.compress(plain.read_bytes(), 1))
    other.write_bytes(packed.read_bytes())
    assert each_once([packed, other, plain]) == [packed, other], "the first one counts"
    assert each_once([plain, packed]) == [plain]
    plain.write_bytes(b"a\n" * 1_999_999)
    with pytest.raises(InputError, match="differ"):
        each_once([plain, packed])
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(InputError, match="cannot be read"):
        each_once([plain, packed])


@pytest.mark.parametrize(
    ("text", "mixed"),
    [
        (b"a\nb\n", False),
        (b"a\r\nb\r\n", False),
        (b"a\rb\r", False),
        (b"a", False),
        (b"a\nb\r\n", True),
        (b"a\r\nb\r", True),
        (b"a\nb\rc", True),
        (b"x" * ((1 << 20) - 1) + b"\r\n" + b"y\r\n", False),
        (b"x" * ((1 << 20) - 1) + b"\r\n" + b"y\n", True),
    ],
)
def test_line_ends(tmp_path, text, mixed):
    (tmp_path / "x").write_bytes(text)
    (tmp_path / "x.gz").write_bytes(gzip.compress(text))
    assert has_mixed_line_ends(tmp_path / "x") == has_mixed_line_ends(tmp_path / "x.gz") == mixed
