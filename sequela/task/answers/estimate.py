"""From the rollouts of a simulation to one answer per question, with its sampling error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import polars as pl

from sequela.errors import InputError
from sequela.record.schema import DEATH
from sequela.rollout.budget import RolloutBudget
from sequela.rollout.folder import KEY, cut_within_a_moment, score_column, seen_column
from sequela.rollout.settings import ESTIMATORS, HEAD, RULES
from sequela.task.answers.calibration import Calibration
from sequela.task.answers.incidence import LEVEL
from sequela.task.answers.statistic import risk
from sequela.task.codes import matches
from sequela.task.label import labels
from sequela.task.task import Task

HAZARDS = ("scope", "cv", "reach")  # estimators that sum hazards


class Simulation(Protocol):
    """Rollouts with their events, from a folder or from memory."""

    def rollouts(self) -> pl.DataFrame:
        """One row per rollout (see `SimulatedFolder.rollouts`)."""
        ...

    def events(self, columns: Sequence[str] | None = None, where: pl.Expr | None = None) -> pl.DataFrame:
        """The simulated events of the futures that exclude no outcome."""
        ...

    def rules(self) -> int:
        """By which `sequela.rollout.settings.RULES` the rollouts were made."""
        ...

    def budget(self) -> RolloutBudget:
        """How many rollouts each question got, which decides how they are weighted."""
        ...


def estimate(
    task: Task,
    simulation: Simulation,
    rollouts: pl.DataFrame,
    estimator: str,
    level: float = LEVEL,
    calibration: Calibration | None = None,
) -> pl.DataFrame:
    """The answers of a simulation to `task`.

    Risks: "scope" is the mean of the summed hazards of each rollout, at most 1; "cv" the same, steadied by a value
    head; "reach" the mean chance that the outcome came, over rollouts that exclude it; "mc" the share of rollouts with
    the outcome (arXiv 2602.03730; see `sequela.rollout.estimators`). Truncated rollouts count as
    `sequela.task.answers.truncation` says. If the estimator asked for was not simulated, or is "auto", the one that was
    is used. A task without hazards (`Task.has_hazard`) always takes "mc", and numbers what their kind says
    (`Kind.answer`), so that one simulation serves all tasks.

    Args:
        simulation: where the rollouts and their events come from.
        rollouts: the rows of `simulation.rollouts()` that belong to the cohort.
        level: for numbers, the share of the rollouts between `low` and `high`.
        calibration: tells how much the scores of other patients varied, so that intervals need few questions.

    Returns:
        One row per question: `subject_id`, `prediction_time`, `prediction` (null if no rollout gives an answer, or half
        of those that reach the outcome of kind "time" are truncated), `standard_error`, `low` and `high` (of risks the
        95 % interval of sampling, with all that truncated rollouts could have shown; of numbers see `level`, null if
        not reached), `reached` (of numbers: the share of rollouts that have one), `rollouts` (that give an answer),
        `undecidable_rollouts` (truncated before they did), `tokens` sampled for all of them, and `estimator`, the one
        that was used: "scope", "cv", "mc", "reach", "median" or "mean".

    Raises:
        InputError: for an unknown estimator or level, if the hazards of this task were not recorded, or if the rollouts
            were counted by other rules.
    """
    scored, used = scores(task, simulation, rollouts, estimator)
    if used in HAZARDS:
        most = int(rollouts["rollout"].max() or 0) + 1
        before = None if calibration is None else calibration.spread(task, used, most)
        return risk(scored, used, simulation.budget(), before)
    return task.asks.answer.summarize(scored, simulation.budget(), level)


def scores(
    task: Task, simulation: Simulation, rollouts: pl.DataFrame, estimator: str
) -> tuple[pl.DataFrame, str]:
    """What each rollout contributes to the answer, and the name of the estimator that `estimate` would use.

    Args:
        simulation, rollouts, estimator: as for `estimate`.

    Returns:
        `KEY`, `tokens`, `score` (Float64; null: no answer; infinite: later than any other) and `known`; and what
        `sequela.task.answers.truncation.completed` needs: `seen`, `came` and `until`, null where it is not known.

    Raises:
        InputError: see `estimate`.
    """
    if estimator not in ESTIMATORS:
        raise InputError(f"there is no estimator '{estimator}': choose one of {', '.join(ESTIMATORS)}.")
    if estimator == HEAD:
        raise InputError(f"the estimator head reads no futures, such as those of {simulation}: give the checkpoint.")
    _refuse_other_rules(task, simulation)
    if task.has_hazard and estimator != "mc":
        pool, column, used = _pool(task, simulation, rollouts, estimator)
        score = pl.col(column).cast(pl.Float64)
        scored = pool.select(*KEY, "tokens", score=score, known=score.is_not_null(), seen=_seen(pool, used, task.name))
        if used != "reach" and scored["seen"].count():
            told = answers(task, simulation, pool).select(*KEY, came="label", until="until_days")
            return scored.join(told, on=list(KEY), how="left", maintain_order="left"), used
        nothing = pl.lit(None, pl.Float64)
        return scored.with_columns(came=nothing, until=nothing), used
    answered = answers(task, simulation, _ordinary(task, simulation, rollouts))
    kind = task.asks
    cut = pl.when(pl.col("decided") == "censored").then(0.0)
    scored = answered.select(
        *KEY, "tokens", score=kind.score.cast(pl.Float64), known=kind.known, seen=cut, came="label", until="until_days"
    )
    return scored, kind.answer.name


def _seen(pool: pl.DataFrame, estimator: str, task: str) -> pl.Expr:
    """What truncated rollouts had shown; folders of version 0.1 do not tell."""
    column = seen_column(estimator, task)
    return pl.col(column).cast(pl.Float64) if column in pool.columns else pl.lit(None, pl.Float64)


def _refuse_other_rules(task: Task, simulation: Simulation) -> None:
    """Death is the last event of its moment, so it ends the wait by all rules alike."""
    if set(task.ends) - {DEATH} and simulation.rules() != RULES:
        raise InputError(
            f"{simulation} was made by another version of sequela, in which an outcome at the very moment of an end "
            f"did not count: simulate the task {task.name} again."
        )


def _ordinary(task: Task, simulation: Simulation, rollouts: pl.DataFrame) -> pl.DataFrame:
    """The rollouts that exclude nothing."""
    ordinary = rollouts.filter(pl.col("avoids").is_null())
    if ordinary.is_empty() and not rollouts.is_empty():
        raise InputError(
            f"{simulation} holds only futures without the outcome of '{task.name}', whose events do not show how often "
            "it comes: predict with the estimator reach, or simulate with the estimator mc."
        )
    return ordinary


def _pool(
    task: Task, simulation: Simulation, rollouts: pl.DataFrame, estimator: str
) -> tuple[pl.DataFrame, str, str]:
    """The rollouts that answer by one of `HAZARDS`, the column with their scores, and which it is."""
    ordinary = pl.col("avoids").is_null()
    pools = {"scope": ordinary, "cv": ordinary, "reach": pl.col("avoids") == task.name}
    there = [name for name in HAZARDS if score_column(name, task.name) in rollouts.columns]
    if not there:
        raise InputError(
            f"{simulation} has no rollouts with the column '{score_column('scope', task.name)}': simulate the "
            f"task {task.name} again, or predict with the estimator mc."
        )
    used = estimator if estimator in there else there[0]
    return rollouts.filter(pools[used]), score_column(used, task.name), used


def answers(task: Task, simulation: Simulation, rollouts: pl.DataFrame) -> pl.DataFrame:
    """The label that each rollout gives to `task`: `rollouts` with the columns of `labels`.

    Unless it ends with death, a future stops within its last moment: more could have come then.
    """
    _refuse_other_rules(task, simulation)
    stopped = rollouts.with_columns(cut=cut_within_a_moment())
    return labels(task, _outcomes(simulation, task), stopped).drop("cut")


def _outcomes(simulation: Simulation, task: Task) -> pl.DataFrame:
    """The simulated events that decide `task`."""
    columns = [*KEY, "time", "code", *(["numeric_value"] if task.by_value else [])]
    return simulation.events(columns, matches(task.decided_by()))
