"""Events of many patients as flat arrays, the form in which shards are counted and tokenized."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import polars as pl

from sequela.record.schema import BIRTH, MEDIA, TEXT, means
from sequela.record.timeline import STATIC, payload_of

NEVER = int(np.iinfo(np.int64).max)


@dataclass(frozen=True, eq=False)
class Events:
    """N events, sorted by patient and time, static events first.

    Attributes:
        patient: int64 [N].
        time: int64 [N], microseconds since 1970-01-01; `STATIC` for events without a time.
        code: int32 [N], indices into `names`.
        number: float32 [N], NaN where the event has no numeric value.
        names: the distinct codes; a code may have no event.
        text: String [N], null where the event has no text; None if no event has one.
        media: String [N], the path of a file relative to the dataset's folder, null where the event has none; None if
            no event has one.
    """

    patient: np.ndarray
    time: np.ndarray
    code: np.ndarray
    number: np.ndarray
    names: tuple[str, ...]
    text: pl.Series | None = None
    media: pl.Series | None = None

    @staticmethod
    def of(events: pl.DataFrame) -> Events:
        """From a sorted MEDS frame (see `sequela.record.dataset`)."""
        names = events["code"].unique().sort()
        code = events["code"].replace_strict(names, np.arange(len(names)), return_dtype=pl.Int32)
        return Events(
            events["subject_id"].to_numpy(),
            events["time"].cast(pl.Datetime("us")).to_physical().fill_null(STATIC).to_numpy(),
            code.to_numpy() if len(names) else np.zeros(0, np.int32),
            events["numeric_value"].cast(pl.Float32).fill_null(np.nan).to_numpy(),
            tuple(names),
            payload_of(events.get_column(TEXT, default=None)),
            payload_of(events.get_column(MEDIA, default=None)),
        )

    def frame(self) -> pl.DataFrame:
        """As a MEDS frame (see `sequela.record.dataset`), with payload columns only if they are not None."""
        names = pl.Series(self.names, dtype=pl.String)
        static = pl.Series(self.time == STATIC)
        payload = {TEXT: self.text, MEDIA: self.media}
        return pl.DataFrame(
            {
                "subject_id": self.patient,
                "time": pl.Series(self.time).set(static, None).cast(pl.Datetime("us")),
                "code": names.gather(self.code),
                "numeric_value": pl.Series(self.number, dtype=pl.Float32).fill_nan(None),
            }
            | {name: column for name, column in payload.items() if column is not None}
        )

    def __len__(self) -> int:
        return len(self.patient)

    def take(self, rows: np.ndarray) -> Events:
        """The events at the given rows: indices [M], or bool [N]."""
        return Events(
            self.patient[rows],
            self.time[rows],
            self.code[rows],
            self.number[rows],
            self.names,
            _taken(self.text, rows),
            _taken(self.media, rows),
        )

    def called(self, wanted: Callable[[str], bool]) -> np.ndarray:
        """Which events have a code that is `wanted`, bool [N]; each distinct code is asked once."""
        names = np.array([wanted(name) for name in self.names], bool)
        return names[self.code] if names.any() else np.zeros(len(self), bool)

    @cached_property
    def starts(self) -> np.ndarray:
        """The first row [P] of each patient."""
        return np.flatnonzero(np.append(True, self.patient[1:] != self.patient[:-1])[: len(self)])

    def recoded(self, targets: list[tuple[str, ...]]) -> Events:
        """Each event of code i becomes one event per code in `targets[i]`, with the same time, value and payload."""
        names = sorted({name for codes in targets for name in codes})
        index = {name: row for row, name in enumerate(names)}
        first = np.array([index[codes[0]] if codes else -1 for codes in targets], np.int32)
        count = np.array([len(codes) for codes in targets], np.int64)
        if (count == 1).all():
            code = first[self.code] if len(self) else self.code
            return replace(self, code=code, names=tuple(names))
        flat = np.array([index[name] for codes in targets for name in codes], np.int32)
        offset = np.cumsum(count) - count
        times = count[self.code]
        rows = np.repeat(np.arange(len(self)), times)
        nth = np.arange(len(rows)) - np.repeat(np.cumsum(times) - times, times)
        code = flat[offset[self.code[rows]] + nth]
        return replace(self.take(rows), code=code, names=tuple(names))


def _taken(column: pl.Series | None, rows: np.ndarray) -> pl.Series | None:
    if column is None:
        return None
    return payload_of(column.filter(pl.Series(rows)) if rows.dtype == bool else column.gather(rows))


def births(events: Events) -> np.ndarray:
    """Each patient's time of birth [P], in microseconds; `NEVER` if unknown."""
    out = np.full(len(events.starts), NEVER, np.int64)
    born = events.called(lambda code: means(code, BIRTH))
    if born.any():
        rows = np.flatnonzero(born & (events.time != STATIC))
        np.minimum.at(out, np.searchsorted(events.starts, rows, side="right") - 1, events.time[rows])
    return out
