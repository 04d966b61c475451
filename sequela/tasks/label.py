"""Labels of whole cohorts at once: `Task.label` in polars, for real events and for imagined ones."""

from __future__ import annotations

import polars as pl

from sequela.record.codes import FOLLOW_UP_END
from sequela.tasks.task import DAY, Task, matches

KEY = ("subject_id", "prediction_time", "rollout")


def labels(task: Task, events: pl.DataFrame, times: pl.DataFrame) -> pl.DataFrame:
    """What `task.label` answers for every row of `times`, in one pass over `events`.

    Args:
        events: MEDS columns. Imagined events also carry `prediction_time` and `rollout`.
        times: one question a row: `subject_id`, `prediction_time` and, for imagined events, `rollout`; optionally
            `end`, the time until which the timeline is complete. Without it, real events tell (see `timelines`).

    Returns:
        `times` with `label` (Float64; 1, 0, or days for kind "time"; null where undecidable) and `until_days`
        (Float64): days from the prediction time to the event that decided, to the horizon where that decided, and for
        the undecidable to the end of the record, 0 where it ended before.
    """
    key = [column for column in KEY if column in times.columns]
    asked = times if "end" in times.columns else times.join(_ends(events), on="subject_id", how="left")
    asked = asked.with_columns(_limit=_limit(task))
    after = (
        events.filter(matches(task.decided_by()))
        .join(asked.select(*key, "_limit"), on=[column for column in key if column in events.columns])
        .filter(pl.col("time").is_between(pl.col("prediction_time"), pl.coalesce("_limit", "time")))
        .group_by(key)
        .agg(
            _outcome=pl.col("time").filter(matches(task.outcome)).min(),
            _ending=pl.col("time").filter(matches(task.ends)).min(),
        )
    )
    answered = asked.join(after, on=key, how="left", maintain_order="left").with_columns(
        _happened=pl.col("_outcome").is_not_null()
        & (pl.col("_outcome") <= pl.col("_ending")).fill_null(True),
        _complete=(pl.col("end") >= pl.col("_limit")).fill_null(False),
    )
    return answered.select(*times.columns, label=_label(task), until_days=_until_days())


def _limit(task: Task) -> pl.Expr:
    """The last moment at which an event counts; null where there is no horizon."""
    if task.horizon is None:
        return pl.lit(None, pl.Datetime("us"))
    return pl.col("prediction_time") + pl.duration(microseconds=task.horizon)


def _ends(events: pl.DataFrame) -> pl.DataFrame:
    """`subject_id`, `end`: FOLLOW_UP//END, else the last event, as in `timelines`."""
    stated = pl.col("time").filter(pl.col("code") == FOLLOW_UP_END).max()
    return events.group_by("subject_id").agg(end=pl.coalesce(stated, pl.col("time").max()))


def _label(task: Task) -> pl.Expr:
    yes = _days("_outcome") if task.kind == "time" else pl.lit(1.0)
    no = pl.col("_ending").is_not_null() | pl.col("_complete")
    return pl.when("_happened").then(yes).when(no).then(pl.lit(0.0))


def _until_days() -> pl.Expr:
    decided = pl.when("_happened").then(pl.col("_outcome")).otherwise(pl.col("_ending"))
    limit = pl.when("_complete").then(pl.col("_limit"))
    silent = pl.max_horizontal(pl.col("end"), pl.col("prediction_time"))
    days = (pl.coalesce(decided, limit, silent) - pl.col("prediction_time")).dt.total_microseconds() / DAY
    return days.cast(pl.Float64)


def _days(column: str) -> pl.Expr:
    return (pl.col(column) - pl.col("prediction_time")).dt.total_microseconds() / DAY
