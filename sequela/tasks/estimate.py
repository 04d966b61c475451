"""One answer a question from its rollouts, with the error that sampling alone leaves in it."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from sequela.record.errors import InputError
from sequela.tasks.label import KEY, labels
from sequela.tasks.prediction import read_parquet
from sequela.tasks.task import Task, matches
from sequela.tokens.recode import load_same_maps
from sequela.tokens.translate import CodeMap

ESTIMATORS = ("scope", "mc")


def read_rollouts(folder: Path) -> pl.DataFrame:
    """One row a rollout, from a folder of imagined timelines.

    Raises:
        InputError: where the folder is none.
    """
    path = folder / "rollouts.parquet"
    rollouts = read_parquet(path, "one row a rollout, such as `sequela simulate` writes")
    for column in (*KEY, "end", "reason"):
        if column not in rollouts.columns:
            raise InputError(
                f"{path} has no column '{column}': make the folder again with `sequela simulate`."
            )
    return rollouts


def read_maps(folder: Path) -> tuple[CodeMap, ...]:
    """The code maps that lead to the codes of the imagined events in `folder`; none where it tells of none.

    What is compared with the imagined events must be translated by them first (`sequela.tokens.recode.recoded_events`).

    Raises:
        InputError: where a map is missing or was edited.
    """
    path = folder / "simulate.json"
    return load_same_maps(json.loads(path.read_text()).get("maps", {}), folder) if path.exists() else ()


def estimate(task: Task, folder: Path, rollouts: pl.DataFrame, estimator: str) -> pl.DataFrame:
    """The answers that imagined futures give to `task`.

    Binary tasks: "scope" is the mean over the rollouts of their summed hazards, at most 1, "mc" the share of rollouts
    with the outcome among those that decide it (arXiv 2602.03730). Tasks of kind "time": the median of the rollouts.

    Args:
        folder: where the rollouts and their events come from.
        rollouts: the rows of `read_rollouts` that belong to the cohort.

    Returns:
        One row a question: `subject_id`, `prediction_time`, `prediction` (null where no rollout is decidable),
        `standard_error`, `rollouts` (decidable ones), `undecidable_rollouts`.

    Raises:
        InputError: for an unknown estimator, or where the hazards of this task were not recorded.
    """
    if estimator not in ESTIMATORS:
        raise InputError(f"there is no estimator '{estimator}': choose one of {', '.join(ESTIMATORS)}.")
    answered = labels(task, _read_outcomes(folder, task), rollouts)
    if task.kind == "binary" and estimator == "scope":
        column = f"scope//{task.name}"
        if column not in rollouts.columns:
            raise InputError(
                f"{folder / 'rollouts.parquet'} has no column '{column}': simulate again with --task {task.name}, "
                "or predict with the estimator mc."
            )
        # A rollout that ran out of tokens before the question was settled has seen only a part of its hazard.
        whole = (pl.col("reason") != "limit") | pl.col("label").is_not_null()
        scored = answered.with_columns(score=pl.when(whole).then(pl.col(column)))
        return _summarise(scored, pl.col("score").mean().clip(0, 1), _error_of_mean())
    scored = answered.rename({"label": "score"})
    if task.kind == "binary":
        return _summarise(scored, pl.col("score").mean(), _error_of_mean())
    return _summarise(scored, _median(), _error_of_median())


def _read_outcomes(folder: Path, task: Task) -> pl.DataFrame:
    """The imagined events that decide `task`."""
    path = folder / "data" / "0.parquet"
    imagined = read_parquet(
        path, "imagined events, such as `sequela simulate` writes", [*KEY, "time", "code"]
    )
    return imagined.filter(matches(task.decided_by()))


def _summarise(scored: pl.DataFrame, prediction: pl.Expr, standard_error: pl.Expr) -> pl.DataFrame:
    known = pl.col("score").count()
    return scored.group_by(KEY[:2]).agg(
        prediction=prediction,
        standard_error=standard_error,
        rollouts=known,
        undecidable_rollouts=pl.len() - known,
    )


def _error_of_mean() -> pl.Expr:
    return pl.col("score").std() / pl.col("score").count().sqrt()


def _ordered() -> pl.Expr:
    """The rollouts' days, those still going on when they stopped as the longest of all.

    Dropping them instead would keep the short stays and shorten every prediction.
    """
    return pl.col("score").fill_null(float("inf")).sort()


def _median() -> pl.Expr:
    """The median; null where half of the rollouts stopped before the outcome."""
    middle = _ordered().median()
    return pl.when(middle.is_finite()).then(middle)


def _error_of_median() -> pl.Expr:
    """Half-width of the median's 95 % interval by order statistics, over 1.96 (McKean and Schrader 1984)."""
    count = pl.len()
    below = ((count + 1) / 2 - 1.96 * (count / 4).sqrt()).round().clip(1)
    lowest = _ordered().get(below.cast(pl.Int64) - 1)
    highest = _ordered().get((count - below).cast(pl.Int64))
    error = (highest - lowest) / (2 * 1.96)
    return pl.when(error.is_finite() & (count > 1)).then(error)
