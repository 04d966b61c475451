"""One part of the gathered events becomes one shard of the dataset: sorted, rid of what cannot be, counted, written."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from sequela.record.account import Account
from sequela.record.codes import BIRTH, FOLLOW_UP_END
from sequela.record.spill import EVENT
from sequela.record.store import split_of, write_shard

ORDER = ("subject_id", "time", "rule", "position", "_code", "numeric_value", "text_value", "unit")


@dataclass(frozen=True)
class Part:
    """One part of the spill, and where it goes.

    Attributes:
        number: of the shard that it becomes.
        files: its events; whole patients only.
        splits: rows (subject_id, split), where the source says whose split is whose; others go by a hash.
        out: the dataset's folder.
        counts: the folder for what is counted by code and by patient.
        texts: whether the dataset has the column `text_value`.
    """

    number: int
    files: tuple[Path, ...]
    splits: tuple[Path, ...]
    out: Path
    counts: Path
    fractions: tuple[float, float, float]
    texts: bool


def settle(part: Part) -> Account:
    """Write the part's shard, data/<split>/<number>.parquet, and what is counted of it.

    By code and by patient it is counted on disk, as `counts`/{codes,units,splits}/<number>.parquet.
    """
    judged = _judged(_sorted(_read(part.files)))
    dropped = judged.drop_nulls("_reason").group_by("rule", "_reason").len().sort("rule", "_reason")
    events = judged.filter(pl.col("_reason").is_null()).drop("_reason", "_code")
    del judged
    splits = _splits(events["subject_id"].unique().sort(), part)
    _write_counts(events, splits, part)
    columns = [column for column in EVENT if column != "text_value" or part.texts]
    write_shard(events.select(columns), splits, part.out, part.number)
    dated = (
        events.group_by("rule")
        .agg(pl.len(), first=pl.col("time").min(), last=pl.col("time").max())
        .sort("rule")
    )
    return Account(
        events=Counter(dict(dated.select("rule", "len").rows())),
        dropped=Counter({(rule, reason): count for rule, reason, count in dropped.rows()}),
        first=dict(dated.select("rule", "first").drop_nulls().rows()),
        last=dict(dated.select("rule", "last").drop_nulls().rows()),
        patients=Counter(dict(splits["split"].value_counts().sort("split").rows())),
    )


def _read(files: tuple[Path, ...]) -> pl.DataFrame:
    columns = [*EVENT, "unit", "rule", "position"]
    rows = pl.scan_parquet(list(files), hive_partitioning=False)
    events = rows.filter(pl.col("reason").is_null()).select(columns).collect()
    # Integers in place of codes: sorting and comparing them is what takes the time
    code = events["code"].cast(pl.Enum(events["code"].unique().sort()))
    unit = events["unit"].cast(pl.Enum(events["unit"].drop_nulls().unique().sort()))
    return events.with_columns(code=code, _code=code.to_physical(), unit=unit)


def _sorted(events: pl.DataFrame) -> pl.DataFrame:
    """By patient and time; at the same time in the order of the mapping, then by what makes the order unique."""
    needed = [column for column in ORDER if events[column].null_count() < events.height]
    return events.sort(needed, nulls_last=False).drop("position")


def _judged(events: pl.DataFrame) -> pl.DataFrame:
    """The column `_reason`: why other events of the same patient rule this one out; null where none does."""
    time = pl.col("time")
    bounds = events.group_by("subject_id").agg(
        _birth=time.filter(pl.col("code") == BIRTH).min(),
        _end=time.filter(pl.col("code") == FOLLOW_UP_END).min(),
    )
    same = [column if column != "code" else "_code" for column in EVENT if events[column].count()]
    reason = (
        pl.when(~pl.struct(same).is_first_distinct())
        .then(pl.lit("duplicate"))
        .when(time < pl.col("_birth"))
        .then(pl.lit("before birth"))
        .when(time > pl.col("_end"))
        .then(pl.lit("after follow-up end"))
    )
    judged = events.join(bounds, on="subject_id", how="left", maintain_order="left")
    return judged.with_columns(_reason=reason).drop("_birth", "_end")


def _splits(patients: pl.Series, part: Part) -> pl.DataFrame:
    """Rows (subject_id, split), one for each patient."""
    own = pl.DataFrame({"subject_id": patients, "split": split_of(patients.to_numpy(), part.fractions)})
    if not part.splits:
        return own
    said = pl.read_parquet(list(part.splits), hive_partitioning=False).select("subject_id", said="split")
    joined = own.join(said, on="subject_id", how="left", maintain_order="left")
    return joined.select("subject_id", split=pl.coalesce("said", "split"))


def _write_counts(events: pl.DataFrame, splits: pl.DataFrame, part: Part) -> None:
    plain = events.lazy()
    codes = plain.group_by("code").agg(events=pl.len(), patients=pl.col("subject_id").n_unique()).collect()
    units = plain.group_by("code", "unit").agg(events=pl.len()).drop_nulls("unit").collect()
    texts = [pl.col(column).cast(pl.String) for column in ("code", "unit")]
    tables = {
        "codes": codes.with_columns(texts[0]),
        "units": units.with_columns(texts),
        "splits": splits,
    }
    for name, table in tables.items():
        folder = part.counts / name
        folder.mkdir(parents=True, exist_ok=True)
        table.write_parquet(folder / f"{part.number}.parquet")
