"""From simulated folders, or the value heads of checkpoints, to predictions for every question of a cohort, beside
those of the baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from sequela.errors import InputError
from sequela.progress import Progress, silent
from sequela.record.dataset import read_events
from sequela.record.questions import QUESTION
from sequela.rollout.folder import SimulatedFolder
from sequela.rollout.request import Request
from sequela.rollout.settings import HEAD
from sequela.task.answers.average import averaged
from sequela.task.answers.calibration import Calibration, Simulated
from sequela.task.answers.estimate import estimate
from sequela.task.answers.head import ReadStates, same_codes
from sequela.task.answers.incidence import LEVEL
from sequela.task.answers.prediction import BY_HEAD, SIMULATION, seed_name, write_predictions
from sequela.task.baselines.rivals import Cohorts, Rivals
from sequela.task.label import labels
from sequela.task.task import Task
from sequela.tokens.ehr.tokenizer import EhrTokenizer
from sequela.tokens.maps.code_map import CodeMap
from sequela.tokens.maps.recode import recoded_events
from sequela.tokens.tokenizer import load


@dataclass(frozen=True)
class PredictSettings:
    """How simulated futures become predictions.

    Attributes:
        estimator: "scope", "cv", "mc", "reach" or "auto" (see `estimate`). Numbers take the median or mean of the
            rollouts in any case, and tasks without hazards "mc".
        first: use only so many rollouts of each question, the first by number; None for all.
        baselines: fit and write the baselines too.
        seed: of the baselines.
        level: of the interval `low` to `high` of a predicted number.
        calibration: from tuning patients; its recalibrated risks are written beside the raw ones.
        strong: fit the strong baselines among them as well, which take longer.
        model: the folder of the model that simulated, for its value head, and the baseline that reads its tokens; None
            to leave both out.
    """

    estimator: str = "scope"
    first: int | None = None
    baselines: bool = True
    seed: int = 0
    level: float = LEVEL
    calibration: Calibration | None = None
    strong: bool = True
    model: Path | None = None


def predict(
    simulated: Path | Sequence[Path],
    meds: Path,
    out: Path,
    tasks: list[Task],
    settings: PredictSettings = PredictSettings(),
    progress: Progress = silent,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, dict[str, object]]:
    """Answer `tasks` from simulated futures, and by the baselines, in `out/<task>/<model>.parquet`.

    Args:
        simulated: a simulated folder, or one for each of several training seeds: then their mean is the simulation's
            answer (see `averaged`), and that of each is written beside it, as the model `seed_name`. Beside one whose
            model has a value head stand the answers of that, as the model `BY_HEAD`. A task's cohort is the patients
            simulated for it. Everything read from `meds` is translated by the folder's code maps, so that
            truth and simulation use the same codes.
        meds: the MEDS dataset with the true answers and with the training patients, to whom baselines are fitted.
        progress: counts tasks.
        say: hears which baselines are left out and why, if they know the sex of hardly anybody, which tasks the value
            head cannot answer, and if the calibration is one of other rollouts.

    Returns:
        By task: `patients` (questions), `undecidable` (censored), `without` (followed, but without a number to score),
        `unpredicted` (no rollout gave an answer, or the median is beyond all of them), `rollouts`,
        `undecidable_rollouts`, the `estimator` that was used, and the names of the `models` written.

    Raises:
        InputError: if the folder holds no rollouts for a task, or those of edited histories, or the calibration is one
            of another model, task or setting.
    """
    paths = [simulated] if isinstance(simulated, str | Path) else simulated
    futures = [_Futures.read(Path(path), settings.first) for path in paths]
    folder, rollouts = futures[0].folder, futures[0].rollouts
    maps = folder.maps()
    calibration = settings.calibration
    if calibration is not None:
        made = Simulated.of([one.folder for one in futures], settings.first)
        calibration.check(made, tasks)
        if remark := calibration.remark(made.rollouts):
            say(remark)
    recorded = read_events(meds, patients=rollouts["subject_id"].unique())
    events = recoded_events(recorded, maps)
    truths = {task.name: futures[0].truth(task, events) for task in tasks}
    for other in futures[1:]:
        other.check_same(futures[0], truths, events, tasks)
    rivals = _rivals(meds, recorded, maps, tasks, truths, settings, _each_once(say)) if settings.baselines else None
    head = _beside(settings.model, recorded, truths) if len(futures) == 1 else None

    def answered(task: Task) -> dict[str, pl.DataFrame]:
        truth = truths[task.name]
        answers = {name: _onto(truth, one) for name, one in _estimates(task, truth, futures, settings).items()}
        if calibration is not None:
            answers |= calibration.recalibrated(task, answers[SIMULATION])
        if head is not None:
            try:
                answers[BY_HEAD] = _onto(truth, head.answers(task, truth, settings.level))
            except InputError as error:
                say(str(error))
        return answers

    return _written(tasks, truths, answered, rivals, out, progress)


def predict_by_head(
    models: Sequence[Path],
    meds: Path,
    out: Path,
    tasks: list[Task],
    asked: Sequence[Request],
    settings: PredictSettings = PredictSettings(HEAD),
    progress: Progress = silent,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, dict[str, object]]:
    """The same from the value heads of checkpoints (see `sequela.task.answers.head`), without rollouts.

    Args:
        models: a checkpoint, or one for each of several training seeds, whose answers are averaged.
        asked: who is asked about each task.

    Raises:
        InputError: if a model has no value head, or it cannot answer a task.
    """
    from sequela.rollout.values.head import ValueHead  # brings torch along

    heads = [ValueHead.load(model) for model in models]
    same_codes(heads)
    maps = heads[0].embedder.tokenizer.maps
    questions = pl.concat(one.times.select(QUESTION) for one in asked)
    recorded = read_events(meds, patients=questions["subject_id"].unique())
    events = recoded_events(recorded, maps)
    times = {one.name: one.times for one in asked}
    truths = {task.name: labels(task, events, times[task.name]) for task in tasks}
    read = [ReadStates.of(head, recorded, questions) for head in heads]
    answers = {
        task.name: _together(task, [one.answers(task, truths[task.name], settings.level) for one in read], True)
        for task in tasks
    }
    rivals = _rivals(meds, recorded, maps, tasks, truths, settings, _each_once(say)) if settings.baselines else None

    def answered(task: Task) -> dict[str, pl.DataFrame]:
        return {name: _onto(truths[task.name], one) for name, one in answers[task.name].items()}

    return _written(tasks, truths, answered, rivals, out, progress)


def _onto(truth: pl.DataFrame, answers: pl.DataFrame) -> pl.DataFrame:
    return truth.join(answers, on=QUESTION, how="left", maintain_order="left")


def _beside(model: Path | None, recorded: pl.DataFrame, truths: dict[str, pl.DataFrame]) -> ReadStates | None:
    """What the value head of the model that simulated reads; None if it has none."""
    if model is None or _tokenizer(model) is None:
        return None
    from sequela.rollout.values.head import ValueHead  # brings torch along

    if not ValueHead.kept_in(model):
        return None
    questions = pl.concat(truth.select(QUESTION) for truth in truths.values())
    return ReadStates.of(ValueHead.load(model), recorded, questions)


def _written(
    tasks: list[Task],
    truths: dict[str, pl.DataFrame],
    answered: Callable[[Task], dict[str, pl.DataFrame]],
    rivals: Rivals | None,
    out: Path,
    progress: Progress,
) -> dict[str, dict[str, object]]:
    """Write what each model answers, and what `predict` returns of it."""
    report = {}
    for done, task in enumerate(tasks):
        progress(done, len(tasks), task=task.name)
        answers = answered(task)
        if rivals is not None:
            answers |= rivals.answers(task, truths[task.name])
        for model, answer in answers.items():
            write_predictions(answer, task.kind, Path(out) / task.name / f"{model}.parquet")
        report[task.name] = _account(answers)
    progress(len(tasks), len(tasks))
    return report


def _estimates(
    task: Task, truth: pl.DataFrame, futures: list[_Futures], settings: PredictSettings
) -> dict[str, pl.DataFrame]:
    """The answers of the simulation; of several training seeds their mean and, beside it, those of each."""
    each = [
        estimate(
            task,
            one.folder,
            one.rollouts.join(truth, on=QUESTION, how="semi"),
            settings.estimator,
            settings.level,
            settings.calibration,
        )
        for one in futures
    ]
    return _together(task, each, len({one.folder.seed() for one in futures}) == len(futures))


def _together(task: Task, each: list[pl.DataFrame], apart: bool) -> dict[str, pl.DataFrame]:
    """The answers of one model; or the mean of several (see `averaged`), and beside it those of each."""
    if len(each) == 1:
        return {SIMULATION: each[0]}
    mean = averaged(task.asks, each, apart=apart)
    return {SIMULATION: mean} | {seed_name(number): one for number, one in enumerate(each)}


@dataclass(frozen=True, eq=False)
class _Futures:
    """A simulated folder and those of its rollouts that are used."""

    folder: SimulatedFolder
    rollouts: pl.DataFrame

    @classmethod
    def read(cls, path: Path, first: int | None) -> _Futures:
        """`first`: so many rollouts of each question, the first by number; None for all."""
        folder = SimulatedFolder(path)
        rollouts = folder.rollouts()
        if folder.edits():
            raise InputError(
                f"{folder} holds futures of edited histories, which cannot be compared with what happened: simulate "
                "the histories as recorded."
            )
        if first is not None:
            simulated = rollouts["rollout"].n_unique()
            if not 1 <= first <= simulated:
                raise InputError(
                    f"{folder} has {simulated} rollouts a patient, not {first}: ask for 1 to {simulated}."
                )
            rollouts = rollouts.filter(pl.col("rollout") < first)
        return cls(folder, rollouts)

    def asked(self, task: Task, events: pl.DataFrame) -> pl.DataFrame:
        """The questions that were simulated for this task."""
        questions = self.folder.questions(task.name)
        if questions is None:
            questions = task.prediction_times(events)
        return questions.join(self.rollouts, on=QUESTION, how="semi", maintain_order="left")

    def truth(self, task: Task, events: pl.DataFrame) -> pl.DataFrame:
        """The same with their `labels`."""
        asked = self.asked(task, events)
        if asked.is_empty():
            raise InputError(
                f"{self.folder} has no rollouts at the prediction times of '{task.name}': "
                f"simulate the task {task.name}, from the same MEDS dataset."
            )
        return labels(task, events, asked)

    def check_same(
        self, first: _Futures, truths: dict[str, pl.DataFrame], events: pl.DataFrame, tasks: list[Task]
    ) -> None:
        """Refuse what cannot be averaged with `first`: other codes, or other questions than those of the `truths`."""
        if self.folder.maps() != first.folder.maps():
            raise InputError(
                f"{first.folder} and {self.folder} were simulated with other code maps, so their codes differ: "
                "train all models on one corpus."
            )
        for task in tasks:
            asked, mine = truths[task.name].select(QUESTION), self.asked(task, events)
            if not mine.sort(QUESTION).equals(asked.sort(QUESTION)):
                raise InputError(
                    f"{first.folder} and {self.folder} hold other questions of '{task.name}' ({asked.height} and "
                    f"{mine.height}): simulate all models for the same patients and times."
                )


def _rivals(
    meds: Path,
    recorded: pl.DataFrame,
    maps: tuple[CodeMap, ...],
    tasks: list[Task],
    truths: dict[str, pl.DataFrame],
    settings: PredictSettings,
    say: Callable[[str], None],
) -> Rivals:
    """The baselines; `recorded` holds the events of the patients who are predicted."""
    questions = pl.concat([truth.select(QUESTION) for truth in truths.values()]).unique()
    cohorts = Cohorts.read(meds, recorded, maps, tasks, settings.strong, say)
    return Rivals.of(cohorts, meds, questions, _tokenizer(settings.model), settings.seed, say)


def _tokenizer(model: Path | None) -> EhrTokenizer | None:
    """The tokenizer of a model; None if there is none, or it reads no health records."""
    tokenizer = None if model is None else load(model)
    return tokenizer if isinstance(tokenizer, EhrTokenizer) else None


def _each_once(say: Callable[[str], None]) -> Callable[[str], None]:
    heard: set[str] = set()

    def once(line: str) -> None:
        if line not in heard:
            heard.add(line)
            say(line)

    return once


def _account(answers: dict[str, pl.DataFrame]) -> dict[str, object]:
    simulated = answers[SIMULATION]
    lost = pl.col("decided") == "censored"
    return {
        "patients": simulated.height,
        "undecidable": simulated.filter(lost).height,
        "without": simulated.filter(pl.col("label").is_null() & ~lost).height,
        "unpredicted": simulated["prediction"].null_count(),
        "rollouts": int(simulated["rollouts"].sum()),
        "undecidable_rollouts": int(simulated["undecidable_rollouts"].sum()),
        "estimator": simulated["estimator"].drop_nulls()[0],
        "models": list(answers),
    }
