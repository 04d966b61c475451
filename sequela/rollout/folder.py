"""The simulated folder, written and read: rollouts as timelines on disk, in parts while they are made.

`data/<rollout number>.parquet` holds one simulated future of every question, in the MEDS schema plus `prediction_time`
(the layout that the package MEDS-trajectory-evaluation reads) and `rollout`. Every future ends with FOLLOW_UP//END, as
real records do: it is known up to then. Futures sampled with an outcome excluded are kept apart, in
`avoiding/<task>`, because they are not what the model expects. `rollouts.parquet` has one row per rollout,
`questions.parquet` the questions of each task, and `simulate.json` the settings, counts and code maps.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from sequela.errors import InputError
from sequela.files import files_below
from sequela.record.questions import QUESTION
from sequela.record.schema import FOLLOW_UP_END
from sequela.record.validate import read_parquet
from sequela.rollout.budget import AdaptiveBudget, FixedBudget, RolloutBudget
from sequela.rollout.engine.rollouts import REASONS, Prompts, Rollouts
from sequela.rollout.request import Request
from sequela.tokens.ehr.decode import decode
from sequela.tokens.ehr.encode import MINUTE
from sequela.tokens.ehr.tokenizer import EhrTokenizer
from sequela.tokens.maps.code_map import CodeMap
from sequela.tokens.maps.recode import load_same_maps

PARTS = "parts"
COUNTS = "part.json"
TABLE = "rollouts.parquet"
DATA = "data"
AVOIDING = "avoiding"
ROWS = 1 << 18  # of a row group, wherever the parts that they come from begin
QUESTIONS = "questions.parquet"
SUMMARY = "simulate.json"
KEY = (*QUESTION, "rollout")


@dataclass(frozen=True)
class SimulatedFolder:
    """A folder that `sequela simulate` wrote, read."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def exists(self) -> bool:
        """Whether the folder holds a finished simulation."""
        return (self.path / TABLE).exists()

    def rollouts(self) -> pl.DataFrame:
        """One row per rollout: `KEY`, `end`, `reason`, `avoids`, `tokens`, and a `score_column` per task and estimator.

        Raises:
            InputError: if the table is missing, cannot be read, or lacks a column.
        """
        path = self.path / TABLE
        rollouts = _read(path, "one row per rollout, as `sequela simulate` writes it")
        for column in (*KEY, "end", "reason"):
            if column not in rollouts.columns:
                raise InputError(
                    f"{path} has no column '{column}': make the folder again with `sequela simulate`."
                )
        absent = {"avoids": pl.String, "tokens": pl.Int32}
        return rollouts.with_columns(
            pl.lit(None, dtype).alias(name) for name, dtype in absent.items() if name not in rollouts.columns
        )

    def questions(self, task: str) -> pl.DataFrame | None:
        """The questions that were simulated for a task: `subject_id`, `prediction_time`.

        None if the folder does not list that task, or was made by version 0.1, which listed none.
        """
        path = self.path / QUESTIONS
        if not path.exists():
            return None
        questions = read_parquet(path).filter(pl.col("task") == task).select(QUESTION)
        return None if questions.is_empty() else questions

    @property
    def has_events(self) -> bool:
        """Whether there are futures that exclude no outcome."""
        return bool(self._files())

    def _files(self) -> list[Path]:
        folder = self.path / DATA
        return files_below(folder, ".parquet") if folder.is_dir() else []

    def events(self, columns: Sequence[str] | None = None, where: pl.Expr | None = None) -> pl.DataFrame:
        """The simulated events of the futures that exclude no outcome.

        Args:
            columns: only these; None for all.
            where: only the rows for which it is true, an expression of those columns.

        Raises:
            InputError: if there are none, or a file cannot be read.
        """
        files = self._files()
        what = "simulated events, as `sequela simulate` writes them"
        if not files:
            raise InputError(f"{self.path / DATA} holds no {what}: name another folder.")
        frames = (_read(file, what, columns) for file in files)
        return pl.concat(frame if where is None else frame.filter(where) for frame in frames)

    def maps(self) -> tuple[CodeMap, ...]:
        """The code maps that lead to the codes of the simulated events; empty if the folder names none.

        Whatever is compared with simulated events has to be translated by them first (`recoded_events`).

        Raises:
            InputError: if a map is missing or was edited.
        """
        return load_same_maps(self.summary().get("maps", {}), self.path)

    def edits(self) -> dict[str, int]:
        """What was changed in the histories before simulating, and in how many of them; empty for nothing."""
        return self.summary().get("edits", {})

    def rules(self) -> int:
        """By which `sequela.rollout.settings.RULES` the rollouts were made."""
        return self.summary().get("rules", 1)

    def estimator(self) -> str | None:
        """The estimator that the rollouts were made for; None if the folder does not say."""
        return self.summary().get("settings", {}).get("estimator")

    def seed(self) -> int | None:
        """Of the random numbers that drove the rollouts; None if the folder does not say."""
        return self.summary().get("settings", {}).get("seed")

    def budget(self) -> RolloutBudget:
        """How many rollouts each question got, which decides how they are weighted."""
        plan = self.summary().get("plan")
        return AdaptiveBudget(**plan) if plan else FixedBudget(1)

    def summary(self) -> dict[str, Any]:
        """What `simulate.json` holds; empty if it is missing."""
        path = self.path / SUMMARY
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def score_column(estimator: str, task: str) -> str:
    """The column of `rollouts.parquet` that holds the scores of "scope", "cv" or "reach" for a task.

    >>> score_column("scope", "death_5y")
    'scope//death_5y'
    """
    return f"{estimator}//{task}"


