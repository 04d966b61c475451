"""What the rollouts of a question say together: their share, mean or median, with an error and an interval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from sequela.record.questions import QUESTION
from sequela.task.answers.incidence import order_statistics

if TYPE_CHECKING:
    from sequela.rollout.budget import RolloutBudget
    from sequela.rollout.estimators import RiskEstimates
    from sequela.rollout.spread import Spread

Summarize = Callable[[pl.DataFrame, "RolloutBudget", float], pl.DataFrame]


@dataclass(frozen=True, eq=False)
class Statistic:
    """How the scores of rollouts become an answer.

    Attributes:
        name: of the estimator that answers report.
        summarize: (scored, budget, level) -> one row per question: `QUESTION`, `prediction` (null: no answer),
            `standard_error`, `low`, `high`, `rollouts` (with an answer), `undecidable_rollouts`, `tokens`, `estimator`.
            `scored` has `subject_id`, `prediction_time`, `rollout`, `tokens`, `score` (null: none) and `known`.
    """

    name: str
    summarize: Summarize


def risk(
    scored: pl.DataFrame, estimator: str, budget: RolloutBudget, before: Spread | None = None
) -> pl.DataFrame:
    """The mean score of each question, as the budget weighs it, clipped to 1; with the 95 % interval of sampling.

    Args:
        scored: see `Statistic`; `known` is not needed.
        estimator: "mc", "scope" or "reach".
        before: how much scores vary, known from other patients; None: what is assumed of any.
    """
    from sequela.rollout import spread  # here: who only lists tasks need not load it

    questions, estimates = estimates_of(scored, budget)
    low, high = spread.interval(estimates, spread.spread_of(estimates, estimator, before))
    columns = {
        "prediction": estimates.risk,
        "standard_error": estimates.standard_error,
        "low": low,
        "high": high,
    }
    cost = estimates.tokens if scored["tokens"].null_count() == 0 else [None] * len(questions)
    return questions.with_columns(
        *(pl.Series(name, values).fill_nan(None) for name, values in columns.items()),
        rollouts=pl.Series(estimates.rollouts),
        undecidable_rollouts=pl.Series(estimates.undecidable),
        tokens=pl.Series(cost, dtype=pl.Int64),
        estimator=pl.lit(estimator),
    )


def estimates_of(scored: pl.DataFrame, budget: RolloutBudget) -> tuple[pl.DataFrame, RiskEstimates]:
    """The questions of `scored` (see `Statistic`), sorted, and what their rollouts say, as the budget weighs them."""
    from sequela.rollout import estimators  # here: who only lists tasks need not load it

    questions = scored.select(QUESTION).unique().sort(QUESTION).with_row_index("question")
    placed = scored.select(*QUESTION, "rollout", "tokens", "score").join(questions, on=QUESTION)
    cell = placed["question"].to_numpy(), placed["rollout"].to_numpy()
    shape = len(questions), int(cell[1].max(initial=-1)) + 1
    scores_QN, tokens_QN = np.full(shape, np.nan), np.zeros(shape, np.int64)
    scores_QN[cell] = placed["score"].fill_null(np.nan).to_numpy()
    tokens_QN[cell] = placed["tokens"].fill_null(1).to_numpy()
    return questions.select(QUESTION), estimators.answers(scores_QN, budget.weights(scores_QN), tokens_QN)


def _mean(scored: pl.DataFrame, _budget: RolloutBudget, level: float) -> pl.DataFrame:
    score = pl.col("score")
    return _grouped(
        scored,
        "mean",
        prediction=score.mean(),
        standard_error=score.std() / score.count().sqrt(),
        **_span(score.drop_nulls().sort(), level),
    )


def _median(scored: pl.DataFrame, _budget: RolloutBudget, level: float) -> pl.DataFrame:
    """Infinite scores count as later than any other; a median that is infinite is none.

    Dropping the rollouts that did not reach the outcome, instead of counting them as the longest, would keep the short
    stays and shorten every prediction.
    """
    ordered = pl.col("score").drop_nulls().sort()
    middle = ordered.median()
    return _grouped(
        scored,
        "median",
        prediction=pl.when(middle.is_finite()).then(middle),
        standard_error=_error_of_median(ordered),
        **_span(ordered, level),
    )


def _grouped(scored: pl.DataFrame, estimator: str, **columns: pl.Expr) -> pl.DataFrame:
    summary = scored.group_by(QUESTION).agg(
        **columns,
        rollouts=pl.col("known").sum(),
        undecidable_rollouts=(~pl.col("known")).sum(),
        tokens=pl.col("tokens").cast(pl.Int64).sum(),
    )
    return summary.with_columns(estimator=pl.lit(estimator))


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
    ranks = dict(zip(("low", "high"), order_statistics(count, level), strict=True))
    bounds = {name: ordered.get((rank - 1).cast(pl.Int64), null_on_oob=True) for name, rank in ranks.items()}
    return {name: pl.when((count > 0) & bound.is_finite()).then(bound) for name, bound in bounds.items()}


SHARE = Statistic("mc", lambda scored, budget, _level: risk(scored, "mc", budget))
MEAN = Statistic("mean", _mean)
MEDIAN = Statistic("median", _median)
