"""From tasks to what the rollouts are asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from sequela.record.errors import InputError
from sequela.record.store import read_events
from sequela.tasks.task import MINUTE, Task

if TYPE_CHECKING:
    from sequela.rollout.simulate import Request


def requests(tasks: Sequence[Task], meds: Path, split: str, patients: int | None = None) -> list[Request]:
    """One request a task: its cohort in `split` with the prediction times, and the codes and horizon that decide it.

    Args:
        patients: at most so many patients, drawn at random but always the same ones; None for all.

    Raises:
        InputError: where a task has no patient in the split.
    """
    from sequela.rollout.simulate import Request

    events = read_events(meds, split)
    if patients is not None:
        everyone = events["subject_id"].unique().sort().to_numpy()
        drawn = np.random.default_rng(0).permutation(everyone)[:patients]
        events = events.filter(pl.col("subject_id").is_in(drawn))
    result = []
    for task in tasks:
        times = task.prediction_times(events)
        if times.is_empty():
            raise InputError(
                f"{meds}, split '{split}': nobody belongs to the cohort of the task '{task.name}', which starts with "
                f"the code {task.after}; choose a task for this data (`sequela tasks` lists them)."
            )
        horizon = None if task.horizon is None else task.horizon // MINUTE
        result.append(Request(task.name, times, task.outcome, task.ends, horizon))
    return result
