"""Reads numbered lines of text files, plain or gzipped, a few megabytes at a time; no line is ever refused.

A batch has the columns `line` (int64, from 1) and `text` (with its line feed; null if the line is not UTF-8).
Memory holds one batch, or one line if that is longer.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from sequela.errors import InputError
from sequela.files import system_error

CHUNK = 16 << 20  # bytes
MARK = b"\xef\xbb\xbf"  # byte order mark


def read_lines(path: Path, chunk: int = CHUNK) -> Iterator[pa.RecordBatch]:
    """The lines of a file (gzipped, if its name ends in .gz).

    Raises:
        InputError: if the file cannot be read, or its gzip stream is damaged or truncated.
    """
    number, pieces = 1, []
    for read in _chunks(path, chunk):
        end = read.rfind(b"\n") + 1
        if not end:
            pieces.append(read)
            continue
        block = b"".join([*pieces, read[:end]])
        pieces = [read[end:]]
        ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + 1
        yield _batch(block, ends, number)
        number += len(ends)
    rest = b"".join(pieces)
    if rest:
        yield _batch(rest, np.array([len(rest)]), number)


def read_whole(path: Path) -> Iterator[pa.RecordBatch]:
    """A whole file (see `read_lines`) as line 1."""
    text = b"".join(_chunks(path, CHUNK))
    if text:
        yield _batch(text, np.array([len(text)]), 1)


def _chunks(path: Path, size: int) -> Iterator[bytes]:
    try:
        if path.stat().st_size == 0:
            return
        with pa.input_stream(
            str(path), compression="gzip" if path.suffix.lower() == ".gz" else None
        ) as stream:
            first = stream.read(size)
            yield first.removeprefix(MARK)
            while chunk := stream.read(size):
                yield chunk
    except (OSError, pa.ArrowException) as error:
        raise system_error(error, path) or InputError(
            f"{path} is damaged or incomplete: copy or download it again."
        ) from error


def _batch(block: bytes, ends: np.ndarray, number: int) -> pa.RecordBatch:
    """The lines of `block`; line i ends before byte `ends[i]`."""
    offsets = np.concatenate([[0], ends]).astype(np.int64)
    numbers = np.arange(number, number + len(ends), dtype=np.int64)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(block)]
    text = pa.Array.from_buffers(pa.large_string(), len(ends), buffers)
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        lines = (block[start:end] for start, end in zip(offsets, ends, strict=False))
        text = pa.array([_decoded(line) for line in lines], pa.large_string())
    # Not `pa.array(numbers)`, which would import pandas and take seconds.
    line = pa.Array.from_buffers(pa.int64(), len(ends), [None, pa.py_buffer(numbers)])
    return pa.RecordBatch.from_arrays([line, text], ["line", "text"])


def _decoded(line: bytes) -> str | None:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return None
