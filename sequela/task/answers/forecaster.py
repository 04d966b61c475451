"""The forecaster: from a patient's events to a risk, in memory, from any number of threads.

    forecaster = Forecaster.load("model/", rollouts=10)
    forecaster.risk(events, questions, "death_5y")     # one row per question: risk, standard error, interval

No file is written. Calls from several threads share one decoding batch, and each gets the answer that it would get
alone: a rollout depends on the model, its history and its seed only. The questions of one call share what their scores
say of how much scores vary, so `low` and `high` depend on which questions a call asks. `sequela simulate` and `sequela
predict` compute the same numbers by the same functions, for cohorts and on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from sequela.errors import InputError
from sequela.keywords import changed
from sequela.record.events import Events
from sequela.record.questions import QUESTION, questions_of
from sequela.record.timeline import Timeline
from sequela.record.validate import checked_events
from sequela.rollout.budget import FixedBudget, RolloutBudget
from sequela.rollout.engine.shared import SharedDecoding
from sequela.rollout.forecast import (
    Forecast,
    LoadedModel,
    forecast,
    knows_last_moments,
    load_words,
    make_engine,
)
from sequela.rollout.pools import adaptive_budget
from sequela.rollout.settings import HEAD, RULES, SimulateSettings
from sequela.rollout.values.control import latest
from sequela.task.answers.calibration import Calibration, Simulated
from sequela.task.answers.estimate import estimate
from sequela.task.answers.head import ReadStates
from sequela.task.answers.incidence import LEVEL
from sequela.task.catalog import load_task
from sequela.task.cohort import of_the_living
from sequela.task.requests import request
from sequela.task.task import Task

FIXED = ("precision", "well_formed", "engine")  # settings of the loaded model


@dataclass(frozen=True, eq=False)
class ForecastSimulation:
    """The rollouts of a forecast, as `estimate` reads them."""

    result: Forecast
    weights: RolloutBudget

    def __str__(self) -> str:
        return "the forecast"

    def rollouts(self) -> pl.DataFrame:
        """See `sequela.task.answers.estimate.Simulation`."""
        return self.result.rollouts()

    def events(self, columns: Sequence[str] | None = None, where: pl.Expr | None = None) -> pl.DataFrame:
        """See `sequela.task.answers.estimate.Simulation`."""
        events = self.result.events()
        chosen = events if columns is None else events.select(columns)
        return chosen if where is None else chosen.filter(where)

    def rules(self) -> int:
        """See `sequela.task.answers.estimate.Simulation`."""
        return RULES

    def budget(self) -> RolloutBudget:
        """See `sequela.task.answers.estimate.Simulation`."""
        return self.weights


@dataclass(frozen=True, eq=False)
class Forecasts:
    """What `Forecaster.forecast` returns.

    Attributes:
        answers: see `Forecaster.risk`.
        rollouts: one row per rollout (see `sequela.rollout.folder.SimulatedFolder.rollouts`).
        events: the simulated events: MEDS columns, `prediction_time` and `rollout`. With the estimator "reach" they are
            those of futures in which the outcome does not come.
    """

    answers: pl.DataFrame
    rollouts: pl.DataFrame
    events: pl.DataFrame


@dataclass(frozen=True)
class Calibrated:
    """A calibration, and the loaded model that it is used with."""

    calibration: Calibration
    loaded: Simulated

    def check(self, settings: SimulateSettings, tasks: list[Task]) -> None:
        """Refuse what it was not made for.

        Raises:
            InputError: see `Calibration.check`; also for another number of rollouts, whose noise is another.
        """
        self.calibration.check(replace(self.loaded, settings=asdict(settings)), tasks)
        if tasks and (remark := self.calibration.remark(settings.rollouts)):
            raise InputError(remark)


class Forecaster:
    """A loaded model that answers questions about patients. Thread-safe."""

    def __init__(self, model: LoadedModel, settings: SimulateSettings, calibrated: Calibrated | None = None):
        self.model, self.settings, self.calibrated = model, settings, calibrated

    @staticmethod
    def load(
        model: str | Path, *, calibration: str | Path | None = None, **settings: object
    ) -> Forecaster:
        """Load a checkpoint folder.

        Args:
            model: a folder of `sequela train`.
            calibration: a folder of `sequela calibrate`, for this model and the tasks that will be asked. Recalibrated
                risks then stand beside the others, and the intervals of few questions are as narrow as those of many.
            settings: fields of `SimulateSettings`, such as rollouts=10, estimator="reach"; the calls' defaults.

        Raises:
            InputError: if the folder holds no model that can simulate, there is no such setting, or the calibration is
                one of another model.
        """
        chosen = changed(SimulateSettings(), settings)
        if chosen.engine != SimulateSettings.engine:
            raise InputError(
                f"a forecaster decodes with the engine {SimulateSettings.engine}, not {chosen.engine}."
            )
        folder = Path(model)
        tokenizer, grammar, window = load_words(folder)
        engine = make_engine(folder, chosen.precision, chosen.well_formed)
        loaded = LoadedModel(
            tokenizer, grammar, SharedDecoding(engine), window, folder, engine.device.type, knows_last_moments(folder)
        )
        calibrated = None
        if calibration is not None:
            calibrated = Calibrated(Calibration.load(Path(calibration)), Simulated.planned([folder], chosen))
            calibrated.check(chosen, [])
        return Forecaster(loaded, chosen, calibrated)

    def risk(
        self,
        events: pl.DataFrame | pl.LazyFrame | Events | Timeline,
        questions: pl.DataFrame,
        task: str | Path | Task,
        **settings: object,
    ) -> pl.DataFrame:
        """The answer to `task` for every question.

        Args:
            events: of the patients asked about: a MEDS frame, `Events`, or the `Timeline` of one patient. Only what
                happened strictly before a question's prediction time is used.
            questions: `subject_id`, `prediction_time`; all other columns are ignored.
            task: a name of the catalog, the path of a YAML file, or a `Task`. Its outcome is asked; its cohort is not.
            settings: fields of `SimulateSettings`, for this call. With estimator="head" nothing is simulated: the value
                head of the model reads the answer off each history (see `sequela.task.answers.head`).

        Returns:
            One row per distinct question, sorted: `subject_id`, `prediction_time`, `risk` (`prediction` if the task
            asks for a number; null without a history or an answer, and for the dead), `standard_error`, `low`, `high`,
            `rollouts`, `undecidable_rollouts`, `tokens`, `estimator` (see `sequela.task.answers.estimate.estimate`);
            of a calibrated forecaster also `risk_logistic` and `risk_isotonic`, where they could be fitted.

        Raises:
            InputError: for an unknown task or setting, malformed events or questions, an outcome without a token, or a
                task or setting that the calibration was not made for.
        """
        asked = task if isinstance(task, Task) else load_task(task)
        if changed(self.settings, settings).estimator == HEAD:
            return self._by_head(events, questions, asked)
        times, simulation, chosen = self._simulate(events, questions, asked, settings)
        return self._answers(asked, times, simulation, chosen)

    def forecast(
        self,
        events: pl.DataFrame | pl.LazyFrame | Events | Timeline,
        questions: pl.DataFrame,
        task: str | Path | Task,
        **settings: object,
    ) -> Forecasts:
        """The answers of `risk`, with the rollouts and simulated events behind them. Arguments as for `risk`."""
        asked = task if isinstance(task, Task) else load_task(task)
        times, simulation, chosen = self._simulate(events, questions, asked, settings)
        result = simulation.result
        futures = pl.concat([result.events(pool.avoids) for pool in result.pools])
        return Forecasts(self._answers(asked, times, simulation, chosen), result.rollouts(), futures)

    def _simulate(
        self,
        events: pl.DataFrame | pl.LazyFrame | Events | Timeline,
        questions: pl.DataFrame,
        task: Task,
        settings: dict[str, object],
    ) -> tuple[pl.DataFrame, ForecastSimulation, SimulateSettings]:
        for name in FIXED:
            if name in settings:
                raise InputError(f"{name} is fixed when a model is loaded: give it to Forecaster.load.")
        chosen = changed(self.settings, settings)
        if self.calibrated is not None:
            self.calibrated.check(chosen, [task])
            chosen = self.calibrated.calibration.known_to(chosen)
        times, histories = _asked(events, questions)
        asked = request(task, of_the_living(times, histories))
        result = forecast(self.model, histories, [asked], chosen)
        weights = adaptive_budget(chosen, [asked]) or FixedBudget(chosen.rollouts)
        return times, ForecastSimulation(result, weights), chosen

    def _answers(
        self, task: Task, times: pl.DataFrame, simulation: ForecastSimulation, settings: SimulateSettings
    ) -> pl.DataFrame:
        calibration = None if self.calibrated is None else self.calibrated.calibration
        answered = estimate(
            task, simulation, simulation.rollouts(), settings.estimator, calibration=calibration
        )
        if calibration is not None:
            for name, one in calibration.recalibrated(task, answered).items():
                answered = answered.with_columns(one["prediction"].alias(f"risk_{name.rpartition('_')[2]}"))
        return self._named(task, times, answered)

    def _by_head(
        self, events: pl.DataFrame | pl.LazyFrame | Events | Timeline, questions: pl.DataFrame, task: Task
    ) -> pl.DataFrame:
        if self.calibrated is not None:
            raise InputError(
                "a calibration is one of simulated risks, and the estimator head simulates none: load the model "
                "without `calibration`, or choose the estimator it was made for."
            )
        times, histories = _asked(events, questions)
        head = latest(self.model.folder, self.settings.precision)
        read = ReadStates.of(head, histories, of_the_living(times, histories))
        return self._named(task, times, read.answers(task, times, LEVEL))

    @staticmethod
    def _named(task: Task, times: pl.DataFrame, answered: pl.DataFrame) -> pl.DataFrame:
        name = "prediction" if task.asks.numeric else "risk"
        return times.join(answered, on=QUESTION, how="left", maintain_order="left").rename({"prediction": name})

    def close(self) -> None:
        """Stop decoding; calls that still wait raise an InputError. Called, too, when the forecaster is forgotten."""
        self.model.extender.close()

    def __enter__(self) -> Forecaster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _asked(
    events: pl.DataFrame | pl.LazyFrame | Events | Timeline, questions: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The questions, each once and sorted, and the events of their patients."""
    times = questions_of(questions, "questions")
    if times.is_empty():
        raise InputError("there are no questions: give at least one row of subject_id and prediction_time.")
    return times, _frame(events).filter(pl.col("subject_id").is_in(times["subject_id"].unique().implode()))


def _frame(events: pl.DataFrame | pl.LazyFrame | Events | Timeline) -> pl.DataFrame:
    """As a MEDS frame, sorted by patient and time, static events first."""
    if isinstance(events, Events):
        return events.frame()
    if isinstance(events, Timeline):
        return _of_timeline(events).frame()
    if isinstance(events, pl.DataFrame | pl.LazyFrame):
        return checked_events(events, "events")
    raise InputError(f"events are a {type(events).__name__}: give a MEDS frame, Events or a Timeline.")


def _of_timeline(timeline: Timeline) -> Events:
    names, code = np.unique(timeline.code.astype(str), return_inverse=True)
    patient = np.full(len(timeline), timeline.patient, np.int64)
    return Events(patient, timeline.time, code.astype(np.int32), timeline.number, tuple(names.tolist()))
