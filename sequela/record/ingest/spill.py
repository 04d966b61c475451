"""Events on their way from the tables to the timelines: rows in Parquet, in parts that hold whole patients.

Every source writes the same columns: `subject_id`, `time`, `code`, `numeric_value`, `text_value`, `media`; `unit`, for
people; `rule`, which rule of the mapping made the row; `position`, the row's place among equals where the source has an
order of its own, else 0; `reason`, why the row is no event, null where it is one; `row`, its place in its table.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb

from sequela.errors import InputError
from sequela.record.ingest.tables.sql import literal
from sequela.record.schema import PAYLOAD

EVENTS_A_PART = 4_000_000
EVENT = ("subject_id", "time", "code", "numeric_value", *PAYLOAD)


@dataclass(frozen=True)
class Spill:
    """A folder of rows in `parts` parts; a patient's rows lie in the one that a hash of the patient says."""

    folder: Path
    parts: int

    def write(self, select: str, name: str) -> str:
        """SQL that writes the rows of the query `select`, which has a column `subject_id`, under `name`."""
        if self.parts == 1:
            own = self.folder / name / "part=0"
            own.mkdir(parents=True)
            return f"COPY ({select}) TO {literal(str(own / 'data.parquet'))} (FORMAT parquet)"
        # DuckDB's hash may change from version to version: it decides in which file a patient lies, and nothing else.
        part = f"coalesce(hash(subject_id) % {self.parts}, 0)::INTEGER"
        target = f"TO {literal(str(self.folder / name))} (FORMAT parquet, PARTITION_BY (part))"
        return f"COPY (SELECT *, {part} AS part FROM ({select})) {target}"

    def all(self, name: str) -> str | None:
        """SQL for all rows written under `name`; None where there are none."""
        written = (self.folder / name).glob("part=*/*.parquet")
        files = ", ".join(literal(str(path)) for path in sorted(written))
        return f"read_parquet([{files}], hive_partitioning = false)" if files else None

    def part(self, name: str, number: int) -> tuple[Path, ...]:
        """The files of one part of what was written under the glob pattern `name`."""
        return tuple(sorted(self.folder.glob(f"{name}/part={number}/*.parquet")))


def parts_for(rows: int, events_a_part: int = EVENTS_A_PART) -> int:
    """How many parts keep each of them small enough to be held in memory."""
    return max(1, -(-rows // events_a_part))


@contextlib.contextmanager
def scratch_in(out: Path) -> Iterator[Path]:
    """A folder for what need not last, inside the folder `out`, which goes too where the work fails."""
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
    """A DuckDB database on disk that keeps at most `memory` ("2GB") in memory."""
    config = {
        "memory_limit": memory,
        "temp_directory": str(scratch / "overflow"),
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }
    try:
        con = duckdb.connect(str(scratch / "tables.duckdb"), config=config)
    except (duckdb.ParserException, duckdb.InvalidInputException) as error:
        raise InputError(f"memory is '{memory}': give a size with its unit, such as 2GB or 500MB.") from error
    try:
        con.execute(
            "SET enable_progress_bar = false"
        )  # DuckDB draws one on queries of seconds; we have our own
        yield con
    finally:
        con.close()
