"""Which events become tokens, and in what order."""

from __future__ import annotations

import numpy as np
import polars as pl

from sequela.record.events import Events
from sequela.record.schema import BIRTH, FOLLOW_UP_END, RACE_PREFIX, SEX_PREFIX, means
from sequela.record.timeline import STATIC
from sequela.tokens.ehr.code import order_rank
from sequela.tokens.ehr.settings import TokenSettings


def moving(columns: Events, settings: TokenSettings) -> Events:
    """The events that may become tokens: dated, no birth, end of follow-up, sex or race, and thinned."""
    keep = (columns.time != STATIC) & ~columns.called(_no_event)
    events = columns if keep.all() else columns.take(keep)
    return _thinned(events, settings.thin_minutes) if settings.thin_minutes else events


def _no_event(code: str) -> bool:
    return means(code, BIRTH) or means(code, FOLLOW_UP_END) or code.startswith((SEX_PREFIX, RACE_PREFIX))


def in_token_order(events: Events) -> Events:
    """Sort the events of each patient and moment by rank, code and value (no value first).

    The events are already sorted by patient and time.

    >>> nothing = np.full(3, np.nan, np.float32)
    >>> names = ("HOSPITAL_ADMISSION", "LAB//HB", "MEDS_DEATH")
    >>> same_time = Events(np.zeros(3, int), np.zeros(3, int), np.array([2, 1, 0]), nothing, names)
    >>> [names[code] for code in in_token_order(same_time).code]
    ['HOSPITAL_ADMISSION', 'LAB//HB', 'MEDS_DEATH']
    """
    rank = [order_rank(name) for name in events.names]
    position = np.empty(len(rank), np.int64)
    position[sorted(range(len(rank)), key=lambda row: (rank[row], events.names[row]))] = np.arange(len(rank))
    order = position[events.code]
    tied = (events.patient[1:] == events.patient[:-1]) & (events.time[1:] == events.time[:-1])
    value = np.where(np.isnan(events.number), -np.inf, events.number)
    later = (order[1:] > order[:-1]) | ((order[1:] == order[:-1]) & (value[1:] >= value[:-1]))
    wrong = tied & ~later
    if not wrong.any():
        return events
    # Only moments that are out of order are sorted, each where it is.
    moment = np.append(0, np.cumsum(~tied))
    mixed = np.zeros(moment[-1] + 1, bool)
    mixed[moment[1:][wrong]] = True
    rows = np.flatnonzero(mixed[moment])
    every = np.arange(len(events))
    every[rows] = rows[_sorted_pairs(moment[rows] * len(rank) + order[rows], value[rows])]
    return events.take(every)


def _sorted_pairs(key: np.ndarray, value: np.ndarray) -> np.ndarray:
    """`np.lexsort((value, key))`, several times faster for keys [N] that come in short rising runs with few ties."""
    out = np.argsort(key, kind="stable")
    key, value = key[out], value[out]
    same = key[1:] == key[:-1]
    if (same & (value[1:] < value[:-1])).any():
        tied = np.append(False, same) | np.append(same, False)
        out[tied] = out[tied][np.lexsort((value[tied], key[tied]))]
    return out


def _thinned(events: Events, minutes: int) -> Events:
    """Keep each code once in every time window: its first mention without a value, its last value otherwise.

    The values kept in a window are dated to the latest of them, which saves time tokens. An event without a value ends
    a window, so no value is moved past a diagnosis, a discharge or a death.
    """
    frame = pl.DataFrame({
        "patient": events.patient,
        "time": pl.Series(events.time).cast(pl.Datetime("us")),
        "code": events.code,
        "number": events.number,
    })  # fmt: skip
    frame = frame.with_columns(window=pl.col("time").dt.truncate(f"{minutes}m"))
    bare = pl.col("number").is_nan()
    frame = frame.filter(
        ~bare | pl.struct("patient", "window", "code", bare.alias("bare")).is_first_distinct()
    )
    frame = frame.with_columns(block=bare.cum_sum().over("patient"))
    group = ["patient", "window", "block"]
    last = frame.filter(~bare).group_by(*group, "code", maintain_order=True).agg(pl.all().last())
    last = last.with_columns(pl.col("time").max().over(group))
    columns = ["patient", "time", "code", "number"]
    frame = pl.concat([frame.filter(bare).select(columns), last.select(columns)]).sort(
        "patient", "time", maintain_order=True
    )
    time = frame["time"].to_physical().to_numpy()
    return Events(
        frame["patient"].to_numpy(), time, frame["code"].to_numpy(), frame["number"].to_numpy(), events.names
    )
