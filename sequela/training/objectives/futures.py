"""What comes after an anchor within a horizon: what a world model has to foresee.

For each anchor one horizon is drawn among those that its record covers, or all of them where it ends with death. What
came is known then: tokens, which are encoded by themselves and so know nothing of the history, or nothing.

Shape letters: S anchors, Q pairs of anchor and horizon, F futures that hold something, K horizons.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sequela.tokens.packing import Batch, Windows, collate
from sequela.tokens.ragged import Ragged, offsets_of
from sequela.training.objectives.anchors import Anchors, Records, Timed


@dataclass(frozen=True)
class FutureSampling:
    """How futures are drawn.

    Attributes:
        spans: int64 [K, 2], minutes after the anchor, (low, high]; before it where they are below 0.
        longest: most tokens of a future; of longer ones a stretch is taken at random.
        share: most tokens of all futures of a row, as a share of the tokens of the row.
    """

    spans: np.ndarray
    longest: int = 256
    share: float = 0.5


@dataclass(frozen=True, eq=False)
class Pairs:
    """Of one row.

    Attributes:
        anchor: int64 [Q], which anchor.
        horizon: int64 [Q], which horizon.
        came: bool [Q], whether anything did.
        futures: ragged [F], the tokens that did, for pairs whose tokens are encoded.
        pair: int64 [F], which pair.
    """

    anchor: np.ndarray
    horizon: np.ndarray
    came: np.ndarray
    futures: Ragged
    pair: np.ndarray


def pairs_of(
    records: Records, row: np.ndarray, anchors: Anchors, sampling: FutureSampling, random: np.random.Generator
) -> Pairs:
    """Draw a horizon for each anchor in the windows `row`, and futures as many as `sampling` allows."""
    patients, timed, now_S = _at(records, row, anchors)
    budget = int(sampling.share * records.windows.lengths[row].sum())
    drawn: dict[int, tuple[int, bool, np.ndarray | None]] = {}
    for number in random.permutation(len(anchors.last)):
        record, now = timed[patients[number]], int(now_S[number])
        known = np.flatnonzero(now + sampling.spans[:, 1] <= record.until)
        if not len(known):
            continue
        horizon = int(known[random.integers(len(known))])
        future = _stretch(_between(record, now + sampling.spans[horizon]), sampling.longest, random)
        fits = 0 < len(future) <= budget
        budget -= len(future) if fits else 0
        drawn[int(number)] = horizon, bool(len(future)), future if fits else None
    pairs = [(number, *drawn[number]) for number in sorted(drawn)]
    futures = [(place, future) for place, (*_, future) in enumerate(pairs) if future is not None]
    return Pairs(
        np.array([number for number, *_ in pairs], np.int64),
        np.array([horizon for _, horizon, *_ in pairs], np.int64),
        np.array([came for *_, came, _ in pairs], bool),
        _ragged([future for _, future in futures]),
        np.array([place for place, _ in futures], np.int64),
    )


@dataclass(frozen=True, eq=False)
class Chains:
    """Windows of time in a row, of one packed row.

    Attributes:
        anchor: int64 [A], which anchor; its record covers all windows.
        futures: ragged [F], the tokens of windows that hold something.
        chain, window: int64 [F], of which anchor's place in `anchor` and which window each is.
    """

    anchor: np.ndarray
    futures: Ragged
    chain: np.ndarray
    window: np.ndarray


def chains_of(
    records: Records, row: np.ndarray, anchors: Anchors, sampling: FutureSampling, random: np.random.Generator
) -> Chains:
    """The windows after anchors in the windows `row`, of as many anchors as `sampling` allows."""
    patients, timed, now_S = _at(records, row, anchors)
    budget = int(sampling.share * records.windows.lengths[row].sum())
    drawn: dict[int, list[np.ndarray]] = {}
    for number in random.permutation(len(anchors.last)):
        record, now = timed[patients[number]], int(now_S[number])
        if now + sampling.spans[-1, 1] > record.until:
            continue
        held = [_stretch(_between(record, now + span), sampling.longest, random) for span in sampling.spans]
        tokens = sum(map(len, held))
        if 0 < tokens <= budget:
            drawn[int(number)] = held
            budget -= tokens
    anchor = np.array(sorted(drawn), np.int64)
    some = [
        (chain, window, tokens)
        for chain, number in enumerate(anchor)
        for window, tokens in enumerate(drawn[int(number)])
        if len(tokens)
    ]
    chain, window = (np.array([each[part] for each in some], np.int64) for part in (0, 1))
    return Chains(anchor, _ragged([tokens for *_, tokens in some]), chain, window)


def done_in(
    records: Records, row: np.ndarray, anchors: Anchors, windows: tuple[np.ndarray, np.ndarray], action: np.ndarray
) -> Ragged:
    """The tokens of interventions within windows of time.

    Args:
        windows: of each its anchor, int64 [Q], and its span, int64 [Q, 2], minutes after the anchor.
        action: bool [V], which tokens are interventions.
    """
    patients, timed, now_S = _at(records, row, anchors)
    done = []
    for number, span in zip(*windows, strict=True):
        ids = _between(timed[patients[number]], int(now_S[number]) + span)
        done.append(ids[action[ids]])
    return _ragged(done)


def anything_ahead(records: Records, horizons: np.ndarray) -> bool:
    """Whether any pair (`pairs_of`) of any record holds something; `horizons` int64 [K, 2], minutes."""
    low, high = horizons.T[..., None]
    for patient in np.unique(records.windows.patient):
        record = records.timed(int(patient))
        earliest = np.maximum(record.now[:1], record.now - high)  # anchors for which an event lies within a horizon
        latest = np.minimum(record.now - low - 1, record.until - high)
        if (earliest <= latest).any():
            return True
    return False


def _at(records: Records, row: np.ndarray, anchors: Anchors) -> tuple[np.ndarray, dict[int, Timed], np.ndarray]:
    """The patient of each anchor [S], their records by patient, and the minute of each anchor [S]."""
    patients = records.windows.patient[row][anchors.window]
    timed = {int(patient): records.timed(int(patient)) for patient in np.unique(patients)}
    last = [timed[int(patient)].minutes[place] for patient, place in zip(patients, anchors.last, strict=True)]
    return patients, timed, np.array(last, np.int64) + anchors.idle


def _between(record: Timed, span: np.ndarray) -> np.ndarray:
    """The tokens from the first to the last event of a record in (low, high]."""
    first, stop = np.searchsorted(record.now, span, side="right")
    return record.ids[record.events[first] : record.events[stop - 1] + 1] if first < stop else record.ids[:0]


def _stretch(future: np.ndarray, longest: int, random: np.random.Generator) -> np.ndarray:
    if len(future) <= longest:
        return future
    first = int(random.integers(0, len(future) - longest + 1))
    return future[first : first + longest]


def _ragged(rows: list[np.ndarray]) -> Ragged:
    flat = np.concatenate([np.zeros(0, np.int64), *rows])
    return Ragged(flat, offsets_of(np.array([len(each) for each in rows], np.int64)))


def packed(futures: Ragged, multiple: int) -> Batch:
    """One or more futures side by side in one row, each a segment of its own."""
    windows = Windows.of(futures, np.zeros(0, np.int64), (), int(futures.lengths.max()))
    return collate(windows, np.arange(len(futures)), multiple)
