"""Unsorted events on disk between extraction and the final shards: Parquet, partitioned by a hash of the patient.

Every source writes the same columns: `subject_id`, `time`, `code`, `numeric_value`, `text_value`, `media`; `unit`, for
people; `rule`, the number of the rule that made the row; `position`, which keeps the order of a source that has one,
else 0; `named`, whether the row names a stay, which has decided its time; `reason`, why the row is dropped, null if it
is an event; `row`, its position in its table.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb

from sequela.errors import InputError
from sequela.record.ingest.tables.sql import literal, paths_for_duckdb, plain_path
from sequela.record.schema import PAYLOAD

EVENTS_PER_PART = 4_000_000
EVENT = ("subject_id", "time", "code", "numeric_value", *PAYLOAD)


@dataclass(frozen=True)
class Spill:
    """A folder of rows in `parts` partitions; all rows of a patient are in the same one."""

    folder: Path
    parts: int

    def write(self, select: str, name: str) -> str:
        """SQL that writes the rows of the query `select`, which has a column `subject_id`, under `name`."""
        if self.parts == 1:
            folder = self.folder / name / "part=0"
            folder.mkdir(parents=True)
            return f"COPY ({select}) TO {literal(str(plain_path(folder) / 'data.parquet'))} (FORMAT parquet)"
        # DuckDB's hash may change between versions. That is fine: it only decides which file a patient is in.
        part = f"coalesce(hash(subject_id) % {self.parts}, 0)::INTEGER"
        target = f"TO {literal(str(plain_path(self.folder) / name))} (FORMAT parquet, PARTITION_BY (part))"
        return f"COPY (SELECT *, {part} AS part FROM ({select})) {target}"

    def all(self, name: str) -> str | None:
        """SQL for all rows written under `name`; None if there are none."""
        written = (self.folder / name).glob("part=*/*.parquet")
        files = sorted(written)
        return f"read_parquet({paths_for_duckdb(files)}, hive_partitioning = false)" if files else None

    def part(self, name: str, number: int) -> tuple[Path, ...]:
        """The files of one partition; `name` may be a glob pattern."""
        return tuple(sorted(self.folder.glob(f"{name}/part={number}/*.parquet")))


def parts_for(rows: int, events_per_part: int = EVENTS_PER_PART) -> int:
    """The number of partitions that keeps each one small enough for memory."""
    return max(1, -(-rows // events_per_part))


@contextlib.contextmanager
def scratch_in(out: Path) -> Iterator[Path]:
    """A temporary folder inside `out`; on failure, `out` is removed too if it is new and empty."""
    fresh = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=out, prefix=".scratch-", ignore_cleanup_errors=True) as made:
            yield Path(made).resolve()
    except BaseException:
        if fresh:
            with contextlib.suppress(OSError):
                out.rmdir()
        raise


@contextlib.contextmanager
def database_in(scratch: Path, memory: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB database on disk that uses at most `memory` ("2GB") of RAM.

    Raises:
        InputError: if `memory` is no size, or too small for what is done in the block.
    """
    for sign, name in (("\\", "a backslash"), ("?", "a question mark")):
        if sign in str(scratch):
            raise InputError(f"the result's path has {name}, which DuckDB cannot write to: choose another folder.")
    config = {
        "memory_limit": memory,
        "temp_directory": str(scratch / "overflow"),
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }
    try:
        con = duckdb.connect(str(scratch / "tables.duckdb"), config=config)
    except (duckdb.ParserException, duckdb.InvalidInputException) as error:
        raise InputError(f"`memory` is '{memory}': give a size with a unit, such as 2GB or 500MB.") from error
    try:
        con.execute("SET enable_progress_bar = false")  # we show our own
        yield con
    except duckdb.OutOfMemoryException as error:
        raise InputError(
            f"`memory` of {memory} is too little for these tables: give more, such as 2GB."
        ) from error
    finally:
        con.close()
