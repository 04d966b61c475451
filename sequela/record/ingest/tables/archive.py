"""Reads many small CSV files inside tar archives as one table, without unpacking them."""

from __future__ import annotations

import fnmatch
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from sequela.errors import InputError
from sequela.files import counts, system_error
from sequela.record.ingest.mapping import FileTable
from sequela.record.ingest.tables.csv_stream import DAMAGE, CsvBatches

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")


def is_archive(path: Path) -> bool:
    """Whether `read_archives` reads the file, by its name."""
    return path.name.lower().endswith(SUFFIXES)


def read_archives(paths: list[Path], table: FileTable, raw: Path) -> CsvBatches:
    """All rows of the members that belong to `table`, as text, and `_file`: "ARCHIVE/MEMBER", relative to `raw`.

    Rows stream, a few megabytes at a time. Nothing is unpacked to disk, so a member's name can do no harm.

    Raises:
        InputError: while reading, if an archive is damaged or a member lacks a column.
    """
    members = (member for path in paths for member in _members(path, table.members, raw))
    return CsvBatches(
        members, table, f"{paths[0]} has no member that matches '{table.members}': check the archive."
    )


def _members(path: Path, pattern: str, raw: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """The place and content of the regular files in a tar archive; links, devices and leftovers are skipped."""
    try:
        with tarfile.open(path) as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # otherwise the names of all members pile up
                own = all(part == ".." or counts(part) for part in PurePosixPath(member.name).parts)
                if member.isfile() and own and fnmatch.fnmatch(member.name, pattern):
                    yield f"{path.relative_to(raw)}/{member.name}", archive.extractfile(member)
            _check_end(archive)
    except DAMAGE as error:
        raise system_error(error, path) or InputError(
            f"{path} is damaged or incomplete ({error}): copy or download it again."
        ) from error


def _check_end(archive: tarfile.TarFile) -> None:
    """Check that the archive ends with its final zero blocks, and its compression with a valid checksum."""
    archive.fileobj.seek(archive.offset)
    end = archive.fileobj.read(512)
    if len(end) < 512 or any(end):
        raise EOFError("its end is missing")
    while archive.fileobj.read(1 << 20):
        pass
