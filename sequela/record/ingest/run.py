"""Ingest: raw tables to a MEDS dataset, as a mapping says, in bounded memory and with every row accounted for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path

import numpy as np
import polars as pl

from sequela.errors import InputError
from sequela.files import files_below
from sequela.progress import Progress, silent
from sequela.record.dataset import split_of, write_codes, write_facts, write_splits
from sequela.record.ingest.extract import Extraction, extract_events
from sequela.record.ingest.finalize import Partition, finalize
from sequela.record.ingest.mapping_file import MEDS, load_mapping
from sequela.record.ingest.meds import extract_meds
from sequela.record.ingest.report import IngestCounts, report_of, write_report
from sequela.record.ingest.spill import EVENTS_PER_PART, database_in, scratch_in
from sequela.record.ingest.tables.database import Database, raw_origin
from sequela.record.ingest.tables.sql import paths_for_duckdb
from sequela.record.schema import DATA, FRACTIONS
from sequela.record.validate import AS_NAMED
from sequela.workers import Workers, run


@dataclass(frozen=True)
class IngestSettings:
    """How to ingest."""

    fractions: tuple[float, float, float] = FRACTIONS
    """Shares of the patients in the splits train, tuning and held_out."""
    memory: str = "2GB"
    """Memory limit for tables; what exceeds it spills to disk."""
    events_per_shard: int = EVENTS_PER_PART
    """Approximate number of events per file; changes nothing else."""

    def __post_init__(self) -> None:
        split_of(np.zeros(0, np.int64), self.fractions)  # checks the fractions before any work is done


def ingest(
    source: str | Path,
    raw: str | Path | Database,
    out: Path,
    settings: IngestSettings | None = None,
    *,
    workers: Workers | None = None,
    progress: Progress = silent,
) -> dict:
    """Make a MEDS dataset in the folder `out` from the raw tables at `raw`.

    Args:
        source: the name of a shipped mapping (see `sequela.record.ingest.mapping_file`), the path of a mapping file, or
            "meds" for a MEDS dataset made by someone else.
        raw: the folder of raw files, a DuckDB file (*.duckdb, *.db), or the URI of a PostgreSQL server.
        workers: where the shards are processed; does not change the result.

    Returns:
        The report, also written to `out`/ingest.json. For every rule of the mapping
        `rows_in == events_out + sum(dropped.values())`.

    Raises:
        InputError: if the mapping or the raw files are faulty, or `out` already holds a dataset.
    """
    settings = settings or IngestSettings()
    memory, size = settings.memory, settings.events_per_shard
    mapping = None if source == MEDS else load_mapping(source)
    origin, out, reading = raw_origin(raw), Path(out), _share(progress, 0, 70)
    if (out / DATA).exists():
        raise InputError(f"{out} holds a dataset already: choose another folder, or move that one away.")
    with scratch_in(out) as scratch:
        if mapping is None:
            extraction = extract_meds(Path(str(origin)), scratch, memory, size, reading)
        else:
            extraction = extract_events(mapping, origin, scratch, memory, size, reading)
        if not extraction.events:
            by = mapping.path if mapping else "the rules of MEDS"
            raise InputError(f"{origin}: none of its rows makes an event under {by}; compare the two.")
        parts = _parts(extraction, out, scratch, settings.fractions)
        counts = run(finalize, parts, workers, progress=_share(progress, 70, 95, "sort"))
        progress(95, 100, stage="write")
        totals = reduce(IngestCounts.plus, counts)
        codes, units, years = _counted(scratch / "counts")
        write_splits(_in_order(scratch, memory), out)
        write_codes(codes, out, extraction.meanings, extraction.parents)
    write_facts(out, extraction.name, extraction.metadata)
    report = report_of(extraction, totals, codes, units, years)
    write_report(report, out)
    progress(100, 100, stage="done")
    return report


def origin_identity(raw: str | Path) -> tuple[dict[str, str], dict[str, Path]]:
    """What tells the raw tables of one ingest from those of another: settings, and paths whose content counts.

    A server cannot tell whether its tables have changed, so it is named with the time at which it is read.

    Raises:
        InputError: see `ingest`.
    """
    origin = raw_origin(raw)
    if isinstance(origin, Database) and origin.is_server:
        return {"raw": str(origin), "read_at": datetime.now(UTC).isoformat()}, {}
    return {}, {"raw": Path(str(origin))}


def _share(progress: Progress, start: float, stop: float, stage: str | None = None) -> Progress:
    """Show the progress of one step as the range [start, stop] of 100."""

    def show(done: float, total: float, **facts: object) -> None:
        progress(start + (stop - start) * done / total, 100, **({"stage": stage} if stage else {}) | facts)

    return show


def _parts(
    extraction: Extraction, out: Path, scratch: Path, fractions: tuple[float, float, float]
) -> list[Partition]:
    spill, parts = extraction.spill, []
    for number in range(spill.parts):
        files = spill.part("rule=*", number)
        splits = spill.part("splits", number) if extraction.splits else ()
        if files:
            counts, payload, leaks = scratch / "counts", extraction.payload, extraction.leaks
            parts.append(Partition(number, files, splits, out, counts, fractions, payload, leaks))
    return parts


def _counted(counts: Path) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Rows (code, events, patients, most frequent unit), (code, unit, events), (code, year, events), of all parts."""
    names = ("codes", "units", "years")
    codes, units, years = (pl.scan_parquet(files_below(counts / name), **AS_NAMED) for name in names)
    codes = codes.group_by("code").sum().collect()
    units = units.group_by("code", "unit").sum().collect()
    most = units.sort("events", "unit", descending=[True, False]).unique(
        "code", keep="first", maintain_order=True
    )
    codes = codes.join(most.select("code", "unit"), on="code", how="left")
    years = years.group_by("code", "year").sum().collect()
    return codes.sort("code"), units.sort("code", "unit"), years.sort("code", "year")


def _in_order(scratch: Path, memory: str) -> Iterator[pl.DataFrame]:
    """Rows (subject_id, split) of all partitions, sorted by patient, in batches."""
    with database_in(scratch, memory) as con:
        rows = f"read_parquet({paths_for_duckdb(files_below(scratch / 'counts/splits'))})"
        ordered = con.sql(f"SELECT subject_id, split FROM {rows} ORDER BY subject_id")
        for batch in ordered.to_arrow_reader(1 << 20):
            yield pl.DataFrame(pl.from_arrow(batch))
