"""Scores with intervals: every model of a task on the same questions and the same resamples."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from threadpoolctl import threadpool_limits

from sequela.errors import InputError
from sequela.files import files_below
from sequela.record.questions import QUESTION
from sequela.task.answers.prediction import SIMULATION, read_predictions
from sequela.task.kinds import KINDS, Kind
from sequela.task.scoring.bootstrap import RESAMPLES, Estimate, interval, resamples
from sequela.task.scoring.censoring import censoring_weights
from sequela.task.scoring.verdict import verdict

Key = tuple[str, str]
"""A model and a metric."""
OBSERVED: Key = ("", "observed")


@dataclass(frozen=True, eq=False)
class SharedAnswers:
    """The questions that all models answered, and the answers.

    Attributes:
        kind: of the task.
        patient: int64 [N].
        outcome: float64 [N], NaN if there is none to score.
        until_days: float64 [N].
        lost: bool [N], whether the record ends before the outcome is known; others without one never had any.
        predictions: by model, float64 [N].
    """

    kind: Kind
    patient: np.ndarray
    outcome: np.ndarray
    until_days: np.ndarray
    lost: np.ndarray
    predictions: dict[str, np.ndarray]


def evaluate(
    predictions: Path | list[Path], out: Path, seed: int = 0, resample_count: int = RESAMPLES
) -> dict[str, dict]:
    """Score every model of every task in the folders `predictions`; write `out/metrics.json` and return what it holds.

    By task: `kind`; `n` questions, `positives`, `decidable` (label known), `undecidable` (censored), `without` (not
    censored, but there is no number to score: the outcome did not come in time, or without a value); `evaluated`, those
    that every model answered; `unpredicted` by model; `rollouts` by simulating model; `observed`, the incidence (or
    mean number) corrected for censoring; `models`: each metric as `value`, `low`, `high` (percentile bootstrap by
    patient), empty if it is not defined; `difference`: simulation minus each other model in the headline metric, on the
    same resamples; `verdict`: that in words.

    Raises:
        InputError: if there are no predictions, or the files of a task contradict each other.
    """
    given = [predictions] if isinstance(predictions, str | Path) else predictions
    folders = [Path(folder) for folder in given]
    tasks = {name: _task(name, files, seed, resample_count) for name, files in _files(folders).items()}
    metrics = {"tasks": tasks}
    Path(out).mkdir(parents=True, exist_ok=True)
    (Path(out) / "metrics.json").write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return metrics


def _tables(folder: Path) -> list[Path]:
    """The files TASK/MODEL.parquet of a folder."""
    return [path for path in files_below(folder, ".parquet") if path.parent.parent == folder]


def _files(folders: list[Path]) -> dict[str, dict[str, Path]]:
    """The files by task and model, the simulation first."""
    files: dict[str, dict[str, Path]] = {}
    for path in (path for folder in folders for path in _tables(folder)):
        models = files.setdefault(path.parent.name, {})
        if path.stem in models:
            raise InputError(
                f"{path} and {models[path.stem]} are the same model of the same task: rename one of the files."
            )
        models[path.stem] = path
    if not files:
        raise InputError(
            f"{folders[0]} has no TASK/MODEL.parquet: give a folder that `sequela predict` wrote."
        )
    return {
        task: {model: models[model] for model in sorted(models, key=lambda name: (name != SIMULATION, name))}
        for task, models in sorted(files.items())
    }


def _task(name: str, files: dict[str, Path], seed: int, resample_count: int) -> dict[str, object]:
    read = {model: read_predictions(path) for model, path in files.items()}
    kinds = {kind for kind, _ in read.values()}
    if len(kinds) > 1:
        raise InputError(
            f"{files[min(files)].parent}: there are files of the kinds {', '.join(sorted(kinds))}; keep one kind."
        )
    kind = KINDS[kinds.pop()]
    answers = {model: frame for model, (_, frame) in read.items()}
    truth = _truth(answers, files)
    cohort = _cohort(kind, truth, answers, files)
    points, draws = _measure_all(cohort, seed, resample_count)
    estimates = {key: interval(points[key], draws[key]) for key in points}
    nothing = Estimate(np.nan, np.nan, np.nan)
    names = [metric.name for metric in kind.metrics]
    models = {model: {name: estimates.get((model, name), nothing) for name in names} for model in answers}
    difference = _differences(points, draws, kind.headline.name)
    unpredicted = {model: truth.height - frame["prediction"].count() for model, frame in answers.items()}
    return {
        "kind": kind.name,
        "n": truth.height,
        "positives": int((truth["label"] == 1).sum()) if not kind.numeric else None,
        "decidable": truth["label"].count(),
        "undecidable": int(truth["lost"].sum()),
        "without": truth.filter(pl.col("label").is_null() & ~pl.col("lost")).height,
        "evaluated": len(cohort.patient),
        "unpredicted": unpredicted,
        "rollouts": {
            model: _rollouts(frame) for model, frame in answers.items() if frame["rollouts"].count()
        },
        "observed": estimates.get(OBSERVED, nothing).as_dict(),
        "models": {model: {key: x.as_dict() for key, x in scores.items()} for model, scores in models.items()},
        "difference": {model: x.as_dict() for model, x in difference.items()},
        "verdict": verdict(kind.name, models, difference, unpredicted.get(SIMULATION, 0)),
    }


def _truth(answers: dict[str, pl.DataFrame], files: dict[str, Path]) -> pl.DataFrame:
    """The questions that any model was asked, with `label`, `until_days`, `lost`; all files must agree on them."""
    columns = (*QUESTION, "label", "until_days", "lost")
    every = pl.concat(
        frame.select(*columns, file=pl.lit(str(files[model]))) for model, frame in answers.items()
    )
    unlike = pl.struct("label", "until_days", "lost").n_unique() > 1
    torn = (
        every.group_by(QUESTION)
        .agg(pl.col("file").unique().sort(), unlike=unlike)
        .filter("unlike")
        .sort(QUESTION)
    )
    if torn.height:
        patient, _, paths, _ = torn.row(0)
        raise InputError(
            f"{' and '.join(paths[:2])} disagree about the truth of patient {patient} ({torn.height} such questions): "
            "predict again from one MEDS dataset."
        )
    return every.unique(QUESTION).drop("file").sort(QUESTION)


def _cohort(
    kind: Kind, truth: pl.DataFrame, answers: dict[str, pl.DataFrame], files: dict[str, Path]
) -> SharedAnswers:
    """The questions that every model answered, of the models that answered any."""
    common = truth
    for model, frame in answers.items():
        answered = frame.select(*QUESTION, pl.col("prediction").alias(model)).drop_nulls(model)
        if answered.height:
            common = common.join(answered, on=QUESTION, maintain_order="left")
    if common.is_empty():
        folder = files[min(files)].parent
        raise InputError(f"{folder}: no patient is predicted by all of {', '.join(files)}; score them separately.")
    return SharedAnswers(
        kind,
        common["subject_id"].to_numpy(),
        common["label"].fill_null(np.nan).to_numpy(),
        common["until_days"].to_numpy(),
        common["lost"].to_numpy(),
        {model: common[model].to_numpy() for model in answers if model in common.columns},
    )


# many small products: threads would spend more time waiting for each other than working
@threadpool_limits.wrap(limits=1)
def _measure_all(
    cohort: SharedAnswers, seed: int, resample_count: int
) -> tuple[dict[Key, float], dict[Key, np.ndarray]]:
    """Every metric of every model: on the patients as they are, and on each of R resamples of them."""
    if np.isnan(cohort.outcome).all():
        return {}, {}
    points = _measure(cohort, np.ones(len(cohort.patient)))
    batches = [_measure(cohort, copies) for copies in resamples(cohort.patient, resample_count, seed)]
    draws = {key: np.concatenate([batch[key] for batch in batches]) for key in points}
    return {key: float(value) for key, value in points.items()}, draws


def _measure(cohort: SharedAnswers, copies: np.ndarray) -> dict[Key, np.ndarray]:
    """The metrics when each patient counts `copies` times, [N] or [N, R]; the weights are estimated on those copies."""
    decided = ~np.isnan(cohort.outcome)
    weights = censoring_weights(cohort.until_days, ~cohort.lost, copies)
    weights[~decided] = 0
    outcome, known = np.nan_to_num(cohort.outcome), weights[decided]
    measured = {OBSERVED: outcome @ weights / weights.sum(axis=0)}
    for model, prediction in cohort.predictions.items():
        for metric in cohort.kind.metrics:
            measured[model, metric.name] = (
                metric.measure(outcome, prediction, weights, copies)
                if metric.whole_cohort
                else metric.measure(outcome[decided], prediction[decided], known)
            )
    return measured


def _differences(points: dict[Key, float], draws: dict[Key, np.ndarray], name: str) -> dict[str, Estimate]:
    """Simulation minus each other model in the metric `name`, with the interval of the paired difference."""
    if (SIMULATION, name) not in points:
        return {}
    others = [model for model, key in points if key == name and model != SIMULATION]
    return {
        model: interval(
            points[SIMULATION, name] - points[model, name], draws[SIMULATION, name] - draws[model, name]
        )
        for model in others
    }


def _rollouts(answers: pl.DataFrame) -> dict[str, float | None]:
    """How many rollouts a simulation's predictions come from, and their mean sampling error."""
    return {
        "decidable": int(answers["rollouts"].sum()),
        "undecidable": int(answers["undecidable_rollouts"].sum()),
        "mean_standard_error": answers["standard_error"].mean(),
    }
