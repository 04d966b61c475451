"""Labels of whole cohorts at once: `Task.label` in polars, for real events and for imagined ones."""

from __future__ import annotations

import polars as pl

from sequela.record.duration import DAY
from sequela.record.schema import FOLLOW_UP_END
from sequela.rollout.folder import KEY
from sequela.task.task import Task, matches


def labels(task: Task, events: pl.DataFrame, times: pl.DataFrame) -> pl.DataFrame:
    """What `task.label` answers for every row of `times`, in one pass over `events`.

    Args:
        events: MEDS columns, each timeline in order; `numeric_value` only where `task.by_value`. Imagined events also
            carry `prediction_time` and `rollout`.
        times: one question a row: `subject_id`, `prediction_time` and, for imagined events, `rollout`; optionally
            `end`, the time until which the timeline is complete. Without it, real events tell (see `timelines`).

    Returns:
        `times` with `label` (Float64, null where `task.label` says None), `until_days` and `decided`, what ended the
        wait: "outcome"; "end", an `ends` event; "horizon", to which the timeline is complete; or "censored", the
        timeline ends too early to know. `until_days` (Float64): days from the prediction time until then, 0 where the
        timeline ended before. A count is never decided by an outcome.
    """
    key = [column for column in KEY if column in times.columns]
    asked = times if "end" in times.columns else times.join(_ends(events), on="subject_id", how="left")
    asked = asked.with_columns(_limit=_limit(task))
    after = (
        events.filter(matches(task.decided_by()))
        .join(
            asked.select(*key, "_limit"),
            on=[column for column in key if column in events.columns],
            maintain_order="left",
        )
        .filter(pl.col("time").is_between(pl.col("prediction_time"), pl.coalesce("_limit", "time")))
        .group_by(key)
        .agg(**_found(task))
    )
    complete = (pl.col("end") >= pl.col("_limit")).fill_null(False)
    decided = (
        pl.when(pl.col("_outcome").is_not_null() & (pl.col("_outcome") <= pl.col("_ending")).fill_null(True))
        .then(pl.lit("outcome"))
        .when(pl.col("_ending").is_not_null())
        .then(pl.lit("end"))
        .when(complete)
        .then(pl.lit("horizon"))
        .otherwise(pl.lit("censored"))
    )
    answered = asked.join(after, on=key, how="left", maintain_order="left").with_columns(decided=decided)
    return answered.select(*times.columns, label=_label(task), until_days=_until_days(), decided="decided")


def _found(task: Task) -> dict[str, pl.Expr]:
    """What the events inside the horizon tell of one question: `_ending`, the first end, and of the outcomes `_outcome`
    (when there were enough), `_number` or `_counted`, as the kind asks."""
    time, ending = pl.col("time"), pl.col("time").filter(matches(task.ends)).min()
    counts = matches(task.outcome) & task.admitted() if task.by_value else matches(task.outcome)
    if task.kind == "count":
        nothing = pl.lit(None, pl.Datetime("us"))  # no single event decides a count
        return {
            "_ending": ending,
            "_outcome": nothing,
            "_counted": (counts & (time <= pl.coalesce(ending, time))).sum(),
        }
    if task.kind == "value":
        counts &= pl.col("numeric_value").is_not_nan()  # null, like false, is no outcome
        number = pl.col("numeric_value").filter(counts).sort_by(time.filter(counts), maintain_order=True)
        return {
            "_ending": ending,
            "_outcome": time.filter(counts).min(),
            "_number": number.first().cast(pl.Float64),
        }
    times = time.filter(counts)
    enough = times.min() if task.at_least == 1 else times.sort().get(task.at_least - 1, null_on_oob=True)
    return {"_ending": ending, "_outcome": enough}


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
    happened, settled = pl.col("decided") == "outcome", pl.col("decided").is_in(["end", "horizon"])
    if task.kind == "time":
        return pl.when(happened).then(_days("_outcome"))
    if task.kind == "value":
        return pl.when(happened).then(pl.col("_number"))
    if task.kind == "count":
        return pl.when(settled).then(pl.col("_counted").fill_null(0).cast(pl.Float64))
    return pl.when(happened).then(pl.lit(1.0)).when(settled).then(pl.lit(0.0))


def _until_days() -> pl.Expr:
    at, silent = pl.col("prediction_time"), pl.max_horizontal("end", "prediction_time")
    whens = {"outcome": pl.col("_outcome"), "end": pl.col("_ending"), "horizon": pl.col("_limit")}
    until = pl.coalesce(
        *(pl.when(pl.col("decided") == how).then(when) for how, when in whens.items()), silent
    )
    return ((until - at).dt.total_microseconds() / DAY).cast(pl.Float64)


def _days(column: str) -> pl.Expr:
    return (pl.col(column) - pl.col("prediction_time")).dt.total_microseconds() / DAY
