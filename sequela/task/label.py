"""Labels of whole cohorts at once: `Task.label` in polars, for real and for simulated events."""

from __future__ import annotations

import polars as pl

from sequela.record.duration import DAY, reached_of
from sequela.record.schema import FOLLOW_UP_END
from sequela.record.spelling import meaning
from sequela.rollout.folder import KEY
from sequela.task.codes import matches
from sequela.task.rules import Counting
from sequela.task.task import Task


def labels(task: Task, events: pl.DataFrame, times: pl.DataFrame) -> pl.DataFrame:
    """What `task.label` answers for every row of `times`, in one pass over `events`.

    Args:
        events: MEDS columns, every timeline in order; `numeric_value` is only needed if `task.by_value`. Simulated
            events also have `prediction_time` and `rollout`.
        times: one question per row: `subject_id`, `prediction_time` and, for simulated events, `rollout`; optionally
            `end`, the time up to which the timeline is complete. Without it the events themselves tell (see
            `sequela.record.timeline.timelines`). With it optionally `cut`, whether more may have come at that very
            moment (see `sequela.record.timeline.Timeline`). Optionally `opens`, the time that an event must come after
            to count, as outcome or as end.

    Returns:
        `times` with `label` (Float64, null if `task.label` is None), `until_days`, and `decided`, which says what ended
        the wait: "outcome"; "end", an event of `task.ends`; "horizon", up to which the timeline is complete; or
        "censored", because the timeline ends too early. `until_days` (Float64) is the number of days from the
        prediction time until then, 0 if the timeline ended before it. A count is never decided by an outcome.
    """
    key = [column for column in KEY if column in times.columns]
    asked = times if "end" in times.columns else times.join(record_ends(events), on="subject_id", how="left")
    asked = asked.with_columns(_limit=_limit(task), _reached=_reached(task))
    opens = ["opens"] if "opens" in times.columns else []
    decisive = events.filter(matches(task.decided_by()))
    after = (
        decisive.with_columns(_counts=matches(task.outcome), _ends=matches(task.ends))
        .join(
            asked.select(*key, "_limit", *opens),
            on=[column for column in key if column in events.columns],
            maintain_order="left",
        )
        .filter(pl.col("time").is_between(pl.col("prediction_time"), pl.coalesce("_limit", "time")))
        .filter(pl.all_horizontal(pl.lit(True), *(pl.col("time") > pl.col(name) for name in opens)))
        .group_by(key)
        .agg(**_decisive(task))
    )
    cut, end = pl.col("cut") if "cut" in times.columns else pl.lit(False), pl.col("end")
    ended = pl.col("_ending").is_not_null() & ~(cut & (pl.col("_ending") == end).fill_null(False))
    complete = ((end >= pl.col("_reached")) & ~(cut & (end <= pl.col("_limit")))).fill_null(False)
    decided = (
        pl.when(pl.col("_outcome").is_not_null() & (pl.col("_outcome") <= pl.col("_ending")).fill_null(True))
        .then(pl.lit("outcome"))
        .when(ended)
        .then(pl.lit("end"))
        .when(complete)
        .then(pl.lit("horizon"))
        .otherwise(pl.lit("censored"))
    )
    answered = asked.join(after, on=key, how="left", maintain_order="left").with_columns(decided=decided)
    return answered.select(
        *times.columns, label=task.asks.labels.value, until_days=_until_days(), decided="decided"
    )


def _decisive(task: Task) -> dict[str, pl.Expr]:
    """What the events inside the horizon show about one question: `_ending`, and the columns of the kind's rule."""
    ending = pl.col("time").filter("_ends").min()
    counts = pl.col("_counts") & task.event.admitted() if task.by_value else pl.col("_counts")
    return {"_ending": ending, **task.asks.labels.columns(Counting(counts, ending, task.event.at_least))}


def _limit(task: Task) -> pl.Expr:
    """The last moment at which an event counts; null without a horizon."""
    if task.horizon is None:
        return pl.lit(None, pl.Datetime("us"))
    return pl.col("prediction_time") + pl.duration(microseconds=task.horizon)


def _reached(task: Task) -> pl.Expr:
    """Up to when a timeline must be complete; null without a horizon."""
    if task.horizon is None:
        return pl.lit(None, pl.Datetime("us"))
    return reached_of(pl.col("prediction_time"), task.horizon)


def record_ends(events: pl.DataFrame) -> pl.DataFrame:
    """`subject_id`, `end`: FOLLOW_UP//END, else the last event, as in `timelines`."""
    stated = pl.col("time").filter(meaning(FOLLOW_UP_END)).max()
    return events.group_by("subject_id").agg(end=pl.coalesce(stated, pl.col("time").max()))


def _until_days() -> pl.Expr:
    at, silent = pl.col("prediction_time"), pl.max_horizontal("end", "prediction_time")
    whens = {"outcome": pl.col("_outcome"), "end": pl.col("_ending"), "horizon": pl.col("_limit")}
    until = pl.coalesce(
        *(pl.when(pl.col("decided") == how).then(when) for how, when in whens.items()), silent
    )
    return ((until - at).dt.total_microseconds() / DAY).cast(pl.Float64)
