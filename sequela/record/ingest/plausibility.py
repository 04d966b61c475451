"""Implausible records and dates are counted, not changed."""

from __future__ import annotations

import math

import polars as pl

from sequela.record.duration import LAST_YEAR_OF_DATA
from sequela.record.ingest.day_end import LAST_SECOND
from sequela.record.ingest.leakage import boundaries
from sequela.record.schema import BIRTH, DEATH, FOLLOW_UP_END, means
from sequela.record.spelling import SEXES, among, is_sex, spelled

OLDEST_YEARS = 120
TOO_OLD, ENDS, EARLY = f"older than {OLDEST_YEARS} years", "several ends of follow-up", "events before birth"
OLDEST = pl.duration(days=round(OLDEST_YEARS * 365.25))
AFTER_DISCHARGE = "a death known by its day alone, behind a discharge of that day"
AHEAD, BACK = 20, 50  # years
NAMED = 5  # codes


def count_implausible(events: pl.DataFrame) -> dict[str, int]:
    """Implausible finding -> number of patients with it, zeros included.

    "discharge before admission": at some time, more stays of one kind had ended than begun, although at the end of the
    record at least as many had begun as ended. A record that starts in the middle of a stay is therefore not counted.

    Args:
        events: a MEDS frame in any order, without duplicates.
    """
    code, patient = events["code"].unique(), pl.col("subject_id")
    born = events.filter(among(code, lambda code: means(code, BIRTH)))
    births, first = born["subject_id"], born.group_by(patient).agg(birth=pl.col("time").min())
    died = events.filter(among(code, lambda code: means(code, DEATH)))
    deaths = died.group_by(patient).agg(pl.len(), death=pl.col("time").min())
    sex = events.filter(among(code, is_sex)).with_columns(pl.col("code").cast(pl.String))
    sex = sex.with_columns(pl.col("code").replace({code: spelled(code) for code in sex["code"].unique()}))
    sex = sex.group_by(patient).agg(pl.col("code").n_unique(), known=pl.col("code").is_in(SEXES).any())
    stated = among(code, lambda code: means(code, FOLLOW_UP_END))
    late = events.filter(~stated).join(deaths.select("subject_id", "death"), on="subject_id")
    balance = (pl.col("opens").cast(pl.Int64) - pl.col("closes")).cum_sum()
    stays = boundaries(events).group_by("subject_id", "stay", maintain_order=True)
    stays = stays.agg(least=balance.min(), last=balance.last())
    turned = stays.filter((pl.col("least") < 0) & (pl.col("last") >= 0))
    old = events.join(first, on="subject_id").filter(pl.col("time") > pl.col("birth") + OLDEST)
    ends = events.filter(stated).group_by(patient).agg(pl.col("time").n_unique())
    return {
        "no birth": events["subject_id"].n_unique() - births.n_unique(),
        "two births": births.filter(births.is_duplicated()).n_unique(),
        "no sex": events["subject_id"].n_unique() - sex["known"].sum(),
        "two sexes": sex.filter(pl.col("code") > 1).height,
        "two deaths": deaths.filter(pl.col("len") > 1).height,
        "events after death": late.filter(pl.col("time") > pl.col("death"))["subject_id"].n_unique(),
        "discharge before admission": turned["subject_id"].n_unique(),
        TOO_OLD: old["subject_id"].n_unique(),
        ENDS: ends.filter(pl.col("time") > 1).height,
        AFTER_DISCHARGE: _died_on_day_of_discharge(events, deaths),
    }


def _died_on_day_of_discharge(events: pl.DataFrame, deaths: pl.DataFrame) -> int:
    """Patients of whom nobody knows whether they died before they left: the death stands at the end of its day."""
    time, death = pl.col("time"), pl.col("death")
    late = deaths.filter(death == death.dt.truncate("1d") + LAST_SECOND)
    left = among(events["code"].unique(), lambda code: code.split("/")[0] == "HOSPITAL_DISCHARGE")
    behind = events.filter(left).join(late, on="subject_id")
    return behind.filter((time < death) & (time.dt.date() == death.dt.date()))["subject_id"].n_unique()


def far_dates(years: pl.DataFrame) -> dict:
    """The events whose dates are far from those of most others: how many, their codes, and the years of most others.

    Far is more than `AHEAD` years after, or `BACK` years before, the years in which the middle nine tenths of all
    events lie. A record may begin long before most of it, but what lies far ahead has not happened yet. So the years to
    come that stand apart from the fullest are not among these years, even if every record has a date there: those after
    `LAST_YEAR_OF_DATA`, and those behind a gap of more than `AHEAD` years with less than half the events.

    Args:
        years: rows (code, year, events).
    """
    by_year = years.group_by("year").agg(pl.col("events").sum()).sort("year")
    if by_year.is_empty():
        return {"events": 0, "codes": {}, "most": None}
    held = _without_years_to_come(by_year)
    before = held["events"].cum_sum()
    last = before[-1] - 1  # the events are numbered from 0, by year
    first_year = held["year"][int((before > math.ceil(0.05 * last)).arg_max())]
    last_year = held["year"][int((before > math.floor(0.95 * last)).arg_max())]
    low, high = sorted((first_year, last_year))
    year = pl.col("year")
    far = years.filter((year > high + AHEAD) | (year < low - BACK))
    codes = far.group_by("code").agg(pl.col("events").sum()).sort("events", "code", descending=[True, False])
    return {"events": int(far["events"].sum()), "codes": dict(codes.head(NAMED).rows()), "most": [low, high]}


def _without_years_to_come(by_year: pl.DataFrame) -> pl.DataFrame:
    """The rows (year, events) but for those ahead that stand apart from the fullest stretch of years."""
    shown = by_year.filter(pl.col("year") <= LAST_YEAR_OF_DATA)
    shown = by_year if shown.is_empty() else shown
    shown = shown.with_columns(_stretch=(pl.col("year").diff() > AHEAD).fill_null(False).cum_sum())
    sizes = shown.group_by("_stretch").agg(pl.col("events").sum()).sort("_stretch")["events"]
    fullest = sizes.arg_max()
    apart = [stretch for stretch, size in enumerate(sizes) if stretch > fullest and 2 * size < sizes[fullest]]
    return shown.filter(~pl.col("_stretch").is_in(apart)).drop("_stretch")
