"""How a kind of task reads its label: off one timeline (the reference), and off frames of many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from sequela.record.duration import DAY

HAPPENED, SETTLED = pl.col("decided") == "outcome", pl.col("decided").is_in(["end", "horizon"])


@dataclass(frozen=True)
class Reading:
    """What one timeline shows of a question asked at `at` (microseconds).

    Attributes:
        times, numbers: of the outcome events that count, in order; numbers are NaN if the event has none.
        settled: whether an end event came inside the horizon, or the timeline is complete up to the horizon.
        at_least: how many events it takes.
    """

    at: int
    times: Sequence[int]
    numbers: Sequence[float]
    settled: bool
    at_least: int


@dataclass(frozen=True, eq=False)
class Counting:
    """The same for the events inside the horizon, grouped by question, as expressions over a group.

    Attributes:
        counts: whether an event is an outcome event that counts.
        ending: the time of the first end event.
        at_least: how many events it takes.
    """

    counts: pl.Expr
    ending: pl.Expr
    at_least: int


@dataclass(frozen=True, eq=False)
class LabelRule:
    """How a kind reads its label.

    Attributes:
        counted: which outcome codes decide, unless a condition on events interferes: the "first" one settles the
        answer,
            "all" of them are needed up to an end or the horizon, or "none" does by its code alone.
        by_value: whether the numbers of events bear on the answer even without bounds.
        label: of one timeline; None if it is not known.
        columns: of one question: `_outcome`, when the label was decided by outcome events (null: not), and what
            else `value` needs.
        value: the label, from these columns and `decided`; null if it is not known. Must agree with `label`.
    """

    counted: str
    by_value: bool
    label: Callable[[Reading], float | None]
    columns: Callable[[Counting], dict[str, pl.Expr]]
    value: pl.Expr


def _enough(counting: Counting) -> dict[str, pl.Expr]:
    times = pl.col("time").filter(counting.counts)
    if counting.at_least == 1:
        return {"_outcome": times.min()}
    return {"_outcome": times.sort().get(counting.at_least - 1, null_on_oob=True)}


def _number(counting: Counting) -> dict[str, pl.Expr]:
    time, number = pl.col("time"), pl.col("numeric_value")
    counts = counting.counts & number.is_not_nan()  # null, like false, is no outcome
    first = number.filter(counts).sort_by(time.filter(counts), maintain_order=True).first()
    return {"_outcome": time.filter(counts).min(), "_number": first.cast(pl.Float64)}


def _count(counting: Counting) -> dict[str, pl.Expr]:
    time = pl.col("time")
    return {
        "_outcome": pl.lit(None, pl.Datetime("us")),  # no single event decides a count
        "_counted": (counting.counts & (time <= pl.coalesce(counting.ending, time))).sum(),
    }


def _whether(reading: Reading) -> float | None:
    if len(reading.times) >= reading.at_least:
        return 1
    return 0 if reading.settled else None


def _days(reading: Reading) -> float | None:
    if len(reading.times) < reading.at_least:
        return None
    return (reading.times[reading.at_least - 1] - reading.at) / DAY


WHETHER = LabelRule(
    "first", False, _whether, _enough, pl.when(HAPPENED).then(pl.lit(1.0)).when(SETTLED).then(pl.lit(0.0))
)
WHEN = LabelRule(
    "first",
    False,
    _days,
    _enough,
    pl.when(HAPPENED).then((pl.col("_outcome") - pl.col("prediction_time")).dt.total_microseconds() / DAY),
)
HOW_OFTEN = LabelRule(
    "all",
    False,
    lambda reading: len(reading.times) if reading.settled else None,
    _count,
    pl.when(SETTLED).then(pl.col("_counted").fill_null(0).cast(pl.Float64)),
)
WHICH_NUMBER = LabelRule(
    "none",
    True,
    lambda reading: next((float(number) for number in reading.numbers if not np.isnan(number)), None),
    _number,
    pl.when(HAPPENED).then(pl.col("_number")),
)
