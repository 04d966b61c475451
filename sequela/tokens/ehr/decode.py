"""Token rows to events."""

from __future__ import annotations

import numpy as np

from sequela.record.events import Events
from sequela.tokens.ehr.code import join_parts
from sequela.tokens.ehr.encode import MINUTE
from sequela.tokens.ehr.scheme import QUANTILE, EhrScheme
from sequela.tokens.ragged import Ragged


def decode(
    scheme: EhrScheme, rows: Ragged, start: np.ndarray, minutes: np.ndarray | None = None
) -> Events:
    """Token rows [R] that begin at microseconds `start` [R] -> their events; `patient` is the number of the row.

    Only what binning must lose is lost: a time within its interval, a value within its quantile (it becomes the center
    of the bin). Tokens that form no event (a quantile after a code without values, a later part without its first) are
    skipped.

    Args:
        minutes: by how many minutes each token moves the clock, int64 [tokens]. None: as every token of its kind does
            (`EhrScheme.minutes_V`).
    """
    token, row = rows.flat, np.repeat(np.arange(len(rows)), rows.lengths)
    passed = np.append(0, np.cumsum(scheme.minutes_V[token] if minutes is None else minutes))
    clock = passed[1:] - passed[rows.offsets[:-1]][row]
    place = scheme.place[token]
    opens = (place == 0) | (place == 1)
    event = np.cumsum(opens) - 1
    previous = np.append(-1, place[:-1])
    # Nothing carries over from the row before.
    previous[np.minimum(rows.offsets[:-1], max(len(token) - 1, 0))] = -1
    starts = np.flatnonzero(opens)
    second = (place == 2) & (previous == 1)
    third = (place == 3) & (previous == 2) & np.append(False, second[:-1])[: len(token)]
    parts = np.full((len(starts), 3), -1)
    parts[:, 0] = token[starts]
    parts[event[second], 1] = token[second]
    parts[event[third], 2] = token[third]
    names, code = _codes(scheme, parts)

    quantile = scheme.quantile[token[starts]]  # of fused tokens
    valued = np.flatnonzero((place == QUANTILE) & np.isin(previous, (0, 1, 2, 3)))
    quantile[event[valued]] = scheme.quantile[token[valued]]
    bins = np.array([scheme.bins.rows.get(name, -1) for name in names], np.int64)[code]
    number = np.full(len(starts), np.nan, np.float32)
    known = np.flatnonzero((quantile >= 0) & (bins >= 0))
    number[known] = scheme.bins.centers[bins[known], quantile[known]]
    return Events(row[starts], start[row[starts]] + clock[starts] * MINUTE, code, number, names)


def _codes(scheme: EhrScheme, parts: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """The tokens of events [N, 3] (-1: none) -> distinct codes, sorted, and the row of each event's code [N]."""
    distinct, which = np.unique(parts, axis=0, return_inverse=True)
    tokens = [tuple(scheme.codes[token] for token in row if token >= 0) for row in distinct.tolist()]
    codes = [name[0] if scheme.settings.joint else join_parts(name) for name in tokens]
    names = sorted(set(codes))
    index = {name: row for row, name in enumerate(names)}
    return tuple(names), np.array([index[code] for code in codes], np.int32)[which.ravel()]
