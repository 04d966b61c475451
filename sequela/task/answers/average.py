"""The mean answer of several models that differ by their training seed alone, and how far they lie apart."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from sequela.errors import InputError
from sequela.record.questions import QUESTION
from sequela.task.kinds import Kind

BOUNDS = ("low", "high")
COUNTS = ("rollouts", "undecidable_rollouts", "tokens")


def averaged(kind: Kind, answers: Sequence[pl.DataFrame], *, apart: bool) -> pl.DataFrame:
    """One row per question: the mean answer of K models.

    Args:
        answers: of each model, the columns of `estimate`, about the same questions.
        apart: whether the models were simulated with random numbers of their own. Else their errors of sampling may
            point the same way, and count as if they did.

    Returns:
        The same columns: the mean `prediction` (null unless every model has one), its `standard_error` of sampling,
        `low` and `high`, and the counts of all models together; `seeds`, K, and `between_seeds`, the standard deviation
        of the K answers, in which the error of sampling is. The interval of a mean risk is made of those of its parts
        (MOVER; Zou and Donner 2008, Stat Med 27:1693), so that it stays as lopsided as they are, and like them says
        nothing about training. The range of numbers, and the number itself, are means of quantiles.

    Raises:
        InputError: if the models answer by different estimators.
    """
    used = sorted({name for frame in answers for name in frame["estimator"].drop_nulls().unique()})
    if len(used) > 1:
        raise InputError(
            f"the models to average answer by different estimators ({', '.join(used)}): simulate all of them for one."
        )
    count, prediction = len(answers), pl.col("prediction")

    def joint(error: pl.Expr) -> pl.Expr:
        return (error**2).sum().sqrt() / count if apart else error.mean()

    if kind.numeric:
        bounds = {name: pl.col(name).mean() for name in (*BOUNDS, "reached")}
    else:
        cut = pl.col("undecidable_rollouts").sum() > 0  # what truncated rollouts could have shown does not average out
        off = {name: (pl.col(name) - prediction).abs() for name in BOUNDS}
        off = {name: pl.when(cut).then(each.mean()).otherwise(joint(each)) for name, each in off.items()}
        bounds = {"low": prediction.mean() - off["low"], "high": prediction.mean() + off["high"]}
        bounds = {name: bound.clip(0, 1) for name, bound in bounds.items()}
    columns = {"prediction": prediction.mean(), "standard_error": joint(pl.col("standard_error")), **bounds}
    columns |= {name: pl.col(name).sum() for name in COUNTS}
    return (
        pl.concat(answers, how="vertical_relaxed")
        .group_by(QUESTION, maintain_order=True)
        .agg(
            **{name: pl.when(pl.col(name).count() == count).then(value) for name, value in columns.items()},
            estimator=pl.col("estimator").drop_nulls().first(),
            seeds=pl.lit(count, pl.Int32),
            between_seeds=pl.when(prediction.count() == count).then(prediction.std()),
        )
    )
