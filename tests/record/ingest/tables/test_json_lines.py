"""Lines of text files: their numbers, whatever the bytes, whatever the size of the pieces that are read."""

import gzip
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sequela.errors import InputError
from sequela.record.ingest.tables.json_lines import read_lines, read_whole


def lines_of(path, chunk=1 << 20):
    rows = [row for batch in read_lines(path, chunk) for row in batch.to_pylist()]
    return [(row["line"], row["text"]) for row in rows]


def decoded(line: bytes) -> str | None:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return None


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=60) | st.text("ab\né", max_size=40).map(str.encode), st.integers(1, 9), st.booleans()
)
def test_lines_are_those_of_the_file(tmp_path, content, chunk, packed):
    path = tmp_path / ("t.gz" if packed else "t")
    path.write_bytes(gzip.compress(content) if packed else content)
    told = [
        (i, decoded(line)) for i, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1)
    ]
    read = [
        (i, text if text is None else text.removesuffix("\n")) for i, text in lines_of(path, max(chunk, 3))
    ]
    assert read == (told[:-1] if told[-1][1] == "" else told)
    whole = [batch.to_pylist() for batch in read_whole(path)]
    rest = content.removeprefix(b"\xef\xbb\xbf")
    assert whole == ([[{"line": 1, "text": decoded(rest)}]] if rest else [])


def test_a_gzip_that_is_cut_off_or_damaged_is_refused(tmp_path):
    path = tmp_path / "t.ndjson.gz"
    packed = gzip.compress(b"".join(b'{"a": %d}\n' % (i * 7919 % 997) for i in range(3000)))
    path.write_bytes(packed + packed)
    assert len(lines_of(path)) == 6000
    broken = bytearray(packed)
    broken[len(packed) // 2] ^= 1
    for wrong in (
        packed[:1],
        packed[:9],
        packed[: len(packed) // 2],
        packed[:-8],
        packed[:-1],
        bytes(broken),
        b"{}\n",
    ):
        path.write_bytes(wrong)
        with pytest.raises(InputError, match=r"t\.ndjson\.gz is damaged or incomplete"):
            lines_of(path)


def test_no_file(tmp_path):
    with pytest.raises(InputError, match="damaged or incomplete"):
        lines_of(tmp_path / "gone")


def test_one_endless_line_takes_linear_time(tmp_path):
    path = tmp_path / "t"
    path.write_bytes(b"x" * 30_000_000)
    start = time.perf_counter()
    ((number, text),) = lines_of(path, 1 << 12)
    assert (number, len(text)) == (1, 30_000_000)
    assert time.perf_counter() - start < 10
