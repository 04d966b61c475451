"""One answer a question from its rollouts, with the error that sampling alone leaves in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import polars as pl

from sequela.errors import InputError
from sequela.record.questions import QUESTION
from sequela.rollout import estimators
from sequela.rollout.budget import RolloutBudget
from sequela.rollout.folder import KEY, score_column
from sequela.rollout.settings import ESTIMATORS
from sequela.task.answers.incidence import LEVEL, order_statistics
from sequela.task.label import labels
from sequela.task.task import Task, matches


class Simulation(Protocol):
    """Rollouts with their events, from a folder or from memory."""

    def rollouts(self) -> pl.DataFrame:
        """One row per rollout (see `SimulatedFolder.rollouts`)."""
        ...

    def events(self, columns: Sequence[str] | None = None, where: pl.Expr | None = None) -> pl.DataFrame:
        """The simulated events of the futures that exclude no outcome."""
        ...

    def budget(self) -> RolloutBudget:
        """How many rollouts each question got, which decides how they are weighted."""
        ...


def estimate(
    task: Task, simulation: Simulation, rollouts: pl.DataFrame, estimator: str, level: float = LEVEL
) -> pl.DataFrame:
    """The answers that imagined futures give to `task`.

    Binary tasks: "scope" is the mean over the rollouts of their summed hazards, at most 1; "reach" that of the chance
    that the outcome came, over rollouts that avoid it; "mc" the share of rollouts with the outcome among those that
    decide it (arXiv 2602.03730); see `sequela.rollout.estimators`. "auto", and what there are no rollouts for,
    takes what there is; a task without hazards (`Task.has_hazard`) takes "mc" in any case: one simulation serves tasks
    of all sorts. Numbers: the median of the rollouts for "time" and "value", their mean for "count", which is the
    expected count. A rollout that is not known to have reached the outcome of kind "time", because it ended, passed the
    horizon or was cut off, counts as later than any other.

    Args:
        simulation: where the rollouts and their events come from.
        rollouts: the rows of `simulation.rollouts()` that belong to the cohort.
        level: for numbers, the share of the rollouts between `low` and `high`.

    Returns:
        One row a question: `subject_id`, `prediction_time`, `prediction` (null where no rollout is decidable, or where
        half of the rollouts do not reach the outcome of kind "time"), `standard_error`, `low` and `high` (for risks the
        95 % interval that sampling leaves open; for numbers see `level`, null where they are not reached), `rollouts`
        (decidable ones; for kind "value" those with a value), `undecidable_rollouts`, `tokens` sampled for them, and
        `estimator`, the one that was used: "scope", "mc", "reach", "median" or "mean".

    Raises:
        InputError: for an unknown estimator or level, or if the hazards of this task were not recorded.
    """
    _known(estimator)
    if task.has_hazard and estimator != "mc":
        return _summed_hazards(task, simulation, rollouts, estimator)
    answered = answers(task, simulation, _ordinary(task, simulation, rollouts))
    number = pl.col("label")
    if task.kind == "time":
        known, later = pl.col("decided") != "censored", number.fill_null(float("inf")).sort()
        return _summarise(
            answered, "median", _median(later), _error_of_median(later), known, _span(later, level)
        )
    if task.kind == "value":
        return _summarise(
            answered,
            "median",
            number.median(),
            _error_of_median(_sorted()),
            number.is_not_null(),
            _span(_sorted(), level),
        )
    known = number.is_not_null()
    if task.kind == "count":
        return _summarise(
            answered, "mean", number.mean(), _error_of_mean(number), known, _span(_sorted(), level)
        )
    return _risk(answered, number, "mc", simulation.budget())


def scores(task: Task, simulation: Simulation, rollouts: pl.DataFrame, estimator: str) -> tuple[pl.DataFrame, str]:
    """What each rollout says to `task`, by the estimator that `estimate` would use, and the name of that one.

    Args:
        simulation, rollouts, estimator: as for `estimate`.

    Returns:
        `KEY` and `score` (Float64): what is averaged or of which the median is taken. Null where the rollout decides
        nothing; infinite where it does not reach the outcome of kind "time".

    Raises:
        InputError: see `estimate`.
    """
    _known(estimator)
    if task.has_hazard and estimator != "mc":
        own, column, used = _pool(task, simulation, rollouts, estimator)
        return own.select(*KEY, score=pl.col(column).cast(pl.Float64)), used
    answered = answers(task, simulation, _ordinary(task, simulation, rollouts))
    label = pl.col("label").fill_null(float("inf")) if task.kind == "time" else pl.col("label")
    return answered.select(*KEY, score=label.cast(pl.Float64)), {"binary": "mc", "count": "mean"}.get(
        task.kind, "median"
    )


def _ordinary(task: Task, simulation: Simulation, rollouts: pl.DataFrame) -> pl.DataFrame:
    """The rollouts that avoid nothing."""
    own = rollouts.filter(pl.col("avoids").is_null())
    if own.is_empty() and not rollouts.is_empty():
        raise InputError(
            f"{simulation} holds only futures without the outcome of '{task.name}', whose events do not show how often "
            "it comes: predict with the estimator reach, or simulate with the estimator mc."
        )
    return own


def _known(estimator: str) -> None:
    if estimator not in ESTIMATORS:
        raise InputError(f"there is no estimator '{estimator}': choose one of {', '.join(ESTIMATORS)}.")


def _summed_hazards(task: Task, simulation: Simulation, rollouts: pl.DataFrame, estimator: str) -> pl.DataFrame:
    """The answers of "scope" or "reach", whichever is asked for, or else there."""
    own, column, used = _pool(task, simulation, rollouts, estimator)
    return _risk(own, pl.col(column), used, simulation.budget())


def _pool(task: Task, simulation: Simulation, rollouts: pl.DataFrame, estimator: str) -> tuple[pl.DataFrame, str, str]:
    """The rollouts that answer by "scope" or "reach", the column with their scores, and which of the two it is."""
    pools = {"scope": pl.col("avoids").is_null(), "reach": pl.col("avoids") == task.name}
    there = [name for name in pools if score_column(name, task.name) in rollouts.columns]
    if not there:
        raise InputError(
            f"{simulation} has no rollouts with the column '{score_column('scope', task.name)}': simulate again with "
            f"--task {task.name}, or predict with the estimator mc."
        )
    used = estimator if estimator in there else there[0]
    return rollouts.filter(pools[used]), score_column(used, task.name), used


def _risk(rollouts: pl.DataFrame, score: pl.Expr, estimator: str, plan: RolloutBudget) -> pl.DataFrame:
    """The mean of the scores of each question, as the plan weighs them."""
    questions = rollouts.select(QUESTION).unique().sort(QUESTION).with_row_index("question")
    placed = rollouts.select(*KEY, "tokens", score=score.cast(pl.Float64)).join(questions, on=QUESTION)
    at = placed["question"].to_numpy(), placed["rollout"].to_numpy()
    shape = len(questions), int(at[1].max(initial=-1)) + 1
    scores, tokens = np.full(shape, np.nan), np.zeros(shape, np.int64)
    scores[at] = placed["score"].fill_null(np.nan).to_numpy()
    tokens[at] = placed["tokens"].fill_null(1).to_numpy()
    answer = estimators.answers(scores, plan.weights(scores), tokens)
    low, high = estimators.interval(answer, estimator)
    columns = {"prediction": answer.risk, "standard_error": answer.standard_error, "low": low, "high": high}
    cost = tokens.sum(1) if placed["tokens"].null_count() == 0 else [None] * len(questions)
    return questions.select(QUESTION).with_columns(
        *(pl.Series(name, values).fill_nan(None) for name, values in columns.items()),
        rollouts=pl.Series(answer.rollouts),
        undecidable_rollouts=pl.Series(answer.undecidable),
        tokens=pl.Series(cost, dtype=pl.Int64),
        estimator=pl.lit(estimator),
    )


def answers(task: Task, simulation: Simulation, rollouts: pl.DataFrame) -> pl.DataFrame:
    """The answer that each imagined future gives to `task`: `rollouts` with the columns of `labels`."""
    return labels(task, _outcomes(simulation, task), rollouts)


def _outcomes(simulation: Simulation, task: Task) -> pl.DataFrame:
    """The simulated events that decide `task`."""
    columns = [*KEY, "time", "code", *(["numeric_value"] if task.by_value else [])]
    return simulation.events(columns, matches(task.decided_by()))


def _summarise(
    answered: pl.DataFrame,
    estimator: str,
    prediction: pl.Expr,
    standard_error: pl.Expr,
    known: pl.Expr,
    span: dict[str, pl.Expr] | None = None,
) -> pl.DataFrame:
    counts = {
        "rollouts": known.sum(),
        "undecidable_rollouts": (~known).sum(),
        "tokens": pl.col("tokens").cast(pl.Int64).sum(),
    }
    summary = answered.group_by(QUESTION).agg(
        prediction=prediction, standard_error=standard_error, **(span or {}), **counts
    )
    return summary.with_columns(estimator=pl.lit(estimator))


def _error_of_mean(score: pl.Expr) -> pl.Expr:
    return score.std() / score.count().sqrt()


def _sorted() -> pl.Expr:
    return pl.col("label").drop_nulls().sort()


def _median(ordered: pl.Expr) -> pl.Expr:
    """The median; null where it is infinite.

    Dropping the rollouts that did not reach the outcome instead of counting them as the longest would keep the short
    stays and shorten every prediction.
    """
    middle = ordered.median()
    return pl.when(middle.is_finite()).then(middle)


def _error_of_median(ordered: pl.Expr) -> pl.Expr:
    """Half-width of the median's 95 % interval by order statistics, over 1.96 (McKean and Schrader 1984)."""
    count = ordered.len()
    below = ((count + 1) / 2 - 1.96 * (count / 4).sqrt()).round().clip(1)
    lowest = ordered.get(below.cast(pl.Int64) - 1, null_on_oob=True)
    highest = ordered.get((count - below).cast(pl.Int64), null_on_oob=True)
    error = (highest - lowest) / (2 * 1.96)
    return pl.when(error.is_finite() & (count > 1)).then(error)


def _span(ordered: pl.Expr, level: float) -> dict[str, pl.Expr]:
    """`low` and `high`: order statistics between which a further rollout falls with probability `level` or more."""
    count = ordered.len()
    first, last = order_statistics(count, level)
    ends = {"low": first, "high": last}
    found = {name: ordered.get((place - 1).cast(pl.Int64), null_on_oob=True) for name, place in ends.items()}
    return {name: pl.when((count > 0) & x.is_finite()).then(x) for name, x in found.items()}
