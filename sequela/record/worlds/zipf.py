"""Synthetic patients whose records have a known entropy, the loss of the best possible model: to test scaling laws.

A patient has one of K conditions, given by the first event. Each following event is one of S states, drawn given the
condition and the previous state, or death, which ends the record. The gap to the next event is one of a few, drawn
given the state. A record is therefore a Markov chain, and the bits that the best possible model needs follow from its
matrices. State frequencies follow Zipf's law, and the effect of a condition on one state cannot be guessed from other
states, so larger models and more patients keep helping over a wide range.

>>> population = ZipfWorld.known(states=8, conditions=2, rank=4, events=10)
>>> round(population.expected_events, 1), round(population.bits_per_event, 2)
(12.0, 2.73)
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
GAPS = (180, 2_880, 11_520, 60_480)  # minutes; the EHR tokenizer puts each into another interval


@dataclass(frozen=True)
class ZipfWorld:
    """A population with K conditions, S states and G gaps.

    Attributes:
        start: float64 [K, S], probabilities of the first state given the condition; conditions are equally frequent.
        moves: float64 [K, S, S + 1], probabilities of the next state, or of death (last), given condition and state.
        gaps: float64 [S + 1, G], probabilities of the gap after each state; the last row is for the condition.
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
        condition_share: float = 0.5,
        events: float = 60.0,
        seed: int = 0,
    ) -> ZipfWorld:
        """A random population.

        Args:
            states: S, the number of states.
            conditions: K, the number of conditions.
            rank: number of dimensions in which states differ; their scale falls as a power law, so wider models find
                more.
            strength: how much a state tells about the next (standard deviation of the logits).
            condition_share: share of it that differs between conditions, in [0, 1].
            events: mean number of events after the condition; each is death with probability 1 / events.
            seed: of the random matrices.
        """
        random = np.random.default_rng(seed)
        zipf = -np.log(1.0 + random.permutation(states))
        sizes = np.arange(1, rank + 1) ** -0.5
        sizes *= strength / np.sqrt((sizes**2).sum())
        shared, differs = random.normal(size=(states, rank)), random.normal(size=(conditions, states, rank))
        mixed = np.sqrt(1 - condition_share**2) * shared + condition_share * differs
        scores = (mixed * sizes) @ random.normal(size=(states, rank)).T + zipf
        alive = _softmax(scores) * (1 - 1 / events)
        moves = np.concatenate([alive, np.full((conditions, states, 1), 1 / events)], 2)
        return ZipfWorld(
            start=_softmax(zipf + random.normal(size=(conditions, states))),
            moves=moves,
            gaps=random.dirichlet(np.ones(len(GAPS)), size=states + 1),
        )

    @property
    def expected_events(self) -> float:
        """The mean number of events in a record: the condition, the states and death."""
        return 2 + float(self._visits().sum(1).mean())

    @property
    def bits_per_record(self) -> float:
        """The mean entropy of a record in bits: what the best possible model needs for it."""
        within, gap = _entropy(self.moves), _entropy(self.gaps)
        states = (self._visits() * (within + gap[:-1])).sum(1)
        return float(np.log2(len(self.moves)) + (_entropy(self.start) + gap[-1] + states).mean())

    @property
    def bits_per_event(self) -> float:
        """`bits_per_record` over `expected_events`, comparable with the bits per event that `sequela train` reports."""
        return self.bits_per_record / self.expected_events

    def events(self, patients: np.ndarray, seed: int) -> pl.DataFrame:
        """Simulate patients.

        Args:
            patients: int64 [P], the patient ids, ascending.
            seed: of everything random, together with the first id and the number of patients.

        Returns:
            A sorted MEDS frame, with `code` as an Enum.
        """
        random = np.random.default_rng([seed, int(patients[0]), len(patients)])
        states = self.moves.shape[1]
        condition = random.integers(len(self.moves), size=len(patients))
        index, time = np.arange(len(patients)), np.full(len(patients), EPOCH)
        rows = [(index, time, condition)]
        after, gaps = _rising(self.moves), _rising(self.gaps)
        state = _drawn(_rising(self.start), condition, random)
        gap = np.full(len(patients), states)
        while len(index):
            time = time + MINUTE * np.array(GAPS)[_drawn(gaps, gap, random)]
            rows.append((index, time, len(self.moves) + state))
            going = state < states
            index, time, condition, state = index[going], time[going], condition[going], state[going]
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
        """Simulate patients and write them to the folder `out` as a MEDS dataset, shard by shard.

        Args:
            patients: number of patients, numbered from 1.
            seed: see `events`.
            fractions: shares of train, tuning and held_out.
            shard: patients per shard.
        """
        counts: list[pl.DataFrame] = []
        splits: list[pl.DataFrame] = []
        for number, ids in enumerate(_parts(patients, shard)):
            events = self.events(ids, seed)
            splits.append(pl.DataFrame({"subject_id": ids, "split": split_of(ids, fractions)}))
            write_shard(events, splits[-1], out, number)
            counts.append(
                events.group_by("code").agg(events=pl.len(), patients=pl.col("subject_id").n_unique())
            )
            progress(int(ids[-1]), patients)
        write_splits(splits, out)
        counted = pl.concat(counts).cast({"code": pl.String}).group_by("code").sum()
        write_codes(counted.with_columns(unit=pl.lit(None, pl.String)), out, {})
        write_facts(out, "population", {"real_dates": False})

    def _visits(self) -> np.ndarray:
        """The mean number of visits to each state in a record, by condition: float64 [K, S]."""
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
    """Cumulative sums of R distributions [..., N], offset by their row: float64 [R, N], increasing when flattened."""
    summed = np.cumsum(chances, -1).reshape(-1, chances.shape[-1])
    return summed + np.arange(len(summed))[:, None]


def _drawn(rising: np.ndarray, rows: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """One draw from each of the distributions `rows` [P]: int64 [P]."""
    count = rising.shape[1]
    drawn = np.searchsorted(rising.ravel(), rows + random.random(len(rows)), side="right") - rows * count
    return np.minimum(drawn, count - 1)


def _parts(patients: int, size: int) -> Iterator[np.ndarray]:
    for first in range(1, patients + 1, size):
        yield np.arange(first, min(first + size, patients + 1))