def seen_column(estimator: str, task: str) -> str:
    """The column that holds what the score of a truncated rollout had come to; null of others."""
    return f"seen//{score_column(estimator, task)}"


def cut_within_a_moment() -> pl.Expr:
    """Which rows of `rollouts.parquet` stopped within their last moment: all but deaths, the last events of theirs."""
    return pl.col("reason").is_in([reason for reason in REASONS if reason != "end"])


def write_questions(out: Path, requests: Sequence[Request]) -> None:
    """Write the questions of every request into a simulated folder, one row per task and question."""
    frames = [
        request.times.select(pl.lit(request.name, pl.String).alias("task"), *QUESTION) for request in requests
    ]
    pl.concat(frames).write_parquet(out / QUESTIONS)


def write_summary(out: Path, summary: dict[str, Any]) -> None:
    """Write the settings and counts of a finished simulation into its folder."""
    (out / SUMMARY).write_text(json.dumps(summary, indent=1), encoding="utf-8")


def _read(path: Path, what: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
    if not path.exists():
        raise InputError(f"{path} is not there: it should hold {what}.")
    return read_parquet(path, None if columns is None else list(columns))


def events_of(
    tokenizer: EhrTokenizer, questions: pl.DataFrame, prompts: Prompts, rollouts: Rollouts, minutes: np.ndarray
) -> pl.DataFrame:
    """The simulated events of R rollouts, in their order: MEDS columns, `prediction_time` and `rollout`.

    Args:
        questions: those of the prompts, in their order.
        minutes: by how many minutes each token moved the clock, int64 [tokens].
    """
    keys = questions[rollouts.prompt].with_columns(rollout=pl.Series(rollouts.number.astype(np.int32)))
    at = keys["prediction_time"].to_physical().to_numpy()
    clock = rollouts.account["clock"]
    start = at + prompts.clock[rollouts.prompt] * MINUTE
    events = decode(tokenizer, rollouts.tokens, start, minutes).frame().rename({"subject_id": "row"})
    last = pl.DataFrame({
        "row": pl.Series(np.arange(len(keys)), dtype=events.schema["row"]),
        "time": pl.Series(at + clock * MINUTE).cast(pl.Datetime("us")),
        "code": FOLLOW_UP_END,
        "numeric_value": pl.Series([None] * len(keys), dtype=pl.Float32),
    })  # fmt: skip
    events = pl.concat([events, last]).sort("row", maintain_order=True)
    return events.hstack(keys[events["row"]]).select(
        "subject_id", "time", "code", "numeric_value", "prediction_time", "rollout"
    )


def table_of(
    questions: pl.DataFrame, prompts: Prompts, rollouts: Rollouts, scored: dict[str, int], avoids: str | None
) -> pl.DataFrame:
    """One row per rollout.

    Args:
        questions: those of the prompts, in their order.
        scored: for each outcome that gets a score column, its name and its number among those watched. A score is null
            if the question does not ask for the outcome, or the rollout was truncated before it was settled; then
            `seen_column` has what it had until then.
        avoids: the outcome that was not sampled, if any.
    """
    keys, account = questions[rollouts.prompt], rollouts.account
    end = keys["prediction_time"].to_physical().to_numpy() + account["clock"] * MINUTE
    cut = account["watched"] & rollouts.truncated[:, None]
    unknown = ~prompts.watched_in(rollouts.prompt, cut.shape[1])
    scores = {"scope": account["hazard"]} if avoids is None else {"reach": account["reached"]}
    if "controlled" in account:
        scores["cv"] = account["controlled"]
    columns = {
        column(score, name): np.where(hidden, np.nan, values)[:, k]
        for column, hidden in ((score_column, cut | unknown), (seen_column, ~cut | unknown))
        for score, values in scores.items()
        for name, k in scored.items()
    }
    return keys.with_columns(
        rollout=pl.Series(rollouts.number.astype(np.int32)),
        avoids=pl.lit(avoids, pl.String),
        end=pl.Series(end).cast(pl.Datetime("us")),
        reason=pl.Series([REASONS[reason] for reason in rollouts.reason], dtype=pl.String),
        tokens=pl.Series(rollouts.tokens.lengths.astype(np.int32)),
        windows=pl.Series(rollouts.windows.astype(np.int32)),
        removed=pl.Series(account["removed"]),
        **{name: pl.Series(values, dtype=pl.Float32).fill_nan(None) for name, values in columns.items()},
    )


def write_part(
    done: Path, pools: Iterable[tuple[str | None, pl.DataFrame, pl.DataFrame]], counts: dict
) -> None:
    """Write a part whole or not at all; a part that is already there stays.

    Args:
        done: its `part_folder`.
        pools: of each pool what it avoids (None: nothing), the events, and one row per rollout.
        counts: what the part adds to the summary.
    """
    work = done.with_name(f".{done.name}-{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    tables = []
    for avoids, events, table in pools:
        tables.append(table)
        folder = work / _pool(avoids)
        folder.mkdir(parents=True)
        for (rollout,), futures in events.group_by("rollout", maintain_order=True):
            futures.write_parquet(folder / _file(rollout))
    pl.concat(tables, how="diagonal").write_parquet(work / TABLE)
    (work / COUNTS).write_text(json.dumps(counts), encoding="utf-8")
    try:
        work.rename(done)
    except OSError:
        if not done.exists():
            raise
        shutil.rmtree(work)  # another process was first, with the same content


def part_folder(out: Path, number: int, count: int) -> Path:
    """Where a finished part is. A cohort that was cut into another number of parts has other folders."""
    return out / PARTS / f"{number:06d}-of-{count:06d}"


def join_parts(out: Path, count: int, avoided: Sequence[str]) -> list[dict]:
    """Join all parts into one file per rollout number, and one table. Returns the counts of the parts, in order.

    The files depend on the rollouts alone: not on how the cohort was cut into parts.

    Args:
        avoided: the outcomes of which one may be avoided, in the order of their rows in the table.
    """
    parts = [part_folder(out, number, count) for number in range(count)]
    columns: dict[str, pl.DataType] = {}
    for part in parts:
        columns |= {
            name: dtype for name, dtype in pl.read_parquet_schema(part / TABLE).items() if name not in columns
        }
    tables = (
        _read(part / TABLE, "rollouts").filter(pl.col("avoids").eq_missing(pl.lit(pool, pl.String)))
        for pool in (None, *avoided)
        for part in parts
    )
    nothing = pl.DataFrame(schema=columns)
    _write_whole((pl.concat([nothing, table], how="diagonal") for table in tables), out / TABLE)
    names = sorted(
        {file.relative_to(part) for part in parts for file in part.rglob("*.parquet")} - {Path(TABLE)}
    )
    for name in names:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        pieces = (part / name for part in parts if (part / name).exists())
        _write_whole((_read(piece, "events") for piece in pieces), out / name)
    (out / DATA).mkdir(exist_ok=True)
    counts = [json.loads((part / COUNTS).read_text(encoding="utf-8")) for part in parts]
    shutil.rmtree(out / PARTS)
    return counts


def _write_whole(frames: Iterable[pl.DataFrame], path: Path) -> None:
    """Write frames as one Parquet file whose bytes depend on its rows alone, some at a time."""
    frames = iter(frames)
    waiting = next(frames)
    schema = waiting.to_arrow().schema
    with pq.ParquetWriter(path, schema) as file:
        for frame in frames:
            waiting = pl.concat([waiting, frame])
            while len(waiting) >= ROWS:
                file.write_table(waiting[:ROWS].rechunk().to_arrow().combine_chunks())
                waiting = waiting[ROWS:]
        for rows in waiting.iter_slices(ROWS):
            file.write_table(rows.rechunk().to_arrow().combine_chunks())


def _pool(avoids: str | None) -> Path:
    return Path(DATA) if avoids is None else Path(AVOIDING) / avoids


def _file(rollout: int) -> str:
    return f"{rollout:04d}.parquet"
