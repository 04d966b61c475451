"""Landmarks: the moments along a course at which a task is asked again.

A landmark is some time after the prediction times of a task, or a name in a label file. Only those are asked who are
still at risk: the outcome and the ends have not come, the patient lives, and the record is not over.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from sequela.errors import InputError
from sequela.files import files_below
from sequela.record.duration import DAY, duration_words, parse_duration
from sequela.record.questions import QUESTION, questions_of
from sequela.record.schema import DEATH
from sequela.record.validate import read_parquet
from sequela.task.cohort import of_the_living, without_history_of
from sequela.task.label import labels, record_ends
from sequela.task.outcome import OutcomeRule
from sequela.task.task import Task

COLUMN = "landmark"
NAME = re.compile(r"[\w+-][\w .+-]{0,59}")
EVERY = "all landmarks"  # the rows of all of them together


@dataclass(frozen=True, eq=False)
class Landmark:
    """When a task is asked.

    Attributes:
        name: in words, also part of the name of a folder.
        offset: microseconds after the prediction times of the task; None: at the times of `given`.
        given: questions of a label file.
    """

    name: str
    offset: int | None = 0
    given: pl.DataFrame | None = None

    def questions(self, task: Task, events: pl.DataFrame) -> pl.DataFrame:
        """Who of the patients of sorted MEDS `events` is asked: distinct `subject_id`, `prediction_time`, sorted.

        At an offset of 0 it is the cohort of the task, as `sequela predict` asks it.
        """
        if self.given is not None:
            return self.still_followed(events)
        return still_at_risk(task, events, self.offset or 0)

    def still_followed(self, events: pl.DataFrame) -> pl.DataFrame:
        """The questions of a label file about the patients of `events` who live and whose record is not over."""
        here = self.given.filter(pl.col("subject_id").is_in(events["subject_id"].unique().implode()))
        living = of_the_living(here, events)
        known = living.join(record_ends(events), on="subject_id", how="left", maintain_order="left")
        return known.filter(pl.col("end") > pl.col("prediction_time")).select(QUESTION)


def at_offsets(durations: Sequence[str]) -> list[Landmark]:
    """The landmarks so long after the prediction times of tasks, such as "90 days" or "6 hours"; "0 days" is at them.

    Raises:
        InputError: for anything that is no duration, and for one that is given twice.
    """
    offsets = [parse_duration(text, "`landmark`") for text in durations]
    for number, offset in enumerate(offsets):
        if offset in offsets[:number]:
            raise InputError(f"`landmark` '{durations[number]}' is given twice: leave out one of them.")
    return [Landmark(duration_words(offset) if offset else "0 days", offset) for offset in sorted(offsets)]


def read_landmarks(path: Path) -> list[Landmark]:
    """The landmarks in a label file (or a folder of such files), by its column `landmark`; without it there is one.

    Only `subject_id`, `prediction_time` and `landmark` are read, so that no label reaches a probe.

    Raises:
        InputError: if there is no question, a landmark has no name or one that no folder can have, or see
            `questions_of`.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist: give a Parquet file with {', '.join((*QUESTION, COLUMN))}.")
    files = files_below(path, ".parquet") if path.is_dir() else [path]
    tables: dict[str, list[pl.DataFrame]] = {}
    for file in files:
        frame = read_parquet(file)
        if COLUMN not in frame.columns:
            frame = frame.with_columns(pl.lit(path.stem).alias(COLUMN))
        frame = frame.with_columns(pl.col(COLUMN).cast(pl.String))
        for name in frame[COLUMN].unique(maintain_order=True):
            if name is None or not NAME.fullmatch(name) or name == EVERY:
                raise InputError(
                    f"{file}: '{COLUMN}' is {name!r}; give names of letters, digits, spaces, dots and dashes, such as "
                    "'start of treatment'."
                )
            rows = frame.filter(pl.col(COLUMN) == name)
            tables.setdefault(name, []).append(questions_of(rows, file))
    landmarks = [Landmark(name, None, pl.concat(parts).unique().sort(QUESTION)) for name, parts in tables.items()]
    if not any(landmark.given.height for landmark in landmarks):
        raise InputError(f"{path} holds no question: give at least one row of {' and '.join(QUESTION)}.")
    return landmarks


def landmarks_of(durations: Sequence[str], labels: Path | None) -> list[Landmark]:
    """The landmarks that a probe asks with these settings: see `at_offsets` and `read_landmarks`.

    Raises:
        InputError: also if a landmark of the file is called like an offset.
    """
    given = [] if labels is None else read_landmarks(labels)
    offsets = at_offsets(durations or ("0 days",)) if durations or labels is None else []
    if both := {landmark.name for landmark in offsets} & {landmark.name for landmark in given}:
        raise InputError(f"{labels} has a landmark called '{min(both)}', as `landmark` does: rename one of them.")
    return offsets + given


def still_at_risk(task: Task, events: pl.DataFrame, offset: int) -> pl.DataFrame:
    """The task's questions `offset` microseconds later, about those who are then still at risk.

    Left out are those who by then had the outcome (of tasks that ask whether or when; a count or a value may come
    again), an end, a code of `exclude`, or who died; and those whose record is over, of whom nothing would be known.
    What happens at the very landmark is yet to come, as it is for every question.
    """
    base = task.prediction_times(events)
    if not offset:
        return base
    at = pl.col("_waited")
    kept = _waited(replace(task, event=OutcomeRule((), task.ends)), base, events)
    kept = kept.filter(pl.when(pl.col("decided") == "censored").then(at > offset).otherwise(at >= offset))
    base = kept.select(QUESTION)
    if _comes_once(task):
        waiting = _waited(replace(task, event=replace(task.event, horizon=None)), base, events)
        base = waiting.filter((pl.col("decided") != "outcome") | (at >= offset)).select(QUESTION)
    later = base.with_columns(pl.col("prediction_time") + pl.duration(microseconds=offset)).unique()
    return without_history_of((*task.cohort.exclude, DEATH), later, events)


def _comes_once(task: Task) -> bool:
    """Whether nobody is asked about the outcome who has had it."""
    rule = task.asks.labels
    return rule.counted == "first" and not rule.by_value


def _waited(task: Task, questions: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """The `labels` with `_waited`, the microseconds until what decided them."""
    microseconds = (pl.col("until_days") * DAY).round().cast(pl.Int64)
    return labels(task, events, questions).with_columns(_waited=microseconds)

