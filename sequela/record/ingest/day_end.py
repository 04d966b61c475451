"""Caps dates without a clock: at the end of the stay that ends on that day, and at the end of the record.

What is dated by the day alone stands at the last second of that day, since it was not known earlier for certain. On the
day of a discharge this would put the last prescriptions behind the discharge, and on the day of death behind the death,
where they are dropped. A patient who left the hospital at noon was not there in the evening, so the end of the stay, or
of the record, is as late as such an event can have been known.

A death of which only the day is known would stand behind the discharge too, and a death in hospital would be none.
Where the stay that ends on that day says that the patient died, death is its end.
"""

from __future__ import annotations

from collections import Counter

import polars as pl

from sequela.record.ingest.leakage import PAIRED, STAYS, open_after
from sequela.record.schema import BIRTH, DEATH, FOLLOW_UP_END
from sequela.record.spelling import meaning

CAPPED_AT_STAY = "date without a clock -> end of the stay on that day"
CAPPED_AT_DEATH = "date without a clock -> end of the record on that day"
SECONDS = 86_399  # from the beginning of a day to its last second
LAST_SECOND = pl.duration(seconds=SECONDS)
BOUNDS = (*STAYS, *STAYS.values())  # first parts of codes that open and close stays
DIED = r"(?i)//(.*[^A-Z])?(DIED|EXPIRED|DECEASED|DEAD|DEATH)([^A-Z]|$)"
NOT_DIED = r"(?i)[^A-Z](NOT|NO|ALIVE|BEFORE)([^A-Z]|$)"


def cap_days(events: pl.DataFrame) -> tuple[pl.DataFrame, Counter[str]]:
    """The events in the given order, with those at the last second of a day moved to what ended before on that day.

    An event moves to the end of a stay in hospital, intensive care or the emergency department if that stay is the last
    thing that opened or closed on its day, and no other stay is open. Events whose row named a stay (`named`) only move
    to the end of the record, which is death or the last `FOLLOW_UP//END`. A death moves if the stay ends with it.

    Returns:
        The events, and how many moved to what.
    """
    time = pl.col("time")
    events, died = _deaths_to_stay(events)
    numbered = events.with_row_index("row")
    late = numbered.filter((time == time.dt.truncate("1d") + LAST_SECOND) & ~meaning(BIRTH))
    if late.is_empty():
        return events, died
    code = pl.col("code").cast(pl.String)
    columns = {"_bound": code.str.extract("^([^/]*)", 1).is_in(BOUNDS), "code": code}
    late = late.select("row", "subject_id", "time", "named", **columns) if "named" in late.columns else (
           late.select("row", "subject_id", "time", named=pl.lit(False), **columns))  # fmt: skip
    ours = events.join(late.select("subject_id").unique(), on="subject_id", how="semi")
    free = late.filter(~pl.col("named") & ~pl.col("_bound") & ~meaning(DEATH) & ~meaning(FOLLOW_UP_END))
    moves = pl.concat([_to_record(late, ours), _to_stay(free, ours)]).sort("row", "to").unique("row", keep="first")
    return _moved(numbered, moves, died)


def _moved(numbered: pl.DataFrame, moves: pl.DataFrame, counts: Counter[str]) -> tuple[pl.DataFrame, Counter[str]]:
    """The events without their row numbers, after the `moves`, and these counted besides what moved before."""
    if moves.is_empty():
        return numbered.drop("row"), counts
    moved = numbered.join(moves, on="row", how="left", maintain_order="left")
    counts = counts + Counter(dict(moves.group_by("why").len().sort("why").rows()))
    return moved.with_columns(time=pl.coalesce("to", "time")).drop("row", "to", "why"), counts


def _deaths_to_stay(events: pl.DataFrame) -> tuple[pl.DataFrame, Counter[str]]:
    """Deaths at the last second of a day, at the end of the stay on that day that says that the patient died."""
    time, code = pl.col("time"), pl.col("code").cast(pl.String)
    numbered = events.with_row_index("row")
    deaths = numbered.filter(meaning(DEATH) & (time == time.dt.truncate("1d") + LAST_SECOND))
    if deaths.is_empty():
        return events, Counter()
    deaths = deaths.select("row", "subject_id", "time")
    ours = events.join(deaths.select("subject_id").unique(), on="subject_id", how="semi")
    closes = code.str.extract("^([^/]*)", 1).is_in(list(STAYS.values()))
    says_so = ours.filter(closes & code.str.contains(DIED) & ~code.str.contains(NOT_DIED))
    moves = deaths.select("row", "subject_id").join(_to_stay(deaths, ours), on="row")
    moves = moves.join(says_so.select("subject_id", to="time").unique(), on=["subject_id", "to"], how="semi")
    return _moved(numbered, moves.drop("subject_id"), Counter())


def _to_record(late: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Rows (row, to, why) of the events on the day, and behind the moment, at which a record ends."""
    time = pl.col("time")
    ends = events.filter(meaning(DEATH) | meaning(FOLLOW_UP_END)).group_by("subject_id").agg(
        pl.min_horizontal(time.filter(meaning(DEATH)).min(), time.filter(meaning(FOLLOW_UP_END)).max()).alias("to")
    )
    on_day = late.join(ends, on="subject_id").filter((pl.col("to").dt.date() == time.dt.date()) & (pl.col("to") < time))
    return on_day.select("row", "to", why=pl.lit(CAPPED_AT_DEATH))


def _to_stay(late: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Rows (row, to, why) of the events on a day on which a stay ends, and nothing begins after it."""
    days = late.select("subject_id", "time").unique()
    states = days.join(open_after(events), on="subject_id", how="inner", suffix="_edge")
    states = states.filter(pl.col("time_edge") <= pl.col("time"))
    last = states.sort("time_edge").group_by("subject_id", "time", "stay").agg(
        pl.col("_open").last(), to=pl.col("time_edge").last(), closes=pl.col("closes").last() > 0
    )
    in_house = ~pl.col("stay").str.starts_with(PAIRED)
    whole = last.group_by("subject_id", "time").agg(
        pl.col("_open").any(), pl.col("to").max(), latest=pl.col("to").filter(in_house & pl.col("closes")).max()
    )
    ended = whole.filter(~pl.col("_open") & (pl.col("latest") == pl.col("to")))
    ended = ended.filter((pl.col("to").dt.date() == pl.col("time").dt.date()) & (pl.col("to") < pl.col("time")))
    return late.join(ended, on=["subject_id", "time"]).select("row", "to", why=pl.lit(CAPPED_AT_STAY))
