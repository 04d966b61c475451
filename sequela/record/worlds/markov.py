"""A small world whose true risks are known in closed form, to check that everything above it is right.

Each day at midnight a patient either dies, with a probability that depends on yesterday's creatinine level, or moves to
a new level of a Markov chain, which is measured. Nothing else matters, so the risk of dying within k days is a product
of k matrices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from sequela.record.schema import BIRTH, DEATH, FOLLOW_UP_END

EPOCH = 946_684_800_000_000  # 2000-01-01 in microseconds
DAY = 86_400_000_000
ENTRY_DAY = 3  # every patient has COHORT//ENTRY on this day, if still alive


@dataclass(frozen=True)
class MarkovWorld:
    """S levels of creatinine.

    `values` [S] mg/dL; `moves` [S, S] daily transition probabilities of those who live; `deaths` [S] daily
    probability of death; `start` [S] distribution on day 0.
    """

    values: np.ndarray
    moves: np.ndarray
    deaths: np.ndarray
    start: np.ndarray

    @staticmethod
    def known(deaths_times: float = 1.0) -> MarkovWorld:
        """The world of the tests; `deaths_times` multiplies its daily probabilities of death."""
        return MarkovWorld(
            values=np.array([0.8, 1.3, 1.9]),
            moves=np.array([[0.8, 0.15, 0.05], [0.2, 0.6, 0.2], [0.1, 0.2, 0.7]]),
            deaths=np.array([0.005, 0.02, 0.06]) * deaths_times,
            start=np.array([0.4, 0.3, 0.3]),
        )

    def risk(self, level: int, days: int) -> float:
        """Probability that a patient at `level` is dead after `days` more daily steps."""
        alive = np.zeros(len(self.values))
        alive[level] = 1.0
        for _ in range(days):
            alive = (alive * (1 - self.deaths)) @ self.moves
        return float(1 - alive.sum())

    def events(self, patients: int, seed: int, days: tuple[int, int] = (12, 40)) -> pl.DataFrame:
        """MEDS events of so many patients; follow-up ends on a random day of the range, unless death comes first."""
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
        """Level of each (subject_id, prediction_time) at its last measurement before that time."""
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
