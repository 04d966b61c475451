"""Raw files to a MEDS dataset, by a mapping, with an account of every row, in memory that does not grow with them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import reduce
from pathlib import Path

import numpy as np
import polars as pl

from sequela.errors import InputError
from sequela.progress import Progress, silent
from sequela.record.dataset import split_of, write_codes, write_facts, write_splits
from sequela.record.ingest.extract import Gathered, gather
from sequela.record.ingest.finalize import Part, settle
from sequela.record.ingest.mapping_file import MEDS, load_mapping
from sequela.record.ingest.meds import gather_meds
from sequela.record.ingest.report import Account, report_of
from sequela.record.ingest.spill import EVENTS_A_PART, database_in, scratch_in
from sequela.record.ingest.tables.database import Database, raw_place
from sequela.record.ingest.tables.sql import literal
from sequela.record.schema import FRACTIONS
from sequela.workers import Workers, run

MEMORY = "2GB"


def ingest(
    source: str | Path,
    raw: str | Path | Database,
    out: Path,
    *,
    fractions: tuple[float, float, float] = FRACTIONS,
    memory: str = MEMORY,
    workers: Workers | None = None,
    events_a_shard: int = EVENTS_A_PART,
    progress: Progress = silent,
) -> dict:
    """Make a MEDS dataset in the folder `out` from the raw tables at `raw`.

    Args:
        source: the name of a shipped mapping (see `sequela.record.ingest.mapping_file`), the path of a mapping file, or
            "meds" for a MEDS dataset that others made.
        raw: the folder of raw files, a DuckDB file (*.duckdb, *.db), or the URI of a PostgreSQL server.
        fractions: shares of the patients in the splits train, tuning and held_out.
        memory: how much of the tables DuckDB keeps in memory; what is more lies on disk meanwhile.
        workers: where the shards are worked on; they change nothing in the result.
        events_a_shard: about how many events a file holds; it changes nothing else.

    Returns:
        The report, also written to `out`/ingest.json. For every rule of the mapping
        `rows_in == events_out + sum(dropped.values())`.

    Raises:
        InputError: where the mapping or the raw files are not as they should be, or `out` holds a dataset.
    """
    mapping = None if source == MEDS else load_mapping(source)
    split_of(np.zeros(0, np.int64), fractions)  # complains of shares that are none before the work
    place, out, reading = raw_place(raw), Path(out), _share(progress, 0, 70)
    if (out / "data").exists():
        raise InputError(f"{out} holds a dataset already: choose another folder, or move that one away.")
    with scratch_in(out) as scratch:
        if mapping is None:
            gathered = gather_meds(Path(str(place)), scratch, memory, events_a_shard, reading)
        else:
            gathered = gather(mapping, place, scratch, memory, events_a_shard, reading)
        if not gathered.events:
            by = mapping.path if mapping else "the rules of MEDS"
            raise InputError(f"{place}: no row of it makes an event by {by}; compare the two.")
        parts = _parts(gathered, out, scratch, fractions)
        accounts = run(settle, parts, workers, progress=_share(progress, 70, 95, "sort"))
        progress(95, 100, stage="write")
        account = reduce(Account.plus, accounts)
        codes, units = _counted(scratch / "counts")
        write_splits(_in_order(scratch, memory), out)
        write_codes(codes, out, gathered.meanings, gathered.parents)
    write_facts(out, gathered.name, gathered.metadata)
    report = report_of(gathered, account, codes, units)
    (out / "ingest.json").write_text(json.dumps(report, indent=2) + "\n")
    progress(100, 100, stage="done")
    return report


def _share(progress: Progress, start: float, stop: float, stage: str | None = None) -> Progress:
    """Shows the progress of one piece of the work as [start, stop] of 100."""

    def show(done: float, total: float, **facts: object) -> None:
        progress(start + (stop - start) * done / total, 100, **({"stage": stage} if stage else {}) | facts)

    return show


def _parts(gathered: Gathered, out: Path, scratch: Path, fractions: tuple[float, float, float]) -> list[Part]:
    spill, parts = gathered.spill, []
    for number in range(spill.parts):
        files = spill.part("rule=*", number)
        splits = spill.part("splits", number) if gathered.splits else ()
        if files:
            counts, payload, leaks = scratch / "counts", gathered.payload, gathered.leaks
            parts.append(Part(number, files, splits, out, counts, fractions, payload, leaks))
    return parts


def _counted(counts: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(code, events, patients, unit) with the most frequent unit, and (code, unit, events), over all parts."""
    codes = pl.scan_parquet(counts / "codes/*.parquet").group_by("code").sum().collect()
    units = pl.scan_parquet(counts / "units/*.parquet").group_by("code", "unit").sum().collect()
    most = units.sort("events", "unit", descending=[True, False]).unique(
        "code", keep="first", maintain_order=True
    )
    codes = codes.join(most.select("code", "unit"), on="code", how="left")
    return codes.sort("code"), units.sort("code", "unit")


def _in_order(scratch: Path, memory: str) -> Iterator[pl.DataFrame]:
    """Rows (subject_id, split) of all parts, sorted by patient, some at a time."""
    with database_in(scratch, memory) as con:
        rows = f"read_parquet({literal(str(scratch / 'counts/splits/*.parquet'))})"
        ordered = con.sql(f"SELECT subject_id, split FROM {rows} ORDER BY subject_id")
        for batch in ordered.to_arrow_reader(1 << 20):
            yield pl.DataFrame(pl.from_arrow(batch))
