"""From imagined futures to predictions for every patient of a cohort, beside those of the baselines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from sequela.errors import InputError
from sequela.progress import Progress, silent
from sequela.record.dataset import read_events
from sequela.record.questions import QUESTION
from sequela.rollout.folder import SimulatedFolder
from sequela.task.answers.estimate import estimate
from sequela.task.answers.incidence import LEVEL
from sequela.task.answers.prediction import SIMULATION, write_predictions
from sequela.task.baselines.features import Features, build_features
from sequela.task.label import labels
from sequela.task.task import Task
from sequela.tokens.maps.code_map import CodeMap
from sequela.tokens.maps.recode import recoded_events


def predict(
    simulated: Path,
    meds: Path,
    out: Path,
    tasks: list[Task],
    *,
    estimator: str = "scope",
    first: int | None = None,
    baselines: bool = True,
    seed: int = 0,
    level: float = LEVEL,
    progress: Progress = silent,
) -> dict[str, dict[str, object]]:
    """Answer `tasks` from imagined futures, and by the baselines, in `out/<task>/<model>.parquet`.

    Args:
        simulated: a folder of imagined timelines. Who was simulated at a task's prediction time is its cohort. All that
            is read from `meds` is translated by the code maps in it: truth and imagination speak the same codes.
        meds: the MEDS dataset with the truth, and with the training patients that baselines learn from.
        estimator: "scope" (mean of summed hazards) or "mc" (share of rollouts with the outcome); arXiv 2602.03730.
            Numbers take the median or mean of the rollouts in any case, tasks without hazards "mc" (see `estimate`).
        first: use only so many rollouts of each patient, the first by number; None for all.
        baselines: fit and write the baselines too.
        seed: of the trees.
        level: of the interval `low` to `high` beside each predicted number.

    Returns:
        By task: `patients`, `undecidable` (lost before the answer is known), `without` (followed, but without a number
        to score), `unpredicted` (no decidable rollout, or a median beyond all of them), `rollouts`,
        `undecidable_rollouts`, the `estimator` that was used, and the names of the `models` written.

    Raises:
        InputError: where the folder holds no rollouts for a task, or those of edited histories.
    """
    folder = SimulatedFolder(Path(simulated))
    rollouts, maps = folder.rollouts(), folder.maps()
    if folder.edits():
        raise InputError(
            f"{folder} holds futures of edited histories, which cannot be held against what happened: simulate the "
            "histories as recorded."
        )
    if first is not None:
        rollouts = _first(rollouts, first, folder)
    events = recoded_events(read_events(meds, patients=rollouts["subject_id"].unique()), maps)
    truths = {task.name: _truth(task, events, rollouts, folder) for task in tasks}
    training = _Training.read(meds, events, maps, tasks, truths) if baselines else None
    report = {}
    for done, task in enumerate(tasks):
        progress(done, len(tasks), task=task.name)
        truth = truths[task.name]
        estimates = estimate(task, folder, rollouts.join(truth, on=QUESTION, how="semi"), estimator, level)
        answers = {SIMULATION: truth.join(estimates, on=QUESTION, how="left", maintain_order="left")}
        if training is not None:
            answers |= training.answers(task, truth, seed)
        for model, answer in answers.items():
            write_predictions(answer, task.kind, Path(out) / task.name / f"{model}.parquet")
        report[task.name] = _account(answers)
    progress(len(tasks), len(tasks))
    return report


def _first(rollouts: pl.DataFrame, count: int, folder: SimulatedFolder) -> pl.DataFrame:
    there = rollouts["rollout"].n_unique()
    if not 1 <= count <= there:
        raise InputError(f"{folder} has {there} rollouts a patient, not {count}: ask for 1 to {there}.")
    return rollouts.filter(pl.col("rollout") < count)


def _truth(task: Task, events: pl.DataFrame, rollouts: pl.DataFrame, folder: SimulatedFolder) -> pl.DataFrame:
    """`subject_id`, `prediction_time` and the answers by `labels` of the patients who were simulated for this task."""
    questions = folder.questions(task.name)
    if questions is None:
        questions = task.prediction_times(events)
    asked = questions.join(rollouts, on=QUESTION, how="semi", maintain_order="left")
    if asked.is_empty():
        raise InputError(
            f"{folder} has no rollouts at the prediction times of '{task.name}': "
            f"simulate the task {task.name}, from the same MEDS dataset."
        )
    return labels(task, events, asked)


@dataclass(frozen=True, eq=False)
class _Training:
    """What baselines learn from: the features of all patients, and the training patients' answers by task."""

    features: Features
    labelled: dict[str, pl.DataFrame]

    @classmethod
    def read(
        cls,
        meds: Path,
        events: pl.DataFrame,
        maps: tuple[CodeMap, ...],
        tasks: list[Task],
        truths: dict[str, pl.DataFrame],
    ) -> _Training:
        own = recoded_events(read_events(meds, "train"), maps)
        patients = own["subject_id"].unique()
        asked = pl.concat([truth.select(QUESTION) for truth in truths.values()]).unique()
        both = asked.filter(pl.col("subject_id").is_in(patients.implode()))
        if both.height:
            raise InputError(
                f"{meds}: patient {both['subject_id'].min()} was simulated and is in the split 'train', which the "
                f"baselines learn from ({both.height} such rows): simulate another split, or leave the baselines out."
            )
        labelled = {task.name: labels(task, own, task.prediction_times(own)) for task in tasks}
        times = pl.concat([asked, *(frame.select(QUESTION) for frame in labelled.values())]).unique()
        every = pl.concat([own, events], how="diagonal").sort("subject_id", maintain_order=True)
        return cls(build_features(every, times.sort(QUESTION), patients), labelled)

    def answers(self, task: Task, truth: pl.DataFrame, seed: int) -> dict[str, pl.DataFrame]:
        """`truth` with the `prediction` of each baseline, by its name."""
        # Imported here: who only asks for simulations is spared scikit-learn, which takes seconds to load
        from sequela.task.baselines.baseline import Sample, fit_baselines

        labelled = self.labelled[task.name]
        outcome = labelled["label"].fill_null(np.nan).to_numpy()
        lost = (labelled["decided"] == "censored").to_numpy()
        train = Sample(self.features.of(labelled), outcome, labelled["until_days"].to_numpy(), lost)
        values = self.features.of(truth)
        models = fit_baselines(task, train, seed)
        return {
            name: truth.with_columns(prediction=pl.Series(model(values))) for name, model in models.items()
        }


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
