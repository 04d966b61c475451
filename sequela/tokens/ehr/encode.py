"""Timelines to token rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sequela.record.events import NEVER, Events, births
from sequela.record.schema import FOLLOW_UP_END, RACE_PREFIX, SEX_PREFIX
from sequela.record.timeline import STATIC
from sequela.tokens.ehr.clock import age_band, period_edges
from sequela.tokens.ehr.order import in_token_order, moving
from sequela.tokens.ehr.tokenizer import Tokenizer
from sequela.tokens.ragged import Column, Ragged, interleave
from sequela.tokens.vocabulary import BOS

MINUTE = 60_000_000  # microseconds


@dataclass(frozen=True)
class Encoded:
    """Token rows of P patients, in the order of their ids.

    Attributes:
        patients: int64 [P], those who have an event with a token.
        tokens: ragged [P, length], in the narrowest type that holds the vocabulary.
        clock: ragged [P, length], minutes since the patient's first event at each token; None unless time is rotary.
        last: int64 [P], microsecond of each patient's last event with a token.
        events: number of events with tokens.
        dropped: number of events without a token, by code.
        gaps: int64 [I, 2], minutes and number of the gaps of each interval class.
    """

    patients: np.ndarray
    tokens: Ragged
    clock: Ragged | None
    last: np.ndarray
    events: int
    dropped: dict[str, int]
    gaps: np.ndarray


@dataclass(frozen=True)
class _Known:
    """What the tokenizer says of the codes of one `Events`: `parts` [C, 3] (-1: none) and `bins` [C] (-1: none)."""

    parts: np.ndarray
    bins: np.ndarray


def encode(tokenizer: Tokenizer, columns: Events, *, translated: bool = False) -> Encoded:
    """Token rows of all patients who have an event with a token; `translated` says that the code maps were applied.

    Static events are sex and race; others are ignored. A hierarchical code whose later part is unknown is cut
    there; a code without a known first part is dropped and counted.
    """
    if not translated:
        columns = tokenizer.translated(columns)
    known = _look_up(tokenizer, columns.names)
    events = moving(columns, tokenizer.settings)
    kept = known.parts[:, 0] >= 0
    lost = np.bincount(events.code, minlength=len(kept)) * ~kept
    if lost.any():
        events = events.take(kept[events.code])
    events = in_token_order(events)

    starts = events.starts
    first = np.zeros(len(events), bool)
    first[starts] = True
    last = np.append(starts[1:], len(events))[: len(starts)] - 1
    owner = np.searchsorted(columns.patient[columns.starts], events.patient[starts])  # row among all patients
    passed = np.diff(events.time, prepend=events.time[:1])
    passed[starts] = 0
    moved = np.flatnonzero((passed != 0) | first)  # age and period change only where time does

    spent, gaps = _intervals(tokenizer, passed)
    tail = _tails(tokenizer, columns, owner, events.time[last])
    columns_of = [
        Column(BOS, starts),
        *_heads(tokenizer, columns, owner, starts),
        *spent,
        *_carried(tokenizer, columns, events, owner, moved),
        *_codes(tokenizer, known, events),
        Column(tokenizer.vocabulary.index.get(tokenizer.intervals.names[-1], 0), last, tail),
    ]
    width = np.uint16 if len(tokenizer.vocabulary) <= 1 << 16 else np.uint32
    laid = interleave(columns_of, len(events), width)
    offsets = laid.offsets[np.append(starts, len(events))]
    clock = None
    if tokenizer.settings.time == "rotary":
        minutes = (events.time - np.repeat(events.time[starts], last + 1 - starts)) // MINUTE
        minutes = np.minimum(minutes, np.iinfo(np.int32).max).astype(np.int32)
        clock = Ragged(np.repeat(minutes, np.diff(laid.offsets)), offsets)
    dropped = {columns.names[row]: int(lost[row]) for row in np.flatnonzero(lost)}
    return Encoded(
        events.patient[starts],
        Ragged(laid.flat, offsets),
        clock,
        events.time[last],
        len(events),
        dropped,
        gaps,
    )


def _look_up(tokenizer: Tokenizer, names: tuple[str, ...]) -> _Known:
    parts = np.full((len(names), 3), -1, np.int64)
    bins = np.full(len(names), -1, np.int64)
    for row, name in enumerate(names):
        own = tokenizer.known(name)
        parts[row, : len(own)] = own
        bins[row] = tokenizer.bins.rows.get(name, -1)
    return _Known(parts, bins)


def _intervals(tokenizer: Tokenizer, passed: np.ndarray) -> tuple[list[Column], np.ndarray]:
    """The time tokens before each event, from the microseconds passed since the one before."""
    intervals = tokenizer.intervals
    rows = np.flatnonzero(passed >= intervals.edges[0] * MINUTE)
    minutes = passed[rows] // MINUTE
    repeats, kind = intervals.encode(minutes)
    gaps = intervals.counted(kind, minutes % intervals.edges[-1])
    if tokenizer.settings.time == "rotary":
        return [], gaps
    first = tokenizer.vocabulary.index[intervals.names[0]]
    long, short = repeats > 0, kind >= 0
    return [
        Column(first + len(intervals.edges) - 1, rows[long], repeats[long]),
        Column(first + kind[short], rows[short]),
    ], gaps


def _tails(tokenizer: Tokenizer, columns: Events, owner: np.ndarray, last: np.ndarray) -> np.ndarray:
    """How many longest intervals each patient was followed up for after the last event [P]."""
    if tokenizer.settings.time == "rotary" or FOLLOW_UP_END not in columns.names:
        return np.zeros(len(last), np.int64)
    end = np.full(len(columns.starts), STATIC)
    rows = np.flatnonzero(columns.code == columns.names.index(FOLLOW_UP_END))
    np.maximum.at(end, np.searchsorted(columns.starts, rows, side="right") - 1, columns.time[rows])
    return tokenizer.intervals.tail((np.maximum(end[owner], last) - last) // MINUTE)


def _heads(tokenizer: Tokenizer, columns: Events, owner: np.ndarray, starts: np.ndarray) -> list[Column]:
    """Sex and race, in the row of each patient's first event; of several the first by name."""
    out = []
    static = np.flatnonzero(columns.time == STATIC)
    for prefix in (SEX_PREFIX, RACE_PREFIX):
        own = np.array([name.startswith(prefix) for name in columns.names], bool)
        rows = static[own[columns.code[static]]] if own.any() else static[:0]
        code = np.full(len(columns.starts), len(columns.names))
        np.minimum.at(code, np.searchsorted(columns.starts, rows, side="right") - 1, columns.code[rows])
        token = np.array([tokenizer.vocabulary.index.get(name, -1) for name in columns.names] + [-1])[
            code[owner]
        ]
        out.append(Column(token[token >= 0], starts[token >= 0]))
    return out


