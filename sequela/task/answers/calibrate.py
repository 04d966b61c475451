"""From a simulation of tuning patients to a calibration (see `sequela.task.answers.calibration`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from sequela.errors import InputError
from sequela.progress import Progress, silent
from sequela.record.questions import QUESTION
from sequela.rollout.folder import SimulatedFolder
from sequela.rollout.spread import Spread, spread_of
from sequela.task.answers.calibration import Calibration, Simulated, TaskCalibration
from sequela.task.answers.estimate import scores
from sequela.task.answers.predict import PredictSettings, predict
from sequela.task.answers.prediction import SIMULATION, read_predictions
from sequela.task.answers.statistic import estimates_of
from sequela.task.scoring.censoring import censoring_weights
from sequela.task.scoring.recalibration import FEWEST, SOUND, Credibility, enough, fit_isotonic, fit_logistic
from sequela.task.scoring.slope import CLIP
from sequela.task.task import Task


def calibrate(
    simulated: Path | Sequence[Path],
    meds: Path,
    out: Path,
    tasks: list[Task],
    estimator: str = "scope",
    progress: Progress = silent,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, object]:
    """Write the predictions of `tasks` for the patients of `simulated`, and the calibration that follows, into `out`.

    Args:
        simulated: a simulated folder, of patients who trained nothing and are not predicted later; or one for each of
            several training seeds, whose mean is calibrated.
        meds: the MEDS dataset with what happened to them.
        progress: counts tasks.
        say: hears which tasks had too few known answers to fit a map.

    Returns:
        By task: `questions` and `events` with a known answer, `overdispersion`, `effect`, and the names of the `maps`.

    Raises:
        InputError: if no task asks for a risk, or the folder does not say which model made it.
    """
    paths = [simulated] if isinstance(simulated, str | Path) else simulated
    folders = [SimulatedFolder(Path(path)) for path in paths]
    made = Simulated.of(folders)
    risks = [task for task in tasks if not task.asks.numeric]
    if not risks:
        raise InputError("no task asks for a risk, and numbers are not recalibrated: name another task.")
    if made.model is None:
        raise InputError(f"{folders[0]} is of an earlier version and does not say which model made it: simulate again.")
    predict(simulated, meds, out, risks, PredictSettings(estimator, baselines=False), progress, say)
    rollouts = [folder.rollouts() for folder in folders]
    learned = {}
    for task in risks:
        _, answers = read_predictions(Path(out) / task.name / f"{SIMULATION}.parquet")
        spreads = []
        for folder, table in zip(folders, rollouts, strict=True):
            scored, used = scores(task, folder, table.join(answers, on=QUESTION, how="semi"), estimator)
            spreads.append(spread_of(estimates_of(scored, folder.budget()).estimates, used))
        floor = 1 / (2 * made.rollouts + 2) if used == "mc" else CLIP  # a share of 0 votes is not a logit of -14
        learned[task.name] = _learned(task, used, mean_spread(spreads), answers, floor, say)
    Calibration(Path(out), made, learned).save()
    return {name: _account(of_task) for name, of_task in learned.items()}


def _learned(
    task: Task,
    estimator: str,
    spread: Spread,
    answers: pl.DataFrame,
    floor: float,
    say: Callable[[str], None],
) -> TaskCalibration:
    outcome, risk, weights = known_risks(answers)
    events, fits = int(outcome.sum()), enough(outcome)
    if not fits:
        say(
            f"{task.name}: {events} of {len(outcome)} known answers are cases. A map needs {FEWEST} of each kind, so "
            "these risks will not be recalibrated."
        )
    return TaskCalibration(
        task.as_dict(),
        estimator,
        spread,
        len(outcome),
        events,
        fit_logistic(outcome, risk, weights, floor, SOUND, credibility(answers, spread)) if fits else None,
        fit_isotonic(outcome, risk, weights) if fits else None,
    )


def mean_spread(spreads: Sequence[Spread]) -> Spread:
    """Of models that differ by their training seed alone."""
    return Spread(*(float(np.mean([getattr(one, name) for one in spreads])) for name in ("overdispersion", "effect")))


def credibility(answers: pl.DataFrame, spread: Spread) -> Credibility:
    """Of predicted risks with a `standard_error` as if their rollouts were independent; `spread` knows better."""
    errors = answers["standard_error"].drop_nulls().cast(pl.Float64).to_numpy()
    noise = spread.effect * float(np.mean(errors**2)) if len(errors) else float("nan")
    return Credibility.of(answers["prediction"].drop_nulls().cast(pl.Float64).to_numpy(), noise)


def known_risks(answers: pl.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outcome, risk and weight of the answers that are known and predicted, each float64 [N].

    Args:
        answers: as from `read_predictions`; those who are predicted stand for those of them who were lost.
    """
    predicted = answers.filter(pl.col("prediction").is_not_null())
    followed = (~predicted["lost"]).to_numpy()
    weights = censoring_weights(predicted["until_days"].to_numpy(), followed, np.ones(len(predicted)))
    outcome = predicted["label"].fill_null(np.nan).to_numpy()
    known = ~np.isnan(outcome)
    return outcome[known], predicted["prediction"].to_numpy()[known], weights[known]


def _account(calibration: TaskCalibration) -> dict[str, object]:
    return {
        "questions": calibration.questions,
        "events": calibration.events,
        "overdispersion": calibration.spread.overdispersion,
        "effect": calibration.spread.effect,
        "maps": list(calibration.maps),
    }
