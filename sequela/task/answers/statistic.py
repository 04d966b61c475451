"""What the rollouts of a question say together: their share, mean or median, with an error and an interval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from sequela.record.questions import QUESTION
from sequela.task.answers.incidence import order_statistics
from sequela.task.answers.truncation import completed

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
            `standard_error`, `low`, `high`, of numbers `reached` (the share of the rollouts with an answer that have
            one), `rollouts` (with an answer), `undecidable_rollouts`, `tokens`, `estimator`. `scored` has `subject_id`,
            `prediction_time`, `rollout`, `tokens`, `score` (null: none), `known`, `seen`, `came` and `until`.
    """

    name: str
    summarize: Summarize


def risk(
    scored: pl.DataFrame, estimator: str, budget: RolloutBudget, before: Spread | None = None
) -> pl.DataFrame:
    """The mean score of each question, as the budget weighs it, clipped to 1; with the 95 % interval of sampling, which
    is widened to all that truncated rollouts could have shown.

    Args:
        scored: see `Statistic`; `known` is not needed, nor are `seen`, `came` and `until` if nothing was truncated.
        estimator: "mc", "scope" or "reach".
        before: how much scores vary, known from other patients; None: what is assumed of any.
    """
    from sequela.rollout import spread  # here: who only lists tasks need not load it

    weighed = estimates_of(scored, budget)
    questions, estimates = weighed.questions, weighed.estimates
    low, high = spread.interval(estimates, spread.spread_of(estimates, estimator, before))
    low, high = np.fmin(low, weighed.least), np.fmax(high, weighed.most)
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


@dataclass(frozen=True, eq=False)
class WeighedRollouts:
    """What the rollouts of Q questions say.

    Attributes:
        questions: `QUESTION`, sorted.
        estimates: of their risks; truncated rollouts are counted as undecidable.
        least, most: the risk if no truncated rollout came to the outcome, or all did, [Q]; NaN if none was truncated.
    """

    questions: pl.DataFrame
    estimates: RiskEstimates
    least: np.ndarray
    most: np.ndarray


def estimates_of(scored: pl.DataFrame, budget: RolloutBudget) -> WeighedRollouts:
    """What the rollouts in `scored` (see `Statistic`) say, as the budget weighs them."""
    from sequela.rollout import estimators  # here: who only lists tasks need not load it

    questions = scored.select(QUESTION).unique().sort(QUESTION).with_row_index("question")
    placed = scored.join(questions, on=QUESTION)
    cell = placed["question"].to_numpy(), placed["rollout"].to_numpy()
    shape = len(questions), int(cell[1].max(initial=-1)) + 1

    def spread_out(name: str) -> np.ndarray:
        out_QN = np.full(shape, np.nan)
        if name in placed.columns:
            out_QN[cell] = placed[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
        return out_QN

    tokens_QN = np.zeros(shape, np.int64)
    tokens_QN[cell] = placed["tokens"].fill_null(1).to_numpy()
    filled = completed(*(spread_out(name) for name in ("score", "seen", "came", "until")))
    weights_QN = budget.weights(filled.scores)
    estimates = estimators.answers(filled.scores, weights_QN, tokens_QN)
    cut_Q = filled.truncated.sum(1)
    bounds = [estimators.answers(scores, weights_QN).risk for scores in (filled.least, filled.most)]
    whole_Q = estimates.rollouts - cut_Q
    estimates = replace(
        estimates,
        standard_error=np.where(whole_Q > 1, estimates.standard_error, np.nan),
        rollouts=whole_Q,
        undecidable=estimates.undecidable + cut_Q,
    )
    least_Q, most_Q = (np.where(cut_Q > 0, bound, np.nan) for bound in bounds)
    return WeighedRollouts(questions.select(QUESTION), estimates, least_Q, most_Q)


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
    """Of the rollouts that have a number. Infinite scores count as later than any other; a median that is infinite is
    none.

    Dropping the rollouts that were truncated, instead of counting them as the longest, would keep the short stays and
    shorten every prediction.
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
    has = pl.col("known") & pl.col("score").is_not_null()
    summary = scored.group_by(QUESTION).agg(
        **columns,
        reached=has.sum() / pl.col("known").sum(),
        rollouts=pl.col("known").sum(),
        undecidable_rollouts=(~pl.col("known")).sum(),
        tokens=pl.col("tokens").cast(pl.Int64).sum(),
    )
    return summary.with_columns(pl.col("reached").fill_nan(None), estimator=pl.lit(estimator))


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
