"""A large population whose records' entropy is known exactly: what a model can learn of it, and no more.

A patient has one of K conditions, which the first event tells. Then events come one after another: each is one of S
states, drawn given the condition and the state before, or death, which ends the record; the gap to the next event is
one of a few, drawn given the state. So the record is a Markov chain, and the bits that the best possible model needs
for it follow from its matrices. Frequent states are Zipf's, and what a condition does to each state is not to be
guessed from other states, so larger models and more patients keep helping for long: a world to try scaling laws on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from sequela.progress import Progress, silent
from sequela.record.dataset import split_of, write_codes, write_facts, write_shard, write_splits
from sequela.record.schema import DEATH, FRACTIONS

EPOCH = 946_684_800_000_000  # 2000-01-01 in microseconds
MINUTE = 60_000_000
GAPS = (180, 2_880, 11_520, 60_480)  # minutes: each in an interval class of its own


@dataclass(frozen=True)
class ZipfWorld:
    """K conditions, S states, G gaps.

    Attributes:
        start: float64 [K, S], the first state, given the condition; conditions are equally frequent.
        moves: float64 [K, S, S + 1], the next state, or death (the last), given condition and state.
        gaps: float64 [S + 1, G], the gap after each state; the last row is the one after the condition.
    """

    start: np.ndarray
    moves: np.ndarray
    gaps: np.ndarray

    @staticmethod
    def known(
        states: int = 256,
        conditions: int = 4,
        *,
        rank: int = 32,
        strength: float = 2.0,
        own: float = 0.5,
        events: float = 60.0,
        seed: int = 0,
    ) -> ZipfWorld:
        """A population drawn once from `seed`.

        Args:
            rank: in how many directions states differ; their sizes fall off as a power, so that wider models find more.
            strength: how much a state tells of the next.
            own: how much of it differs between conditions, state by state.
            events: mean number of events after the condition; each is death with probability 1 / events.
        """
        random = np.random.default_rng(seed)
        zipf = -np.log(1.0 + random.permutation(states))
        sizes = np.arange(1, rank + 1) ** -0.5
        sizes *= strength / np.sqrt((sizes**2).sum())
        shared, differs = random.normal(size=(states, rank)), random.normal(size=(conditions, states, rank))
        found = np.sqrt(1 - own**2) * shared + own * differs
        scores = (found * sizes) @ random.normal(size=(states, rank)).T + zipf
        alive = _softmax(scores) * (1 - 1 / events)
        moves = np.concatenate([alive, np.full((conditions, states, 1), 1 / events)], 2)
        return ZipfWorld(
            start=_softmax(zipf + random.normal(size=(conditions, states))),
            moves=moves,
            gaps=random.dirichlet(np.ones(len(GAPS)), size=states + 1),
        )

    @property
    def expected_events(self) -> float:
        """Mean number of events of a record: the condition, the states and death."""
        return 2 + float(self._visits().sum(1).mean())

    @property
    def bits_per_record(self) -> float:
        """The entropy of a record: what the best possible model needs for it."""
        within, gap = _entropy(self.moves), _entropy(self.gaps)
        states = (self._visits() * (within + gap[:-1])).sum(1)
        return float(np.log2(len(self.moves)) + (_entropy(self.start) + gap[-1] + states).mean())

    @property
    def bits_per_event(self) -> float:
        """The entropy of a record over its mean number of events, as `sequela train` counts bits per event."""
        return self.bits_per_record / self.expected_events

    def events(self, patients: np.ndarray, seed: int) -> pl.DataFrame:
        """MEDS events of these patients [P], sorted; they depend on the seed and the patients' numbers."""
        random = np.random.default_rng([seed, int(patients[0]), len(patients)])
        states = self.moves.shape[1]
        condition = random.integers(len(self.moves), size=len(patients))
        place, time = np.arange(len(patients)), np.full(len(patients), EPOCH)
        rows = [(place, time, condition)]
        after, gaps = _rising(self.moves), _rising(self.gaps)
        state = _drawn(_rising(self.start), condition, random)
        gap = np.full(len(patients), states)
        while len(place):
            time = time + MINUTE * np.array(GAPS)[_drawn(gaps, gap, random)]
            rows.append((place, time, len(self.moves) + state))
            going = state < states
            place, time, condition, state = place[going], time[going], condition[going], state[going]
            gap, state = state, _drawn(after, condition * states + state, random)
        who, when, what = (np.concatenate(column) for column in zip(*rows, strict=True))
        order = np.lexsort((when, who))
        return pl.DataFrame(
            {
                "subject_id": patients[who[order]],
                "time": pl.Series(when[order]).cast(pl.Datetime("us")),
                "code": pl.Series(what[order].astype(np.uint32)).cast(pl.Enum(self._codes())),
                "numeric_value": pl.Series(np.full(len(order), None), dtype=pl.Float32),
            }
        )

    def write(
        self,
        out: Path,
        patients: int,
        seed: int,
        *,
        fractions: tuple[float, float, float] = FRACTIONS,
        shard: int = 50_000,
        progress: Progress = silent,
    ) -> None:
        """Write a MEDS dataset of so many patients to the folder `out`, shard by shard.

        Args:
            fractions: shares of train, tuning and held_out.
            shard: patients a shard.
        """
        counts: list[pl.DataFrame] = []
        splits: list[pl.DataFrame] = []
        for number, some in enumerate(_parts(patients, shard)):
            events = self.events(some, seed)
            splits.append(pl.DataFrame({"subject_id": some, "split": split_of(some, fractions)}))
            write_shard(events, splits[-1], out, number)
            counts.append(
                events.group_by("code").agg(events=pl.len(), patients=pl.col("subject_id").n_unique())
            )
            progress(int(some[-1]), patients)
        write_splits(splits, out)
        counted = pl.concat(counts).cast({"code": pl.String}).group_by("code").sum()
        write_codes(counted.with_columns(unit=pl.lit(None, pl.String)), out, {})
        write_facts(out, "population", {"real_dates": False})

    def _visits(self) -> np.ndarray:
        """How often each state comes in a record, by condition: float64 [K, S]."""
        stay = np.eye(self.moves.shape[1]) - self.moves[:, :, :-1]
        return np.linalg.solve(stay.transpose(0, 2, 1), self.start[:, :, None])[:, :, 0]

    def _codes(self) -> list[str]:
        conditions = [f"CONDITION//{number}" for number in range(len(self.moves))]
        return [*conditions, *(f"STATE//{number}" for number in range(self.moves.shape[1])), DEATH]


def _softmax(scores: np.ndarray) -> np.ndarray:
    chances = np.exp(scores - scores.max(-1, keepdims=True))
    return chances / chances.sum(-1, keepdims=True)


def _entropy(chances: np.ndarray) -> np.ndarray:
    """Bits of each distribution along the last axis."""
    return -(chances * np.log2(np.where(chances > 0, chances, 1))).sum(-1)


def _rising(chances: np.ndarray) -> np.ndarray:
    """Running sums of distributions [..., N], each above the one before: float64 [R, N], rising as it is read."""
    summed = np.cumsum(chances, -1).reshape(-1, chances.shape[-1])
    return summed + np.arange(len(summed))[:, None]


def _drawn(rising: np.ndarray, rows: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """One draw from each of the distributions that `rows` [P] names: int64 [P]."""
    count = rising.shape[1]
    found = np.searchsorted(rising.ravel(), rows + random.random(len(rows)), side="right") - rows * count
    return np.minimum(found, count - 1)


def _parts(patients: int, size: int) -> Iterator[np.ndarray]:
    for first in range(1, patients + 1, size):
        yield np.arange(first, min(first + size, patients + 1))
