"""Which questions a stage asks: tasks, or the patients and times of a label file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sequela.errors import InputError

if TYPE_CHECKING:
    from sequela.rollout.request import Request
    from sequela.task.task import Task


@dataclass(frozen=True)
class Ask:
    """Who is asked what, and when."""

    task: tuple[str, ...] = ()
    """A task by name (see `sequela tasks`) or a task file; repeat for several, which share the simulation."""
    split: str = "held_out"
    """Which patients: train, tuning or held_out."""
    patients: int | None = None
    """Ask about at most this many patients, the first by number; all unless given."""

    def tasks(self) -> list[Task]:
        """The tasks, read.

        Raises:
            InputError: for none, or one that does not exist.
        """
        from sequela.task.catalog import load_task

        if not self.task:
            raise InputError("nothing is asked: name one or more tasks with `task`; `sequela tasks` lists them.")
        return [load_task(name) for name in self.task]

    def requests(self, model: Path, meds: Path) -> list[Request]:
        """What the checkpoint `model` is asked about the patients of `meds`, a request a task."""
        from sequela.task.cohort import requests
        from sequela.tokens.ehr.tokenizer import EhrTokenizer

        maps = EhrTokenizer.load(model).maps
        return requests(self.tasks(), meds, self.split, self.patients, maps)

    def identity(self) -> dict:
        """What of it decides a result, for the manifest."""
        return {**self.task_identity(), "split": self.split, "patients": self.patients}

    def task_identity(self) -> dict:
        """The tasks with every field, for the manifest."""
        return {"tasks": [task.as_dict() for task in self.tasks()]}
