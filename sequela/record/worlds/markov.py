"""Synthetic patients whose true risk of death is known in closed form: to test forecasts against the truth.

Every day at midnight a patient either dies, with a probability that depends on the creatinine level of the day before,
or moves to a new level of a Markov chain, which is measured. Nothing else matters, so the probability of dying within k
days is a product of k matrices. A model trained on enough of these patients must reproduce it.

>>> world = MarkovWorld.known()
>>> round(world.risk(level=2, days=1), 3), round(world.risk(level=0, days=8), 3)
(0.06, 0.121)
>>> world.events(patients=2, seed=0).columns
['subject_id', 'time', 'code', 'numeric_value']
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from sequela.record.schema import BIRTH, DEATH, FOLLOW_UP_END

EPOCH = 946_684_800_000_000  # 2000-01-01 in microseconds
DAY = 86_400_000_000
ENTRY_DAY = 3  # patients who are alive on this day have the event COHORT//ENTRY


@dataclass(frozen=True)
class MarkovWorld:
    """A Markov chain over S creatinine levels, with a daily probability of death at each.

    Attributes:
        values: float64 [S], the measured creatinine of each level, mg/dL.
        moves: float64 [S, S], probabilities of tomorrow's level given today's, for those who survive; rows sum to 1.
        deaths: float64 [S], probability of dying tomorrow, given today's level.
        start: float64 [S], distribution of the level on day 0.
    """

    values: np.ndarray
    moves: np.ndarray
    deaths: np.ndarray
    start: np.ndarray

    @staticmethod
    def known(deaths_times: float = 1.0) -> MarkovWorld:
        """The world used in tests and benchmarks: three levels, 0.8, 1.3 and 1.9 mg/dL.

        Args:
            deaths_times: factor on the daily probabilities of death (0.005, 0.02, 0.06): a world with another truth,
                for negative controls and for shifted populations.
        """
        return MarkovWorld(
            values=np.array([0.8, 1.3, 1.9]),
            moves=np.array([[0.8, 0.15, 0.05], [0.2, 0.6, 0.2], [0.1, 0.2, 0.7]]),
            deaths=np.array([0.005, 0.02, 0.06]) * deaths_times,
            start=np.array([0.4, 0.3, 0.3]),
        )

    def risk(self, level: int, days: int) -> float:
        """The true probability of dying within `days` days of being at a level.

        Args:
            level: the index of the last measured level.
            days: number of daily steps after that measurement.
        """
        alive = np.zeros(len(self.values))
        alive[level] = 1.0
        for _ in range(days):
            alive = (alive * (1 - self.deaths)) @ self.moves
        return float(1 - alive.sum())

    def events(self, patients: int, seed: int, days: tuple[int, int] = (12, 40)) -> pl.DataFrame:
        """Simulate patients: sex, birth 60 years before day 0, daily creatinine, and death or the end of follow-up.

        Args:
            patients: number of patients, numbered from 0.
            seed: of everything random.
            days: range [first, last) of the uniformly drawn day on which follow-up ends, unless death comes first.

        Returns:
            A sorted MEDS frame (see `sequela.record.dataset`).
        """
        random = np.random.default_rng(seed)
        ends = random.integers(*days, size=patients)
        level = random.choice(len(self.start), size=patients, p=self.start)
        alive = np.ones(patients, bool)
        everyone = np.arange(patients)
        rows = [
            _rows(everyone, None, np.where(random.random(patients) < 0.5, "GENDER//F", "GENDER//M")),
            _rows(everyone, np.full(patients, EPOCH - 60 * 365 * DAY), BIRTH),
        ]
        for day in range(days[1]):
            here = alive & (day <= ends)
            if day:
                dying = here & (random.random(patients) < self.deaths[level])
                rows.append(_rows(everyone[dying], EPOCH + day * DAY, DEATH))
                alive &= ~dying
                here &= alive
                draw = random.random(patients)[:, None]
                level = np.where(here, (self.moves[level].cumsum(1) < draw).sum(1), level)
            rows.append(_rows(everyone[here], EPOCH + day * DAY, "LAB//CREATININE", self.values[level[here]]))
            if day == ENTRY_DAY:
                rows.append(_rows(everyone[here], EPOCH + day * DAY, "COHORT//ENTRY"))
        rows.append(_rows(everyone[alive], EPOCH + ends[alive] * DAY, FOLLOW_UP_END))
        frame = pl.concat(rows)
        return frame.sort("subject_id", "time", "code", nulls_last=False, maintain_order=True)

    def level_before(self, events: pl.DataFrame, times: pl.DataFrame) -> np.ndarray:
        """The index of the level last measured before each question, the `level` of `risk`.

        Args:
            events: MEDS events with `LAB//CREATININE`.
            times: Q questions, `subject_id` and `prediction_time`, each patient once, with a measurement before it.

        Returns:
            int64 [Q].
        """
        last = (
            times.join(events.filter(pl.col("code") == "LAB//CREATININE"), on="subject_id")
            .filter(pl.col("time") < pl.col("prediction_time"))
            .sort("time")
            .group_by("subject_id")
            .agg(pl.col("numeric_value").last())
        )
        value = times.join(last, on="subject_id", how="left", maintain_order="left")[
            "numeric_value"
        ].to_numpy()
        return np.abs(value[:, None] - self.values).argmin(1)


def _rows(
    patients: np.ndarray, time: np.ndarray | int | None, code: object, value: np.ndarray | None = None
) -> pl.DataFrame:
    count = len(patients)
    return pl.DataFrame({
        "subject_id": pl.Series(patients, dtype=pl.Int64),
        "time": pl.Series(np.broadcast_to(0 if time is None else time, count), dtype=pl.Int64),
        "code": pl.Series(np.broadcast_to(np.asarray(code, object), count).tolist(), dtype=pl.String),
        "numeric_value": pl.Series(np.full(count, np.nan) if value is None else value, dtype=pl.Float32),
    }).with_columns(
        time=None if time is None else pl.col("time").cast(pl.Datetime("us")),
        numeric_value=pl.col("numeric_value").fill_nan(None),
    ).cast({"time": pl.Datetime("us")})  # fmt: skip
