"""Events to token rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sequela.record.events import Events, births
from sequela.record.schema import FOLLOW_UP_END, RACE_PREFIX, SEX_PREFIX, means
from sequela.record.timeline import STATIC
from sequela.tokens.ehr.clock import period_edges
from sequela.tokens.ehr.gaps import GapCounts
from sequela.tokens.ehr.order import in_token_order, moving
from sequela.tokens.ehr.scheme import EhrScheme
from sequela.tokens.ragged import Ragged, TokenColumn, interleave
from sequela.tokens.tokenizer import Encoded
from sequela.tokens.vocabulary import BOS

MINUTE = 60_000_000  # microseconds


@dataclass(frozen=True)
class _KnownCodes:
    """What a scheme knows about C codes: the ids of their `parts` [C, 3] and the row of their `bins` [C]; -1: none."""

    parts: np.ndarray
    bins: np.ndarray


@dataclass(frozen=True)
class EncodedRecords(Encoded):
    """Token rows of P patients, and the gaps between the events behind them, which a fit adds up over shards."""

    gaps: GapCounts


def encode(scheme: EhrScheme, columns: Events, *, translated: bool = False) -> EncodedRecords:
    """Token rows of all patients who have an event with a token.

    Sex stands in the head of a patient, even if a record dates it: it is known from birth. So does race if it is known
    by the first event; one that is dated later stands before the first event from then on, where it differs from the
    one before. Other events without a date are not encoded. A hierarchical code is cut at its first part without a
    token; a code whose first part has none is dropped and counted.

    Args:
        translated: whether the code maps have been applied to the events already.
    """
    if not translated:
        columns = scheme.translated(columns)
    codes = _look_up(scheme, columns.names)
    events = moving(columns, scheme.settings)
    known = codes.parts[:, 0] >= 0
    lost = np.bincount(events.code, minlength=len(known)) * ~known
    if lost.any():
        events = events.take(known[events.code])
    events = in_token_order(events)

    starts = events.starts
    first = np.zeros(len(events), bool)
    first[starts] = True
    last = np.append(starts[1:], len(events))[: len(starts)] - 1
    owner = np.searchsorted(columns.patient[columns.starts], events.patient[starts])  # row among all patients
    passed = np.diff(events.time, prepend=events.time[:1])
    passed[starts] = 0
    passed = np.minimum(passed, scheme.longest_gap * MINUTE)
    moved = np.flatnonzero((passed != 0) | first)  # age and period change only when time does

    tail, rest, cut = np.zeros(len(starts), np.int64), None, np.zeros(0, np.int64)
    if not scheme.positions_from_clock:
        tail, rest, cut = _tails(scheme, columns, owner, events.time[last], _dead(scheme, codes, events))
    times, gaps = _intervals(scheme, passed, cut)
    attributes = [_attribute(scheme, columns, events, owner, prefix) for prefix in (SEX_PREFIX, RACE_PREFIX)]
    heads, later = zip(*attributes, strict=True)
    laid = interleave(
        [
            TokenColumn(BOS, starts),
            *heads,
            *times,
            *_carried(scheme, columns, events, owner, moved),
            *later,
            *_codes(scheme, codes, events),
            TokenColumn(scheme.vocabulary.index.get(scheme.intervals.names[-1], 0), last, tail),
        ],
        len(events),
        np.uint16 if len(scheme.vocabulary) <= 1 << 16 else np.uint32,
    )
    offsets = laid.offsets[np.append(starts, len(events))]
    clock = None
    if scheme.positions_from_clock:
        since = np.cumsum(passed)  # over all patients: what overflows cancels out
        minutes = (since - np.repeat(since[starts], last + 1 - starts)) // MINUTE
        minutes = np.minimum(minutes, np.iinfo(np.int32).max).astype(np.int32)
        clock = Ragged(np.repeat(minutes, np.diff(laid.offsets)), offsets)
    dropped = {columns.names[row]: int(lost[row]) for row in np.flatnonzero(lost)}
    return EncodedRecords(
        events.patient[starts],
        Ragged(laid.flat, offsets),
        clock,
        events.time[last],
        len(events),
        dropped,
        rest,
        gaps,
    )


def _look_up(scheme: EhrScheme, names: tuple[str, ...]) -> _KnownCodes:
    parts = np.full((len(names), 3), -1, np.int64)
    bins = np.full(len(names), -1, np.int64)
    for row, name in enumerate(names):
        ids = scheme.known(name)
        parts[row, : len(ids)] = ids
        bins[row] = scheme.bins.rows.get(name, -1)
    return _KnownCodes(parts, bins)


def _intervals(
    scheme: EhrScheme, passed: np.ndarray, cut: np.ndarray
) -> tuple[list[TokenColumn], GapCounts]:
    """The time tokens before each event, from the microseconds since the event before; and those gaps, counted together
    with those `cut` off, in minutes."""
    intervals = scheme.intervals
    rows = np.flatnonzero(passed >= intervals.edges[0] * MINUTE)
    minutes = passed[rows] // MINUTE
    repeats, interval = intervals.encode(minutes)
    gaps = intervals.count(minutes, cut)
    if scheme.positions_from_clock:
        return [], gaps
    first = scheme.vocabulary.index[intervals.names[0]]
    long, short = repeats > 0, interval >= 0
    return [
        TokenColumn(first + len(intervals.edges) - 1, rows[long], repeats[long]),
        TokenColumn(first + interval[short], rows[short]),
    ], gaps


def _tails(
    scheme: EhrScheme, columns: Events, owner: np.ndarray, last: np.ndarray, dead: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How each patient's record goes on after the last event that has a token [P]: for how many whole longest
    intervals, and what `Encoded.rest` then says. Without `FOLLOW_UP//END` it ends with the last event of any code.
    And for how many minutes those records go on of which the end is stated: those that simply stop say nothing of how
    long gaps are, because where they stop depends on what happened."""
    end = columns.time[np.append(columns.starts[1:], len(columns)) - 1] if len(columns) else last
    stated = columns.called(lambda code: means(code, FOLLOW_UP_END))
    followed = np.zeros(len(end), bool)
    if stated.any():
        until = np.full(len(end), STATIC)
        rows = np.flatnonzero(stated)
        np.maximum.at(until, np.searchsorted(columns.starts, rows, side="right") - 1, columns.time[rows])
        followed = until != STATIC
        end = np.where(followed, until, end)
    minutes = np.minimum((np.maximum(end[owner], last) - last) // MINUTE, scheme.longest_gap)
    whole, rest = np.divmod(minutes, scheme.intervals.edges[-1])
    cut = minutes[followed[owner] & ~dead]
    return np.where(dead, 0, whole), np.where(dead, -1, rest).astype(np.int32), cut


def _dead(scheme: EhrScheme, codes: _KnownCodes, events: Events) -> np.ndarray:
    """Of whom there is an event after which nothing comes [P]."""
    final = np.isin(codes.parts[:, 0], scheme.final)[events.code]
    return np.logical_or.reduceat(final, events.starts) if len(events) else np.zeros(0, bool)


def _attribute(
    scheme: EhrScheme, columns: Events, events: Events, owner: np.ndarray, prefix: str
) -> tuple[TokenColumn, TokenColumn]:
    """Where the sex or race of each patient stands: before the first event, and before later ones.

    Of several at one time the first by name counts.
    """
    rows = np.flatnonzero(columns.called(lambda code: code.startswith(prefix)))
    time = np.full(len(rows), STATIC) if prefix == SEX_PREFIX else columns.time[rows]
    patient = np.searchsorted(columns.starts, rows, side="right") - 1
    order = np.lexsort((columns.code[rows], time, patient))
    rows, time, patient = rows[order], time[order], patient[order]
    tokens = np.array([scheme.attribute(name) if name.startswith(prefix) else -1 for name in columns.names], int)
    token = tokens[columns.code[rows]]
    number = np.minimum(np.searchsorted(owner, patient), max(len(owner) - 1, 0))
    kept = np.append(True, (patient[1:] != patient[:-1]) | (time[1:] != time[:-1]))[: len(rows)]
    kept &= (token >= 0) & (owner[number] == patient if len(owner) else False)
    token, time, number = token[kept], time[kept], number[kept]
    row, known = _first_since(events, number, time)
    last = np.append((row[1:] != row[:-1]), True)[: len(row)] & known  # before one event, the latest
    token, number, row = token[last], number[last], row[last]
    new = np.append(True, (number[1:] != number[:-1]) | (token[1:] != token[:-1]))[: len(row)]
    token, number, row = token[new], number[new], row[new]
    opens = row == events.starts[number]
    return TokenColumn(token[opens], row[opens]), TokenColumn(token[~opens], row[~opens])


def _first_since(events: Events, number: np.ndarray, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The row of the first event of patient `number` [N] at or after `time` [N], and whether there is one."""
    low, stop = events.starts[number], np.append(events.starts[1:], len(events))[number]
    high = stop.copy()
    while (low < high).any():
        middle = (low + high) // 2
        earlier = (low < high) & (events.time[np.minimum(middle, len(events) - 1)] < time)
        high = np.where(earlier, high, np.minimum(middle, high))
        low = np.where(earlier, middle + 1, low)
    return low, low < stop


def _carried(
    scheme: EhrScheme, columns: Events, events: Events, owner: np.ndarray, moved: np.ndarray
) -> list[TokenColumn]:
    """Age band and calendar period, where they differ from those at the patient's event before."""
    row = np.searchsorted(events.starts, moved, side="right") - 1
    opens = np.append(True, row[1:] != row[:-1])[: len(row)]
    time = events.time[moved]
    band = scheme.age_bands(births(columns)[owner[row]], time)
    out = [_changes(np.where(band < 0, -1, scheme.age_tokens[0] + band), opens, moved)]
    if len(scheme.period_tokens):
        names = [scheme.vocabulary.tokens[token] for token in scheme.period_tokens]
        period = np.searchsorted(period_edges(names), time, side="right")
        out.append(_changes(scheme.period_tokens[0] + period, opens, moved))
    return out


def _changes(token: np.ndarray, opens: np.ndarray, rows: np.ndarray) -> TokenColumn:
    new = (opens | (np.diff(token, prepend=-2) != 0)) & (token >= 0)
    return TokenColumn(token[new], rows[new])


def _codes(scheme: EhrScheme, codes: _KnownCodes, events: Events) -> list[TokenColumn]:
    """The parts of each code and its quantile, or a fused token for both."""
    quantile = scheme.bins.encode(codes.bins[events.code], events.number)
    valued = np.flatnonzero(quantile >= 0)
    head = codes.parts[:, 0][events.code]
    if scheme.fused_base:
        base = np.array([scheme.fused_base.get(name, -1) for name in events.names])[events.code[valued]]
        fused = valued[base >= 0]
        head[fused] = base[base >= 0] + quantile[fused]
        valued = valued[base < 0]
    columns = [TokenColumn(head)]
    for part in (1, 2):
        token = codes.parts[:, part]
        if (token >= 0).any():
            rows = np.flatnonzero((token >= 0)[events.code])
            columns.append(TokenColumn(token[events.code[rows]], rows))
    if len(valued):
        columns.append(TokenColumn(scheme.vocabulary.index["Q//1"] + quantile[valued], valued))
    return columns
