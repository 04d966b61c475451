"""What a simulation is asked: the questions of tasks' cohorts, or given ones, with the outcome to watch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import polars as pl

from sequela.errors import InputError
from sequela.record.dataset import read_frames
from sequela.record.duration import MINUTE
from sequela.record.questions import QUESTION
from sequela.rollout.request import Request
from sequela.task.cohort import of_the_living
from sequela.task.task import Task
from sequela.task.unmatched import held, near
from sequela.tokens.maps.code_map import CodeMap
from sequela.tokens.maps.recode import recoded_events


def requests(
    tasks: list[Task],
    meds: Path,
    split: str | None = "held_out",
    patients: int | None = None,
    maps: tuple[CodeMap, ...] = (),
    questions: pl.DataFrame | None = None,
) -> list[Request]:
    """What to ask a simulation so that `predict` can answer `tasks` about the patients of a split.

    Args:
        split: None for all patients.
        patients: at most so many, the first by number of those in any cohort; None for all.
        maps: the code maps of the model that will be asked; tasks are stated in the codes that they lead to.
        questions: ask these, of every task, instead of the tasks' cohorts (see `sequela.record.questions`). Those about
            patients of other splits, and about the dead, are left out; `left_out` says how many.

    Raises:
        InputError: if a task has no cohort in this split, or no question is about a patient of it.
    """
    if patients is not None and patients < 1:
        raise InputError(f"patients must be 1 or more, not {patients}; leave it out to ask about everyone.")
    asked = (
        _cohorts(tasks, meds, split, maps)
        if questions is None
        else dict.fromkeys((task.name for task in tasks), _present(questions, meds, split))
    )
    chosen = pl.concat([times["subject_id"] for times in asked.values()]).unique().sort()
    if patients is not None:
        chosen = chosen.head(patients)
    kept = pl.col("subject_id").is_in(chosen.implode())
    return [request(task, asked[task.name].filter(kept)) for task in tasks]


def left_out(questions: pl.DataFrame, asked: Iterable[Request]) -> str:
    """How many of the given questions `requests` left out, as a sentence; empty if none."""
    kept = pl.concat([request.times for request in asked]).unique()
    missing = questions.join(kept, on=QUESTION, how="anti")
    if missing.is_empty():
        return ""
    return (
        f"{missing.height:,} of {questions.height:,} questions are left out: their patients are not among those asked, "
        f"or had died before the prediction time, such as {missing['subject_id'].min()}."
    )


def _cohorts(
    tasks: list[Task], meds: Path, split: str | None, maps: tuple[CodeMap, ...]
) -> dict[str, pl.DataFrame]:
    parts: dict[str, list[pl.DataFrame]] = {task.name: [] for task in tasks}
    for frame in read_frames(meds, split):
        events = recoded_events(frame, maps)
        for task in tasks:
            parts[task.name].append(task.cohort.questions(events))
    cohorts = {name: pl.concat(times).sort(QUESTION) for name, times in parts.items()}
    for task in tasks:
        if cohorts[task.name].is_empty():
            raise InputError(
                f"{meds}: nobody in the split '{split}' can be asked '{task.name}', whose cohort begins with the event "
                f"{task.cohort.after}{near(task.cohort.after, held(meds, maps))}: choose a task for this data "
                "(`sequela tasks` lists them), or another split."
            )
    return cohorts


def _present(questions: pl.DataFrame, meds: Path, split: str | None) -> pl.DataFrame:
    """The questions about patients of the split who are alive at the prediction time."""
    parts = []
    for events in read_frames(meds, split):
        here = questions.filter(pl.col("subject_id").is_in(events["subject_id"].unique().implode()))
        parts.append(of_the_living(here.select(QUESTION), events))
    kept = pl.concat(parts)
    if kept.is_empty():
        where = "" if split is None else f" in the split '{split}'"
        raise InputError(
            f"{meds}: no question is about a patient{where} who is alive at its prediction time "
            f"({questions.height:,} questions were given): give labels of this dataset, or name the right split."
        )
    return kept.sort(QUESTION)


def request(task: Task, times: pl.DataFrame) -> Request:
    """What a simulation is asked for `task` at the questions `times`."""
    return Request(
        task.name,
        times,
        task.outcome,
        task.ends,
        None if task.horizon is None else task.horizon // MINUTE,  # clocks tell whole minutes
        task.counted,
    )
