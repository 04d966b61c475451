"""Token rows to timelines."""

from __future__ import annotations

import numpy as np
import polars as pl

from sequela.tokens.ehr.code import join_parts
from sequela.tokens.ehr.encode import MINUTE
from sequela.tokens.ehr.tokenizer import QUANTILE, Tokenizer
from sequela.tokens.ragged import Ragged


def decode(tokenizer: Tokenizer, rows: Ragged, start: np.ndarray) -> tuple[pl.DataFrame, np.ndarray]:
    """Token rows [R] and the microsecond at which each starts [R] -> (events, end of each row's clock [R]).

    Events have columns row, time, code, numeric_value (float32, the centre of the bin). Only what binning must lose
    is lost: a time inside its interval, a value inside its quantile. Tokens that form no event (a quantile after
    no numeric code, a later part without its first) are skipped.
    """
    token, row = rows.flat, np.repeat(np.arange(len(rows)), rows.lengths)
    passed = np.append(0, np.cumsum(tokenizer.minutes[token]))
    clock = passed[1:] - passed[rows.offsets[:-1]][row]
    place = tokenizer.place[token]
    event = np.cumsum((place == 0) | (place == 1)) - 1
    previous = np.append(-1, place[:-1])
    # Nothing reaches over from the row before
    previous[np.minimum(rows.offsets[:-1], max(len(token) - 1, 0))] = -1
    starts = np.flatnonzero((place == 0) | (place == 1))
    second = (place == 2) & (previous == 1)
    third = (place == 3) & (previous == 2) & np.append(False, second[:-1])[: len(token)]
    key = np.full((len(starts), 3), -1)
    key[:, 0] = token[starts]
    key[event[second], 1] = token[second]
    key[event[third], 2] = token[third]
    kinds, kind = np.unique(key, axis=0, return_inverse=True) if len(key) else (key, np.zeros(0, np.int64))
    kind = kind.ravel()
    codes = _codes(tokenizer, kinds)

    bins = np.array([tokenizer.bins.rows.get(code, -1) for code in codes], np.int64)
    quantile = tokenizer.quantile[token[starts]]  # of fused tokens
    told = np.flatnonzero((place == QUANTILE) & np.isin(previous, (0, 1, 2, 3)))
    quantile[event[told]] = tokenizer.quantile[token[told]]
    value = np.full(len(starts), np.nan, np.float32)
    valued = np.flatnonzero((quantile >= 0) & (bins[kind] >= 0)) if len(starts) else starts
    value[valued] = tokenizer.bins.centres[bins[kind[valued]], quantile[valued]]
    frame = pl.DataFrame({
        "row": row[starts],
        "time": pl.Series(start[row[starts]] + clock[starts] * MINUTE, dtype=pl.Int64).cast(pl.Datetime("us")),
        "code": pl.Series(codes[kind].tolist() if len(codes) else [], dtype=pl.String),
        "numeric_value": pl.Series(value, dtype=pl.Float32).fill_nan(None),
    })  # fmt: skip
    return frame, start + (passed[rows.offsets[1:]] - passed[rows.offsets[:-1]]) * MINUTE


def _codes(tokenizer: Tokenizer, kinds: np.ndarray) -> np.ndarray:
    """Token triples [K, 3] (-1: none) -> codes [K]."""
    names = [tuple(tokenizer.codes[token] for token in kind if token >= 0) for kind in kinds.tolist()]
    whole = tokenizer.settings.joint
    return np.array([name[0] if whole else join_parts(name) for name in names], object)
