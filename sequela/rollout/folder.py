"""Rollouts as timelines on disk: in parts while they are made, then one file for each rollout number.

A file holds one future of every question, in the MEDS schema with `prediction_time`, as the package
MEDS-trajectory-evaluation reads it, and `rollout`. Each future ends with FOLLOW_UP//END, as real records do: until then
it is known.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from sequela.record.schema import FOLLOW_UP_END
from sequela.rollout.engine.engine import Rollouts
from sequela.rollout.engine.queue import Prompts
from sequela.rollout.tracker import REASONS
from sequela.tokens.ehr.decode import decode
from sequela.tokens.ehr.encode import MINUTE
from sequela.tokens.ehr.tokenizer import Tokenizer

PARTS = "parts"
FACTS = "part.json"
TABLE = "rollouts.parquet"
DATA = "data"
AVOIDING = "avoiding"
KEY = ("subject_id", "prediction_time", "rollout")


def events_of(
    tokenizer: Tokenizer, times: pl.DataFrame, prompts: Prompts, rollouts: Rollouts
) -> pl.DataFrame:
    """The imagined events of R rollouts, in their order."""
    asked = times[rollouts.prompt].with_columns(rollout=pl.Series(rollouts.number.astype(np.int32)))
    at = asked["prediction_time"].to_physical().to_numpy()
    start = at + prompts.clock[rollouts.prompt] * MINUTE
    events, end = decode(tokenizer, rollouts.tokens, start)
    # As on the engine's clock: a first interval shorter than the time known to have passed without an event is "now".
    late = at + rollouts.clock * MINUTE - end
    events = events.with_columns(
        time=(pl.col("time").to_physical() + pl.Series(late)[events["row"]]).cast(pl.Datetime("us"))
    )
    ends = pl.DataFrame({
        "row": pl.Series(np.arange(len(asked)), dtype=events.schema["row"]),
        "time": pl.Series(at + rollouts.clock * MINUTE).cast(pl.Datetime("us")),
        "code": FOLLOW_UP_END,
        "numeric_value": pl.Series([None] * len(asked), dtype=pl.Float32),
    })  # fmt: skip
    events = pl.concat([events, ends]).sort("row", maintain_order=True)
    return events.hstack(asked[events["row"]]).select(
        "subject_id", "time", "code", "numeric_value", "prediction_time", "rollout"
    )


def table_of(
    times: pl.DataFrame, prompts: Prompts, rollouts: Rollouts, scored: dict[str, int], avoids: str | None
) -> pl.DataFrame:
    """One row a rollout.

    Args:
        scored: name -> column of the watched outcomes whose score is told; null where an outcome was not asked for, or
            the rollout was cut before it was settled.
        avoids: the outcome that was not sampled, if any.
    """
    asked = times[rollouts.prompt]
    end = asked["prediction_time"].to_physical().to_numpy() + rollouts.clock * MINUTE
    unknown = rollouts.watched & (rollouts.reason == REASONS.index("limit"))[:, None]
    unknown |= ~prompts.watched(rollouts.prompt, unknown.shape[1])
    score, values = ("scope", rollouts.hazard) if avoids is None else ("reach", rollouts.reached)
    values = np.where(unknown, np.nan, values)
    return asked.with_columns(
        rollout=pl.Series(rollouts.number.astype(np.int32)),
        avoids=pl.lit(avoids, pl.String),
        end=pl.Series(end).cast(pl.Datetime("us")),
        reason=pl.Series([REASONS[one] for one in rollouts.reason], dtype=pl.String),
        tokens=pl.Series(rollouts.tokens.lengths.astype(np.int32)),
        windows=pl.Series(rollouts.windows.astype(np.int32)),
        removed=pl.Series(rollouts.removed),
        **{
            f"{score}//{name}": pl.Series(values[:, k], dtype=pl.Float32).fill_nan(None)
            for name, k in scored.items()
        },
    )


def write_part(
    done: Path, pools: Iterable[tuple[str | None, pl.DataFrame, pl.DataFrame]], facts: dict
) -> None:
    """Write a part whole or not at all; one that is there already stays.

    Args:
        done: its `part_folder`.
        pools: what is avoided (None: nothing), the events, and one row a rollout.
    """
    work = done.with_name(f".{done.name}-{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    tables = []
    for avoids, events, table in pools:
        tables.append(table)
        folder = work / _pool(avoids)
        folder.mkdir(parents=True)
        for (rollout,), some in events.group_by("rollout", maintain_order=True):
            some.write_parquet(folder / _file(rollout))
    pl.concat(tables, how="diagonal").write_parquet(work / TABLE)
    (work / FACTS).write_text(json.dumps(facts))
    try:
        work.rename(done)
    except OSError:  # another process was first, with the same content
        shutil.rmtree(work)


def part_folder(out: Path, number: int, count: int) -> Path:
    """Where a part of so many lies once it is whole. (A cohort cut into another number of parts has others.)"""
    return out / PARTS / f"{number:06d}-of-{count:06d}"


def join_parts(out: Path, count: int) -> list[dict]:
    """Make of so many parts one file for each rollout number, and one table; the parts' facts, in order."""
    parts = [part_folder(out, number, count) for number in range(count)]
    frames = [pl.scan_parquet(part / TABLE) for part in parts]
    pl.concat(frames, how="diagonal").sink_parquet(out / TABLE)
    names = sorted(
        {file.relative_to(part) for part in parts for file in part.rglob("*.parquet")} - {Path(TABLE)}
    )
    for name in names:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        own = [part / name for part in parts if (part / name).exists()]
        with pq.ParquetWriter(out / name, pq.read_schema(own[0])) as file:
            for one in own:
                file.write_table(pq.read_table(one))
    (out / DATA).mkdir(exist_ok=True)
    facts = [json.loads((part / FACTS).read_text()) for part in parts]
    shutil.rmtree(out / PARTS)
    return facts


def _pool(avoids: str | None) -> Path:
    return Path(DATA) if avoids is None else Path(AVOIDING) / avoids


def _file(rollout: int) -> str:
    return f"{rollout:04d}.parquet"
