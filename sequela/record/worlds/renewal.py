"""Synthetic patients who come back after gaps of any length: to test what is said of times between interval edges.

Every patient is scanned again and again. How long the next event takes depends on what the last scan showed: it is
sooner than a month or later, more often sooner after a shadow; within either, gaps are spread as a lognormal
distribution is. Then the patient is found dead, with the same probability every time, or is scanned again, with either
finding. So a gap alone tells nothing but when, and silence tells how much of the gap is over. The risk of death within
any time, after any silence, solves a renewal equation.

>>> world = RenewalWorld()
>>> [round(world.risk("SCAN//CLEAR", 0, days), 3) for days in (30, 60, 90)]
[0.032, 0.139, 0.238]
>>> [round(world.risk("SCAN//SHADOW", silent, 30), 3) for silent in (0, 25, 60)]
[0.148, 0.156, 0.117]
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from sequela.record.duration import DAY, MINUTE
from sequela.record.schema import BIRTH, DEATH, FOLLOW_UP_END
from sequela.record.worlds.markov import EPOCH

MINUTES = DAY // MINUTE
STEP = 0.25  # days, of the renewal equation
HORIZON = 400  # days, up to which risks are known


@dataclass(frozen=True)
class RenewalWorld:
    """Scans, the gaps after them, and death.

    Attributes:
        sooner: of each finding, the share of gaps after it that are shorter than `month`.
        month: days.
        median, spread: days, and deviation of the logarithm: of the distribution whose shape gaps have within a month
            and beyond. Whatever is between the edges of intervals has the same shape for all, then.
        longest: days, at which gaps are cut off.
        death: probability that the next event is death.
    """

    sooner: tuple[tuple[str, float], ...] = (("SCAN//CLEAR", 0.15), ("SCAN//SHADOW", 0.7))
    month: float = 30.0
    median: float = 50.0
    spread: float = 0.8
    longest: float = 170.0
    death: float = 0.2

    def _shape(self, days: np.ndarray | float) -> np.ndarray:
        from scipy.special import ndtr

        with np.errstate(divide="ignore"):
            return ndtr((np.log(days) - np.log(self.median)) / self.spread)

    def within(self, code: str, days: np.ndarray | float) -> np.ndarray:
        """The share of the gaps after a finding that are no longer than `days`."""
        sooner, turn, end = dict(self.sooner)[code], self._shape(self.month), self._shape(self.longest)
        place = self._shape(np.clip(days, 0, self.longest))
        late = np.maximum(place - turn, 0) / (end - turn)
        return sooner * np.minimum(place, turn) / turn + (1 - sooner) * late

    @cached_property
    def _after_a_scan(self) -> np.ndarray:
        """The risk within 0, STEP, 2 STEP, ... days of a scan, whichever its finding is."""
        count = round(HORIZON / STEP) + 1
        grid = np.arange(count) * STEP
        shares = np.mean([np.diff(self.within(code, grid)) for code, _ in self.sooner], axis=0)
        risk = np.zeros(count)
        for now in range(1, count):
            # A gap that ends within the k-th step leaves, on average, half a step more than the steps after it
            later = np.convolve(risk[:now], (0.5, 0.5))[:now]
            later[0] = 0.0
            risk[now] = shares[:now] @ (self.death + (1 - self.death) * later[::-1])
        return risk

    def risk(self, code: str, silent: float, days: float) -> float:
        """The true probability of death within `days` days.

        Args:
            code: the finding of the last scan.
            silent: for how many days nothing has been heard since, less than `longest`.
            days: not more than HORIZON.
        """
        edges = silent + np.linspace(0, days, round(4 * days / STEP) + 1)
        shares = np.diff(self.within(code, edges)) / (1 - self.within(code, silent))
        left = days + silent - (edges[:-1] + edges[1:]) / 2
        later = np.interp(left, np.arange(len(self._after_a_scan)) * STEP, self._after_a_scan)
        return float(shares @ (self.death + (1 - self.death) * later))

    def gaps(self, code: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Gaps [N] in whole minutes after findings [N], numbered as in `sooner`."""
        from scipy.special import ndtri

        turn, end, place = self._shape(self.month), self._shape(self.longest), random.random(len(code))
        soon = random.random(len(code)) < np.array([share for _, share in self.sooner])[code]
        level = np.where(soon, turn * place, turn + (end - turn) * place)
        days = self.median * np.exp(self.spread * ndtri(level))
        return np.maximum(1, np.rint(days * MINUTES)).astype(np.int64)

    def events(self, patients: int, seed: int, days: tuple[float, float] = (300, 600)) -> pl.DataFrame:
        """Simulate patients: birth 60 years before the first scan, scans, and death or the end of follow-up.

        Args:
            patients: number of patients, numbered from 0.
            seed: of everything random.
            days: range of the uniformly drawn day on which follow-up ends, unless death comes first.

        Returns:
            A sorted MEDS frame (see `sequela.record.dataset`).
        """
        random = np.random.default_rng(seed)
        ends = np.rint(random.uniform(*days, patients) * MINUTES).astype(np.int64)
        names = np.array([code for code, _ in self.sooner])
        everyone = np.arange(patients)
        clock, code = np.zeros(patients, np.int64), random.integers(len(names), size=patients)
        born = np.full(patients, -60 * 365 * MINUTES)
        rows = [(everyone, born, np.full(patients, BIRTH)), (everyone, clock.copy(), names[code])]
        alive = everyone
        while len(alive):
            clock[alive] += self.gaps(code[alive], random)
            alive = alive[clock[alive] <= ends[alive]]
            dies = random.random(len(alive)) < self.death
            ends[alive[dies]] = -1
            code[alive] = random.integers(len(names), size=len(alive))
            rows.append((alive, clock[alive], np.where(dies, DEATH, names[code[alive]])))
            alive = alive[~dies]
        lost = np.flatnonzero(ends >= 0)
        rows.append((lost, ends[lost], np.full(len(lost), FOLLOW_UP_END)))
        patient, minute, what = (np.concatenate(column) for column in zip(*rows, strict=True))
        return pl.DataFrame(
            {
                "subject_id": pl.Series(patient, dtype=pl.Int64),
                "time": pl.Series(EPOCH + minute * MINUTE, dtype=pl.Int64).cast(pl.Datetime("us")),
                "code": pl.Series(what.tolist(), dtype=pl.String),
                "numeric_value": pl.Series([None] * len(patient), dtype=pl.Float32),
            }
        ).sort("subject_id", "time", maintain_order=True)
