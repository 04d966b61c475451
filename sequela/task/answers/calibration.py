"""What tuning patients say of a model's risks: how much the scores of its rollouts vary, and how its risks should move.

`calibration.json` holds the `model` (a hash of its weights; of the mean over several, theirs), the `settings` that
decide risks, the `rollouts` of each patient, and by task: `task` (its definition), `estimator`, `overdispersion` and
`effect` (see `sequela.rollout.spread`), `questions` and `events` (known answers, and how many of them had the outcome),
and the maps `logistic` and `isotonic` (see `sequela.task.scoring.recalibration`), null where there were too few.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from sequela.errors import InputError
from sequela.rollout.folder import SimulatedFolder
from sequela.rollout.settings import SimulateSettings
from sequela.rollout.spread import Spread
from sequela.task.answers.prediction import recalibrated_name
from sequela.task.scoring.recalibration import Credibility, Isotonic, Logistic, Recalibrator
from sequela.task.task import Task

FILE = "calibration.json"
DECISIVE = ("limit", "temperature", "well_formed")  # settings of a simulation that decide what its risks are
SAMPLED = (
    "standard_error", "rollouts", "undecidable_rollouts", "tokens", "estimator", "seeds", "between_seeds",
)  # fmt: skip
AGAIN = "calibrate again, as you predict"


@dataclass(frozen=True)
class TaskCalibration:
    """What the tuning patients say of one task; see above."""

    task: dict[str, Any]
    estimator: str
    spread: Spread
    questions: int
    events: int
    logistic: Logistic | None
    isotonic: Isotonic | None

    @property
    def maps(self) -> dict[str, Recalibrator]:
        """The maps that could be fitted, by name."""
        both: dict[str, Recalibrator | None] = {"logistic": self.logistic, "isotonic": self.isotonic}
        return {name: one for name, one in both.items() if one is not None}

    def as_dict(self) -> dict[str, Any]:
        """As in the file."""
        return {
            "task": self.task,
            "estimator": self.estimator,
            "overdispersion": self.spread.overdispersion,
            "effect": self.spread.effect,
            "questions": self.questions,
            "events": self.events,
            "logistic": None if self.logistic is None else asdict(self.logistic),
            "isotonic": None if self.isotonic is None else asdict(self.isotonic),
        }

    @staticmethod
    def of(fields: dict[str, Any]) -> TaskCalibration:
        """The inverse of `as_dict`."""
        logistic, isotonic = fields["logistic"], fields["isotonic"]
        return TaskCalibration(
            fields["task"],
            fields["estimator"],
            Spread(fields["overdispersion"], fields["effect"]),
            fields["questions"],
            fields["events"],
            None if logistic is None else _line(logistic),
            None if isotonic is None else Isotonic(*(tuple(isotonic[name]) for name in ("risk", "recalibrated"))),
        )


@dataclass(frozen=True)
class Simulated:
    """How risks were simulated.

    Attributes:
        model: a hash of the weights, of several models those of all; None if that is not known.
        settings: of the simulation, by name.
        rollouts: of each question; with "auto" the most.
    """

    model: str | None
    settings: dict[str, Any]
    rollouts: int

    @staticmethod
    def planned(models: Sequence[Path], settings: SimulateSettings) -> Simulated:
        """Of the mean of some checkpoints, if they are simulated with these settings."""
        # Imported here: it needs torch, which reading a calibration does not
        from sequela.model.checkpoint import weights_hash

        return Simulated(_of_all([weights_hash(model) for model in models]), asdict(settings), settings.rollouts)

    @staticmethod
    def of(folders: Sequence[SimulatedFolder], first: int | None = None) -> Simulated:
        """Of the mean of some simulated folders, of which only the first rollouts may be used."""
        models = [folder.summary().get("model") for folder in folders]
        settings = folders[0].summary().get("settings", {})
        return Simulated(_of_all(models), settings, first or settings.get("rollouts", 0))


@dataclass(frozen=True)
class Calibration:
    """The content of a folder of `sequela calibrate`."""

    folder: Path
    simulated: Simulated
    tasks: dict[str, TaskCalibration]

    @staticmethod
    def load(folder: Path) -> Calibration:
        """Read a folder.

        Raises:
            InputError: if there is no calibration in it, or a damaged one.
        """
        path = folder / FILE
        if not path.is_file():
            raise InputError(f"{folder} holds no {FILE}: name a folder that `sequela calibrate` wrote.")
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
            tasks = {name: TaskCalibration.of(fields) for name, fields in about["tasks"].items()}
            return Calibration(folder, Simulated(about["model"], about["settings"], about["rollouts"]), tasks)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is damaged ({error!r}): calibrate again.") from error

    def save(self) -> None:
        """Write the file into the folder."""
        made = self.simulated
        about = {
            "model": made.model,
            "settings": {name: made.settings[name] for name in DECISIVE if name in made.settings},
            "rollouts": made.rollouts,
            "tasks": {name: one.as_dict() for name, one in self.tasks.items()},
        }
        (self.folder / FILE).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")

    def check(self, simulated: Simulated, tasks: Iterable[Task]) -> None:
        """Refuse what the calibration was not made for.

        Raises:
            InputError: for another model, other settings, or a task that it does not hold.
        """
        if simulated.model is None or simulated.model != self.simulated.model:
            raise InputError(f"{self.folder} was made for another model: {AGAIN}.")
        for name in DECISIVE:
            mine, theirs = self.simulated.settings.get(name), simulated.settings.get(name)
            if mine != theirs:
                raise InputError(f"{self.folder} was made with the `{name}` {mine}, not {theirs}: {AGAIN}.")
        for task in (task for task in tasks if not task.asks.numeric):
            known = self.tasks.get(task.name)
            if known is None:
                raise InputError(f"{self.folder} does not hold the task {task.name}: {AGAIN}.")
            made = Task.of(known.task)
            if (made.asks, made.cohort, made.event) != (task.asks, task.cohort, task.event):
                raise InputError(f"{self.folder} was made for another task of the name '{task.name}': {AGAIN}.")

    def known_to(self, settings: SimulateSettings) -> SimulateSettings:
        """The settings, where "auto" knows how much scores vary: the most over the tasks, unless it was said."""
        known = [one.spread.overdispersion for one in self.tasks.values()]
        if settings.estimator != "auto" or settings.overdispersion is not None or not known:
            return settings
        return replace(settings, overdispersion=max(known))

    def remark(self, rollouts: int) -> str:
        """What is to be said of risks from so many rollouts each; empty for nothing."""
        if rollouts == self.simulated.rollouts:
            return ""
        return (
            f"{self.folder} was fitted to risks of {self.simulated.rollouts} rollouts, and these are of {rollouts}. "
            f"Their noise differs, so recalibrated risks come out too timid or too extreme: {AGAIN}."
        )

    def spread(self, task: Task, estimator: str, rollouts: int) -> Spread | None:
        """How much scores vary, known before any is seen; None if they come from another estimator.

        The gain from first tokens that are spread evenly grows with the rollouts, so with fewer than were calibrated
        with none is assumed.
        """
        known = self.tasks.get(task.name)
        if known is None or known.estimator != estimator:
            return None
        enough = rollouts >= self.simulated.rollouts
        return known.spread if enough else Spread(known.spread.overdispersion)

    def recalibrated(self, task: Task, answers: pl.DataFrame) -> dict[str, pl.DataFrame]:
        """The recalibrated answers by model name; none if the task asks for a number.

        Args:
            answers: with `prediction`, `low`, `high` and `estimator`; what tells how they were sampled is left out.

        Raises:
            InputError: if the risks come from another estimator than the calibration's.
        """
        known = self.tasks.get(task.name)
        if task.asks.numeric or known is None:
            return {}
        for used in answers["estimator"].drop_nulls().unique():
            if used != known.estimator:
                raise InputError(
                    f"{self.folder} was made for {task.name} by the estimator {known.estimator}, not {used}: {AGAIN}."
                )
        rest = answers.drop(SAMPLED, strict=False)
        return {
            recalibrated_name(name): rest.with_columns(_mapped(answers, one))
            for name, one in known.maps.items()
        }


def _line(fields: dict[str, Any]) -> Logistic:
    return Logistic(**fields | {"credibility": Credibility(**fields["credibility"])})


def _of_all(models: Sequence[str | None]) -> str | None:
    known = sorted(model for model in models if model is not None)
    return " ".join(known) if len(known) == len(models) else None


def _mapped(answers: pl.DataFrame, recalibrator: Recalibrator) -> list[pl.Series]:
    """The columns of a risk and its interval, through a map that keeps their order."""
    return [
        pl.Series(name, recalibrator(answers[name].cast(pl.Float64).fill_null(float("nan")).to_numpy())).fill_nan(None)
        for name in ("prediction", "low", "high")
    ]
