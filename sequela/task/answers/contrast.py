"""Contrasts: two simulations of the same patients, from their histories as recorded and as edited, compared.

A rollout's random numbers depend on its patient, prediction time and number, not on the history. So rollout j of one
arm and rollout j of the other use the same random numbers, and much of the sampling noise cancels in their difference
(common random numbers). With weights w and v that sum to 1 over the rollouts of a question, scores x as
recorded and y edited, and their means m and k, the standard error of k - m is

    sqrt(sum_j (a_j - b_j)^2),  b_j = w_j (x_j - m) / sqrt(1 - sum(w^2)),  a_j = v_j (y_j - k) / sqrt(1 - sum(v^2)),

with equal weights that of the mean of the differences y_j - x_j. Without pairing it would be
sqrt(sum_j (a_j^2 + b_j^2)). Medians get the same two errors by bootstrap: of rollout numbers, drawn once for both arms
or separately.

Shape letters: Q questions, N rollouts per question (column j is rollout number j).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from sequela.errors import InputError
from sequela.record.questions import QUESTION
from sequela.rollout.folder import SimulatedFolder
from sequela.rollout.settings import ESTIMATORS
from sequela.task.answers.estimate import scores
from sequela.task.answers.statistic import MEDIAN
from sequela.task.answers.truncation import completed
from sequela.task.kinds import KINDS
from sequela.task.scoring.bootstrap import Estimate, interval, resamples
from sequela.task.task import Task

DRAWS = 200  # of rollout numbers, for the errors of medians
MEANING = (
    "This is what the model associates with such a record. It is not the effect of doing it: in the records that the "
    "model learned from, those who were given a drug or had such a value differed in other ways too, which may not be "
    "on record (confounding by indication), and the model takes the edit as one more sign of what kind of patient this "
    "is."
)


def contrast(
    task: Task, times: pl.DataFrame, as_recorded: Path, what_if: Path, estimator: str = "scope"
) -> pl.DataFrame:
    """The answers of both arms to `task`, question by question.

    Args:
        times: the cohort, `subject_id` and `prediction_time`.
        as_recorded, what_if: simulated folders, made with the same settings; the second from edited histories.
        estimator: as for `sequela.task.answers.estimate.estimate`.

    Returns:
        One row per question that both arms simulated, in order: `subject_id`, `prediction_time`, `changed` (whether the
        edits changed what the model reads), `as_recorded` and `what_if` (the answers; a risk above 1 is shown as 1),
        `difference` (before that clipping, so that it is unbiased; null if an arm has no answer), `standard_error` (of
        sampling, with the rollouts paired by number; null with fewer than 2 in an arm), `unpaired_error` (the same
        without pairing), `rollouts` (that give an answer in both arms), `estimator`.

    Raises:
        InputError: if the arms have no question in common, or were simulated in different ways.
    """
    arms, used = [], []
    folders = SimulatedFolder(as_recorded), SimulatedFolder(what_if)
    for folder in folders:
        scored, name = scores(task, folder, folder.rollouts(), estimator)
        arms.append(scored)
        used.append(name)
    plans = folders[0].budget(), folders[1].budget()
    if used[0] != used[1] or plans[0] != plans[1]:
        raise InputError(f"{as_recorded} and {what_if} were simulated in different ways: simulate both again.")
    asked = times.select(QUESTION).sort(QUESTION)
    for arm in arms:
        asked = asked.join(arm, on=QUESTION, how="semi", maintain_order="left")
    if asked.is_empty():
        raise InputError(
            f"{as_recorded} and {what_if} have no question of '{task.name}' in common: nothing to compare."
        )
    count = 1 + max(int(arm["rollout"].max() or 0) for arm in arms)
    recorded_QN, edited_QN = (_scores(asked, arm, count, used[0]) for arm in arms)
    if used[0] == MEDIAN.name:
        answers = _of_medians(recorded_QN, edited_QN)
    else:
        weights = plans[0].weights(recorded_QN), plans[1].weights(edited_QN)
        answers = _of_means(recorded_QN, edited_QN, *weights)
    names = ("as_recorded", "what_if", "difference", "standard_error", "unpaired_error")
    columns = dict(zip(names, answers, strict=True))
    if not task.asks.numeric:
        columns |= {name: np.clip(columns[name], 0, 1) for name in ("as_recorded", "what_if")}
    both = ~np.isnan(recorded_QN) & ~np.isnan(edited_QN)
    return _marked(asked, folders[1].rollouts()).with_columns(
        *(pl.Series(name, _finite(values)).fill_nan(None) for name, values in columns.items()),
        rollouts=pl.Series(both.sum(1).astype(np.int32)),
        estimator=pl.lit(used[0]),
    )


def summary(
    contrasts: pl.DataFrame, kind: str, *, everyone: bool = False, seed: int = 0
) -> dict[str, object]:
    """The contrasts of one task, summarized.

    Args:
        contrasts: as from `contrast`.
        kind: name of the task's kind.
        everyone: include questions whose history the edits did not change; their differences are 0.
        seed: of the bootstrap.

    Returns:
        `patients`, how many questions were simulated, and `changed`, how many of their histories the edits changed;
        `compared`, how many count here; `unanswered`, how many do not, because an arm has no answer; the means
        `as_recorded`, `what_if` and `difference` over those compared, the last with its 95 % interval by bootstrap of
        patients; `standard_error` of the mean difference, from sampling alone; `variance_removed`, the share of the
        sampling variance that common random numbers removed (negative if they added some); and `rollouts`, the number
        of pairs. None for what is not defined.
    """
    chosen = contrasts if everyone else contrasts.filter("changed")
    known = chosen.filter(pl.col("difference").is_not_null())
    mean = _mean(known, seed)
    errors = known.filter(pl.col("standard_error").is_not_null())
    paired, unpaired = (float((errors[name] ** 2).sum()) for name in ("standard_error", "unpaired_error"))
    every = errors.height == known.height > 0
    return {
        "kind": kind,
        "unit": KINDS[kind].words.unit,
        "estimator": contrasts["estimator"][0] if contrasts.height else None,
        "patients": contrasts.height,
        "changed": int(contrasts["changed"].sum()),
        "compared": known.height,
        "unanswered": chosen.height - known.height,
        "as_recorded": known["as_recorded"].mean(),
        "what_if": known["what_if"].mean(),
        "difference": mean.as_dict() or None,
        "standard_error": paired**0.5 / known.height if every else None,
        "variance_removed": 1 - paired / unpaired if unpaired else None,
        "rollouts": int(known["rollouts"].sum()),
    }


def _mean(known: pl.DataFrame, seed: int) -> Estimate:
    """The mean difference over the rows, with its interval by bootstrap of patients."""
    if known.is_empty():
        return Estimate(np.nan, np.nan, np.nan)
    difference, patients = known["difference"].to_numpy(), known["subject_id"].to_numpy()
    draws = [(difference @ some) / some.sum(0) for some in resamples(patients, seed=seed)]
    return interval(difference.mean(), np.concatenate(draws))


def _scores(asked: pl.DataFrame, arm: pl.DataFrame, count: int, estimator: str) -> np.ndarray:
    """The scores of an arm by question and rollout number; NaN for none. Risks complete those of truncated rollouts."""
    if estimator not in ESTIMATORS:
        return _matrix(asked, arm, count, "score")
    return completed(*(_matrix(asked, arm, count, name) for name in ("score", "seen", "came", "until"))).scores


def _matrix(asked: pl.DataFrame, arm: pl.DataFrame, count: int, name: str) -> np.ndarray:
    """A column of an arm by question and rollout number; NaN for none."""
    placed = arm.join(asked.with_row_index("question"), on=QUESTION)
    out = np.full((asked.height, count), np.nan)
    out[placed["question"].to_numpy(), placed["rollout"].to_numpy()] = (
        placed[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
    )
    return out


def _of_means(
    x_QN: np.ndarray, y_QN: np.ndarray, w_QN: np.ndarray, v_QN: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Weighted means of both arms, their difference, and its paired and unpaired standard errors [Q]."""
    (m, b_QN), (k, a_QN) = _centered(x_QN, w_QN), _centered(y_QN, v_QN)
    paired, unpaired = np.sqrt(((a_QN - b_QN) ** 2).sum(1)), np.sqrt((a_QN**2 + b_QN**2).sum(1))
    return m, k, k - m, paired, unpaired


