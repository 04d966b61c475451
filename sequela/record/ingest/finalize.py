"""Turns each partition into a shard: move leaks, sort, drop impossible events, assign splits, count, write."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from sequela.record.dataset import split_of, write_shard
from sequela.record.events import Events
from sequela.record.follow_up import follow_up
from sequela.record.ingest.day_end import cap_days
from sequela.record.ingest.leakage import LeakageRules, count_at_opening, move_leaks
from sequela.record.ingest.plausibility import EARLY, count_implausible
from sequela.record.ingest.report import IngestCounts
from sequela.record.ingest.spill import EVENT
from sequela.record.schema import BIRTH, FOLLOW_UP_END, PAYLOAD, means
from sequela.record.spelling import among, meaning
from sequela.record.timeline import STATIC
from sequela.record.validate import AS_NAMED

ORDER = ("subject_id", "time", "rule", "position", "_code", "numeric_value", *PAYLOAD, "unit")


BEFORE_BIRTH = "before birth"


@dataclass(frozen=True)
class Partition:
    """One partition of the spill, and where its shard goes.

    Attributes:
        number: of the shard.
        files: its events, of whole patients.
        splits: files with rows (subject_id, split) given by the source; other patients are assigned by a hash.
        out: the dataset's folder.
        counts: the folder for counts by code and by patient.
        payload: which of the columns `PAYLOAD` the dataset has.
        leaks: which events are known only at the end of a stay, and are moved there.
    """

    number: int
    files: tuple[Path, ...]
    splits: tuple[Path, ...]
    out: Path
    counts: Path
    fractions: tuple[float, float, float]
    payload: frozenset[str]
    leaks: LeakageRules = field(default_factory=LeakageRules)


def finalize(part: Partition) -> IngestCounts:
    """Write the partition's shard, data/<split>/<number>.parquet, and return its counts.

    Counts by code and by patient go to disk, as `counts`/{codes,units,years,splits}/<number>.parquet.
    """
    events, moved = move_leaks(_read(part.files), part.leaks)
    events, capped = cap_days(events)
    moved.update(capped)
    events = _judged(_sorted(events))
    dropped = events.drop_nulls("_reason").group_by("rule", "_reason").len().sort("rule", "_reason")
    early = events.filter(pl.col("_reason") == BEFORE_BIRTH)["subject_id"].n_unique() if dropped.height else 0
    if dropped.height:
        events = events.filter(pl.col("_reason").is_null())
    splits, unassigned = _splits(events["subject_id"].unique().sort(), part)
    _write_counts(events, splits, part)
    implausible = count_implausible(events) | {EARLY: early}
    followed = Counter(follow_up(_columns(events)))
    at_opening, with_time = count_at_opening(events, part.leaks)
    columns = [column for column in EVENT if column not in PAYLOAD or column in part.payload]
    write_shard(events.select(columns), splits, part.out, part.number)
    time = pl.col("time")
    dated = events.group_by("rule").agg(pl.len(), first=time.min(), last=time.max()).sort("rule")
    return IngestCounts(
        events=Counter(dict(dated.select("rule", "len").rows())),
        dropped=Counter({(rule, reason): count for rule, reason, count in dropped.rows()}),
        first=dict(dated.select("rule", "first").drop_nulls().rows()),
        last=dict(dated.select("rule", "last").drop_nulls().rows()),
        patients=Counter(dict(splits["split"].value_counts().sort("split").rows())),
        patients_with=Counter(implausible | {"no split": unassigned}),
        moved=moved,
        at_opening=at_opening,
        with_time=with_time,
        followed=followed,
    )


def _columns(events: pl.DataFrame) -> Events:
    """Sorted events with codes of an Enum, without their numbers."""
    return Events(
        events["subject_id"].to_numpy(),
        events["time"].cast(pl.Datetime("us")).to_physical().fill_null(STATIC).to_numpy(),
        events["code"].to_physical().to_numpy(),
        np.full(len(events), np.nan, np.float32),
        tuple(events["code"].cat.get_categories()),
    )


def _read(files: tuple[Path, ...]) -> pl.DataFrame:
    columns = [*EVENT, "unit", "rule", "position", "named"]
    rows = pl.scan_parquet(list(files), **AS_NAMED)
    events = rows.filter(pl.col("reason").is_null()).select(columns).collect()
    # Sort and compare integers in place of codes: this is where the time goes.
    code = events["code"].cast(pl.Enum(events["code"].unique().sort()))
    unit = events["unit"].cast(pl.Enum(events["unit"].drop_nulls().unique().sort()))
    return events.with_columns(code=code, _code=code.to_physical(), unit=unit)


def _sorted(events: pl.DataFrame) -> pl.DataFrame:
    """Sorted by patient and time; ties keep the order of the mapping, then of whatever makes the order unique."""
    return events.sort([column for column in ORDER if _varies(events[column])], nulls_last=False)


def _varies(column: pl.Series) -> bool:
    return 0 < column.null_count() < len(column) or column.min() != column.max()


def _judged(events: pl.DataFrame) -> pl.DataFrame:
    """Adds `_reason`: why an event is ruled out by others of the same patient; null if it is not.

    Of several ends of follow-up the last counts, as it does for labels and tokens: a source that states an earlier one
    too says that the record went on.
    """
    time, codes = pl.col("time"), events["code"]
    bounds = events.group_by("subject_id").agg(
        _birth=time.filter(among(codes, lambda code: means(code, BIRTH))).min(),
        _end=time.filter(among(codes, lambda code: means(code, FOLLOW_UP_END))).max(),
    )
    reason = (
        pl.when(_repeated(events))
        .then(pl.lit("duplicate"))
        .when(time < pl.col("_birth"))
        .then(pl.lit(BEFORE_BIRTH))
        .when(time > pl.col("_end"))
        .then(pl.lit("after follow-up end"))
    )
    judged = events.join(bounds, on="subject_id", how="left", maintain_order="left")
    return judged.with_columns(_reason=reason).drop("_birth", "_end")


def _repeated(events: pl.DataFrame) -> pl.Series:
    """Whether an identical event of the same patient comes earlier; `events` are sorted."""
    same = ["subject_id", "time", "_code", "numeric_value"]
    same += [column for column in PAYLOAD if events[column].count()]
    # Duplicates from one rule are adjacent, unless the source has an order of its own; only the rest need a search.
    beside = pl.all_horizontal(pl.col(column).eq_missing(pl.col(column).shift(1)) for column in same)
    repeated = events.select(beside.fill_null(False))[:, 0].to_numpy().copy()
    spread = (pl.col("rule").n_unique() > 1) | (pl.col("position").max() > 0)
    codes = events.group_by("_code").agg(spread=spread).filter("spread")["_code"]
    if len(codes):
        candidates = events.select(*same).with_row_index("_at").filter(pl.col("_code").is_in(codes.implode()))
        again = candidates.filter(~pl.struct(same).is_first_distinct())["_at"]
        repeated[again.to_numpy()] = True
    return pl.Series(repeated)


def _splits(patients: pl.Series, part: Partition) -> tuple[pl.DataFrame, int]:
    """Rows (subject_id, split), one for each patient; and for how many the source has splits, but not theirs."""
    hashed = pl.DataFrame({"subject_id": patients, "split": split_of(patients.to_numpy(), part.fractions)})
    if not part.splits:
        return hashed, 0
    given = pl.read_parquet(list(part.splits), **AS_NAMED).select("subject_id", given="split")
    joined = hashed.join(given, on="subject_id", how="left", maintain_order="left")
    return joined.select("subject_id", split=pl.coalesce("given", "split")), joined["given"].null_count()


def _write_counts(events: pl.DataFrame, splits: pl.DataFrame, part: Partition) -> None:
    plain = events.lazy()
    codes = plain.group_by("code").agg(events=pl.len(), patients=pl.col("subject_id").n_unique()).collect()
    units = plain.group_by("code", "unit").agg(events=pl.len()).drop_nulls("unit").collect()
    dated = plain.filter(pl.col("time").is_not_null() & ~meaning(BIRTH))
    years = dated.group_by("code", year=pl.col("time").dt.year()).agg(events=pl.len()).collect()
    texts = [pl.col(column).cast(pl.String) for column in ("code", "unit")]
    tables = {
        "codes": codes.with_columns(texts[0]),
        "units": units.with_columns(texts),
        "years": years.with_columns(texts[0]),
        "splits": splits,
    }
    for name, table in tables.items():
        folder = part.counts / name
        folder.mkdir(parents=True, exist_ok=True)
        table.write_parquet(folder / f"{part.number}.parquet")
