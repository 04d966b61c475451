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
from sequela.training.objectives.anchors import Anchors, Records


@dataclass(frozen=True)
class PairSampling:
    """How pairs are drawn.

    Attributes:
        horizons: int64 [K, 2], minutes after the anchor, (low, high].
        longest: most tokens of a future; of longer ones a stretch is taken at random.
        share: most tokens of all futures of a row, as a share of the tokens of the row.
    """

    horizons: np.ndarray
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
    records: Records, row: np.ndarray, anchors: Anchors, sampling: PairSampling, random: np.random.Generator
) -> Pairs:
    """Draw a horizon for each anchor in the windows `row`, and futures as many as `sampling` allows."""
    patients = records.windows.patient[row][anchors.window]
    timed = {patient: records.timed(int(patient)) for patient in np.unique(patients)}
    budget = int(sampling.share * records.windows.lengths[row].sum())
    drawn: dict[int, tuple[int, bool, np.ndarray | None]] = {}
    for number in random.permutation(len(anchors.last)):
        record, last = timed[patients[number]], int(anchors.last[number])
        now = int(record.minutes[last]) + int(anchors.idle[number])
        known = np.flatnonzero(now + sampling.horizons[:, 1] <= record.until)
        if not len(known):
            continue
        horizon = int(random.choice(known))
        low, high = now + sampling.horizons[horizon]
        time = record.minutes[record.events]
        came = record.events[(time > low) & (time <= high)]
        future = record.ids[came[0] : came[-1] + 1] if len(came) else came
        if len(future) > sampling.longest:
            first = int(random.integers(0, len(future) - sampling.longest + 1))
            future = future[first : first + sampling.longest]
        fits = 0 < len(future) <= budget
        budget -= len(future) if fits else 0
        drawn[int(number)] = horizon, bool(len(came)), future if fits else None
    pairs = [(number, *drawn[number]) for number in sorted(drawn)]
    futures = [(place, future) for place, (*_, future) in enumerate(pairs) if future is not None]
    lengths = np.array([len(future) for _, future in futures], np.int64)
    flat = np.concatenate([np.zeros(0, np.int64), *(future for _, future in futures)])
    return Pairs(
        np.array([number for number, *_ in pairs], np.int64),
        np.array([horizon for _, horizon, *_ in pairs], np.int64),
        np.array([came for *_, came, _ in pairs], bool),
        Ragged(flat, offsets_of(lengths)),
        np.array([place for place, _ in futures], np.int64),
    )


def packed(futures: Ragged, multiple: int) -> Batch:
    """One or more futures side by side in one row, each a segment of its own."""
    windows = Windows.of(futures, np.zeros(0, np.int64), (), int(futures.lengths.max()))
    return collate(windows, np.arange(len(futures)), multiple)