def _centered(x_QN: np.ndarray, w_QN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean [Q], and the contribution of each rollout to its error [Q, N]; NaN with fewer than 2 rollouts."""
    known = ~np.isnan(x_QN)
    x_QN, w_QN = np.where(known, x_QN, 0), np.where(known, w_QN, 0)
    mean = np.where(known.any(1), (w_QN * x_QN).sum(1), np.nan)
    enough = (w_QN > 0).sum(1) > 1
    spread = np.sqrt(np.where(enough, 1 - (w_QN**2).sum(1), np.nan))
    return mean, np.where(known, w_QN * (x_QN - mean[:, None]), 0) / spread[:, None]


def _of_medians(x_QN: np.ndarray, y_QN: np.ndarray) -> tuple[np.ndarray, ...]:
    """As `_of_means`, for medians; an error is NaN if a median is not reached in some draw."""
    generator = np.random.default_rng(0)
    together, apart = [], []
    with np.errstate(invalid="ignore"):
        for _ in range(DRAWS):
            one, other = generator.integers(x_QN.shape[1], size=(2, x_QN.shape[1]))
            x, y, z = _median(x_QN[:, one]), _median(y_QN[:, one]), _median(y_QN[:, other])
            together.append(y - x)
            apart.append(z - x)
        m, k = _median(x_QN), _median(y_QN)
        few = np.minimum((~np.isnan(x_QN)).sum(1), (~np.isnan(y_QN)).sum(1)) < 2
        errors = [np.where(few, np.nan, np.std(np.stack(some), axis=0)) for some in (together, apart)]
        return m, k, k - m, *errors


def _median(x_QN: np.ndarray) -> np.ndarray:
    """The median [Q] of what is not NaN; infinite if half of it is, NaN if nothing is left."""
    ordered, count = np.sort(x_QN, axis=1), (~np.isnan(x_QN)).sum(1)
    middle = [np.maximum(count - 1, 0) // 2, count // 2]
    low, high = (
        np.take_along_axis(ordered, np.minimum(one, x_QN.shape[1] - 1)[:, None], 1)[:, 0] for one in middle
    )
    return (low + high) / 2


def _marked(asked: pl.DataFrame, rollouts: pl.DataFrame) -> pl.DataFrame:
    """`asked` with `changed`; false if the table does not say."""
    if "changed" not in rollouts.columns:
        return asked.with_columns(changed=pl.lit(False))
    marks = rollouts.group_by(QUESTION).agg(pl.col("changed").first())
    return asked.join(marks, on=QUESTION, how="left", maintain_order="left")


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)
