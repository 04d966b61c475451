"""What the vocabulary, the bins and the calendar are fitted on: counts over training patients, mergeable by shard."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sequela.record.events import Events
from sequela.record.timeline import STATIC
from sequela.tokens.ehr.bins import ValueCounts
from sequela.tokens.ehr.code import split_code
from sequela.tokens.ehr.order import moving
from sequela.tokens.ehr.settings import TokenSettings


@dataclass(frozen=True, eq=False)
class CodeStatistics:
    """Counts over the events of whole patients.

    Attributes:
        patients: how many have an event with a time.
        names: the distinct codes [C], sorted.
        events, carriers: int64 [C], events with a time of each code, and patients who have one.
        static: int64 [C], events without a time of each code.
        parts: the distinct token names [T] of those codes, sorted.
        part_carriers: int64 [T], patients who have one.
        values: the counted numeric values of each code.
        first, last: microseconds of the first and the last event; both `STATIC` where there is none.
    """

    patients: int
    names: tuple[str, ...]
    events: np.ndarray
    carriers: np.ndarray
    static: np.ndarray
    parts: tuple[str, ...]
    part_carriers: np.ndarray
    values: ValueCounts
    first: int
    last: int

    @staticmethod
    def of(columns: Events, settings: TokenSettings) -> CodeStatistics:
        """Count the events of whole patients."""
        codes = len(columns.names)
        events = moving(columns, settings)
        row = np.cumsum(np.append(False, events.patient[1:] != events.patient[:-1])[: len(events)])
        code = _pairs(row, events.code, codes)[1]
        parts, number = _parts_of(columns.names, settings.joint)
        part_carriers = np.zeros(len(parts), np.int64)
        carriers = np.bincount(code, minlength=codes)
        whole = number[:, 1] < 0
        np.add.at(part_carriers, number[whole, 0], carriers[whole])
        split = ~whole[events.code] if len(events) else np.zeros(0, bool)
        held = number[events.code[split]]
        owner = np.broadcast_to(row[split][:, None], held.shape)
        part = _pairs(owner[held >= 0], held[held >= 0], len(parts))[1]
        part_carriers += np.bincount(part, minlength=len(parts))
        valued = ~np.isnan(events.number)
        return CodeStatistics(
            int(events.starts.size),
            columns.names,
            np.bincount(events.code, minlength=codes),
            carriers,
            np.bincount(columns.code[columns.time == STATIC], minlength=codes),
            parts,
            part_carriers,
            ValueCounts.of(events.code[valued], events.number[valued], codes),
            int(events.time.min()) if len(events) else STATIC,
            int(events.time.max()) if len(events) else STATIC,
        )

    @staticmethod
    def merge(shards: list[CodeStatistics]) -> CodeStatistics:
        """The counts over all shards; a patient lies in one shard only."""
        names, rows = _union([one.names for one in shards])
        parts, part_rows = _union([one.parts for one in shards])
        seen = [one for one in shards if one.patients]
        return CodeStatistics(
            sum(one.patients for one in shards),
            names,
            _total([one.events for one in shards], rows, len(names)),
            _total([one.carriers for one in shards], rows, len(names)),
            _total([one.static for one in shards], rows, len(names)),
            parts,
            _total([one.part_carriers for one in shards], part_rows, len(parts)),
            ValueCounts.merge([one.values for one in shards], rows, len(names)),
            min((one.first for one in seen), default=STATIC),
            max((one.last for one in seen), default=STATIC),
        )

    def save(self, path: Path) -> None:
        """Write the counts to one file."""
        about = {
            "patients": self.patients,
            "names": self.names,
            "parts": self.parts,
            "first": self.first,
            "last": self.last,
        }
        with path.open("wb") as file:
            np.savez(
                file,
                about=np.frombuffer(json.dumps(about).encode(), np.uint8),
                events=self.events,
                carriers=self.carriers,
                static=self.static,
                part_carriers=self.part_carriers,
                code=self.values.code,
                cell=self.values.cell,
                count=self.values.count,
                level=self.values.level,
            )

    @staticmethod
    def load(path: Path) -> CodeStatistics:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as data:
            about = json.loads(data["about"].tobytes())
            return CodeStatistics(
                about["patients"],
                tuple(about["names"]),
                data["events"],
                data["carriers"],
                data["static"],
                tuple(about["parts"]),
                data["part_carriers"],
                ValueCounts(data["code"], data["cell"], data["count"], data["level"]),
                about["first"],
                about["last"],
            )


def _pairs(row: np.ndarray, column: np.ndarray, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct pairs of `row` [N], which rises, and `column` [N], below `columns`.

    By sorting: for whole numbers several times faster than the hashing of `np.unique`, for short ones twice as fast.
    """
    rows = int(row[-1]) + 1 if len(row) else 0
    kind = np.uint32 if rows * columns < 1 << 32 else np.int64
    key = np.sort(row.astype(kind) * kind(columns) + column.astype(kind))
    key = key[np.append(True, key[1:] != key[:-1])[: len(key)]]
    return np.divmod(key, kind(max(columns, 1)))


def _parts_of(names: tuple[str, ...], joint: bool) -> tuple[tuple[str, ...], np.ndarray]:
    """The token names of all codes, sorted, and those of each code as int64 [C, 3], -1 for none."""
    every = [(name,) if joint else split_code(name) for name in names]
    parts = sorted({part for some in every for part in some})
    place = {part: row for row, part in enumerate(parts)}
    out = np.full((len(names), 3), -1, np.int64)
    for row, some in enumerate(every):
        out[row, : len(some)] = [place[part] for part in some]
    return tuple(parts), out


def _union(lists: list[tuple[str, ...]]) -> tuple[tuple[str, ...], list[np.ndarray]]:
    """All names, sorted, and where those of each list stand among them."""
    names = sorted({name for some in lists for name in some})
    place = {name: row for row, name in enumerate(names)}
    return tuple(names), [np.array([place[name] for name in some], np.int64) for some in lists]


def _total(counts: list[np.ndarray], rows: list[np.ndarray], size: int) -> np.ndarray:
    out = np.zeros(size, np.int64)
    for count, row in zip(counts, rows, strict=True):
        out[row] += count
    return out
