"""Which questions a stage asks: tasks, or the patients and times of a label file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sequela.errors import InputError

if TYPE_CHECKING:
    from sequela.rollout.request import Request
    from sequela.task.probing.landmarks import Landmark
    from sequela.task.task import Task


@dataclass(frozen=True)
class AskSettings:
    """Who is asked what, and when."""

    task: tuple[str, ...] = ()
    """A task by name (see `sequela tasks`) or a task file; repeat for several, which share the simulation."""
    labels: Path | None = None
    """Ask about the patients and times of this MEDS label file (or folder), not of the task's cohort; its labels are
    not read."""
    split: str = "held_out"
    """Which patients: train, tuning or held_out."""
    patients: int | None = None
    """Ask about at most this many patients, the first by number; all unless given."""

    def tasks(self) -> list[Task]:
        """The tasks, read; one that is named twice is one.

        Raises:
            InputError: for none, one that does not exist, or two of one name.
        """
        from sequela.task.catalog import load_tasks

        if not self.task and self.labels is not None:
            raise InputError(
                f"{self.labels} says who is asked and when, but not what: name the outcome with `task`."
            )
        if not self.task:
            raise InputError("nothing is asked: name one or more tasks with `task`; `sequela tasks` lists them.")
        return load_tasks(self.task)

    def requests(
        self, model: Path, meds: Path, say: Callable[[str], None] | None = None
    ) -> list[Request]:
        """What the checkpoint `model` is asked about the patients of `meds`, one request per task.

        Args:
            say: hears how many questions of a label file are left out, because their patients are in another split, and
                which codes that a task names the dataset does not hold. None: nothing is looked for.
        """
        from sequela.record.questions import read_questions
        from sequela.task.requests import left_out, requests
        from sequela.task.unmatched import unmatched
        from sequela.tokens.ehr.tokenizer import EhrTokenizer

        maps = EhrTokenizer.load(model).maps
        questions = None if self.labels is None else read_questions(self.labels)
        tasks = self.tasks()
        asked = requests(tasks, meds, self.split, self.patients, maps, questions)
        if say is not None:
            if questions is not None and (missing := left_out(questions, asked)):
                say(missing)
            for line in unmatched(tasks, meds, maps):
                say(line)
        return asked

    def identity(self) -> dict:
        """The settings that decide a result, for the manifest; the tasks with every field."""
        tasks = [task.as_dict() for task in self.tasks()]
        return {"tasks": tasks, "split": self.split, "patients": self.patients}

    def inputs(self) -> dict[str, Path]:
        """The files that decide a result, for the manifest."""
        return {} if self.labels is None else {"labels": self.labels}


@dataclass(frozen=True)
class LandmarkSettings:
    """What is asked of whom along a course, and when."""

    task: tuple[str, ...] = ()
    """A task by name (see `sequela tasks`) or a task file; repeat for several."""
    landmark: tuple[str, ...] = ()
    """Ask so long after the task's prediction times, such as "90 days" or "6 hours", those who are then still at risk;
    "0 days" is at them; repeat for several. Without any, at the prediction times alone."""
    labels: Path | None = None
    """Ask about the patients and times of this label file (or folder); a column `landmark` in it names the landmarks.
    Its labels are not read."""

    def tasks(self) -> list[Task]:
        """The tasks, read; one that is named twice is one.

        Raises:
            InputError: for none, one that does not exist, or two of one name.
        """
        return AskSettings(self.task, self.labels).tasks()

    def landmarks(self) -> list[Landmark]:
        """When they are asked.

        Raises:
            InputError: for what is no duration, or no file of landmarks.
        """
        from sequela.task.probing.landmarks import landmarks_of

        return landmarks_of(self.landmark, self.labels)


@dataclass(frozen=True)
class AnswerSettings:
    """What else answers, beside the model."""

    also: tuple[Path, ...] = ()
    """A model like the first but trained with another seed, or its simulated folder; repeat for several. Their answers
    are averaged."""
    baselines: bool = True
    """Also fit the baselines on the training patients."""
    strong: bool = True
    """Also fit the strong ones, which take longer: from all that is recorded, from what the tokens say of it, and a
    survival forest (with the extra `survival`)."""
    calibration: Path | None = None
    """A folder of sequela calibrate: write the recalibrated risks too, as models of their own beside the raw ones, and
    take from it how much the scores of rollouts vary."""
