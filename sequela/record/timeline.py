"""One patient's events in time order, real or simulated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from sequela.record.schema import FOLLOW_UP_END, PAYLOAD
from sequela.record.spelling import meaning

STATIC = int(np.iinfo(np.int64).min)  # the time of undated events (sex, race), before everything else


@dataclass(frozen=True, eq=False)
class Timeline:
    """The events of one patient, sorted by time, static events first.

    Attributes:
        patient: the patient id (`subject_id` in MEDS).
        time: int64 [N], microseconds since 1970-01-01; `STATIC` for events without a time.
        code: str objects [N].
        number: float32 [N], NaN where the event has no numeric value.
        end: microseconds; the record is complete until then. None if no event is dated.
        text: str objects [N], None where an event has no text; None as a whole if no event of the dataset has one.
        media: str objects [N], the path of a file relative to the dataset's folder, None where an event has none;
            None as a whole if no event of the dataset has one.
        cut: whether more may have come at the moment `end`: a simulated future that stopped there.
    """

    patient: int
    time: np.ndarray
    code: np.ndarray
    number: np.ndarray
    end: int | None
    text: np.ndarray | None = None
    media: np.ndarray | None = None
    cut: bool = False

    def __post_init__(self) -> None:
        assert len(self.time) == len(self.code) == len(self.number)
        assert (self.time[1:] >= self.time[:-1]).all(), f"patient {self.patient}: events out of order"

    def __len__(self) -> int:
        return len(self.time)

    def until(self, at: int) -> Timeline:
        """What was known just before `at` (microseconds): static events and events strictly earlier."""
        end = None if self.end is None else min(self.end, at)
        known = self._slice(0, np.searchsorted(self.time, at, side="left"), end)
        return replace(known, cut=self.cut and end == self.end)

    def since(self, at: int) -> Timeline:
        """The dated events at or after `at` (microseconds)."""
        return self._slice(np.searchsorted(self.time, at, side="left"), len(self), self.end)

    def then(self, other: Timeline) -> Timeline:
        """This timeline followed by `other`, which has no earlier event; the end is that of `other` if it has one."""
        assert self.patient == other.patient
        return Timeline(
            self.patient,
            np.concatenate([self.time, other.time]),
            np.concatenate([self.code, other.code]),
            np.concatenate([self.number, other.number]),
            self.end if other.end is None else other.end,
            _joined(self.text, other.text, len(self), len(other)),
            _joined(self.media, other.media, len(self), len(other)),
            self.cut if other.end is None else other.cut,
        )

    def _slice(self, start: int, stop: int, end: int | None) -> Timeline:
        rows = slice(start, stop)
        text, media = _sliced(self.text, rows), _sliced(self.media, rows)
        return Timeline(
            self.patient, self.time[rows], self.code[rows], self.number[rows], end, text, media, self.cut
        )


def _sliced(payload: np.ndarray | None, rows: slice) -> np.ndarray | None:
    return None if payload is None else payload[rows]


def _joined(
    first: np.ndarray | None, second: np.ndarray | None, before: int, after: int
) -> np.ndarray | None:
    """The payloads of `before` events followed by those of `after` events."""
    if first is None and second is None:
        return None
    first = np.full(before, None, object) if first is None else first
    second = np.full(after, None, object) if second is None else second
    return np.concatenate([first, second])


def payload_of(column: pl.Series | None) -> pl.Series | None:
    """A payload column as String; None if it is absent, or all its cells are null."""
    return None if column is None or column.null_count() == len(column) else column.cast(pl.String)


def timelines(events: pl.DataFrame) -> Iterator[Timeline]:
    """One `Timeline` per patient, in the order of a sorted MEDS frame (see `sequela.record.dataset`).

    A timeline ends at `FOLLOW_UP//END` or, without that event, at its last dated event.
    """
    if events.is_empty():
        return
    patient = events["subject_id"].to_numpy()
    time = events["time"].cast(pl.Datetime("us")).to_physical().fill_null(STATIC).to_numpy()
    code = events["code"].to_numpy()
    number = events["numeric_value"].cast(pl.Float32).fill_null(np.nan).to_numpy()
    payload = (payload_of(events.get_column(column, default=None)) for column in PAYLOAD)
    text, media = (None if column is None else column.to_numpy() for column in payload)
    stated_end = np.where(events.select(meaning(FOLLOW_UP_END))["code"].to_numpy(), time, STATIC)
    starts = np.flatnonzero(np.r_[True, patient[1:] != patient[:-1]])
    ends = np.maximum.reduceat(stated_end, starts)
    for start, stop, end in zip(starts, np.r_[starts[1:], len(patient)], ends, strict=True):
        last = end if end != STATIC else time[stop - 1]
        rows = slice(start, stop)
        known_until = None if last == STATIC else int(last)
        payload = _sliced(text, rows), _sliced(media, rows)
        yield Timeline(int(patient[start]), time[rows], code[rows], number[rows], known_until, *payload)