def _carried(
    tokenizer: Tokenizer, columns: Events, events: Events, owner: np.ndarray, moved: np.ndarray
) -> list[Column]:
    """Age band and calendar period, where they are not those of the patient's event before."""
    row = np.searchsorted(events.starts, moved, side="right") - 1
    opens = np.append(True, row[1:] != row[:-1])[: len(row)]
    time = events.time[moved]
    born = births(columns)[owner[row]]
    band = age_band(time - np.where(born == NEVER, time, born), tokenizer.settings.age_band_years)
    out = [_changes(np.where(born == NEVER, -1, tokenizer.age_tokens[0] + band), opens, moved)]
    if len(tokenizer.period_tokens):
        names = [tokenizer.vocabulary.tokens[token] for token in tokenizer.period_tokens]
        period = np.searchsorted(period_edges(names), time, side="right")
        out.append(_changes(tokenizer.period_tokens[0] + period, opens, moved))
    return out


def _changes(token: np.ndarray, opens: np.ndarray, rows: np.ndarray) -> Column:
    new = (opens | (np.diff(token, prepend=-2) != 0)) & (token >= 0)
    return Column(token[new], rows[new])


def _codes(tokenizer: Tokenizer, known: _Known, events: Events) -> list[Column]:
    """The parts of each code and its quantile, or a fused token for both."""
    quantile = tokenizer.bins.encode(known.bins[events.code], events.number)
    valued = np.flatnonzero(quantile >= 0)
    head = known.parts[:, 0][events.code]
    if tokenizer.fused_base:
        base = np.array([tokenizer.fused_base.get(name, -1) for name in events.names])[events.code[valued]]
        fused = valued[base >= 0]
        head[fused] = base[base >= 0] + quantile[fused]
        valued = valued[base < 0]
    columns = [Column(head)]
    for place in (1, 2):
        token = known.parts[:, place]
        if (token >= 0).any():
            rows = np.flatnonzero((token >= 0)[events.code])
            columns.append(Column(token[events.code[rows]], rows))
    if len(valued):
        columns.append(Column(tokenizer.vocabulary.index["Q//1"] + quantile[valued], valued))
    return columns
