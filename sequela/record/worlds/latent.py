"""Synthetic patients with a hidden course: to test whether a model's states hold more than the last measurements.

At every visit a patient has a severity, which moves by a velocity of the patient's own and which treatment lowers by a
sensitivity of the patient's own. None of the three is ever seen: two labs measure the severity with noise, who is
sicker is treated more often (by the severity itself, so treatment is confounded and treated patients look worse), and
dies sooner; the other codes mean nothing. How much of it a record tells is known: `sequela.record.worlds.belief`.

>>> world = LatentWorld()
>>> world.events(patients=2, seed=0).columns
['subject_id', 'time', 'code', 'numeric_value']
>>> world.truth(patients=2, seed=0).columns
['subject_id', 'prediction_time', 'visit', 'severity', 'velocity', 'sensitivity', 'dies']
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from sequela.record.duration import DAY, MINUTE
from sequela.record.schema import BIRTH, DEATH, FOLLOW_UP_END
from sequela.record.worlds.markov import EPOCH

LABS = ("LAB//A", "LAB//B")
TREATED = "TREATMENT//ON"
HIDDEN = ("severity", "velocity", "sensitivity")
MONTH = 30 * DAY  # the unit of time in this world
AHEAD = 3  # visits within which `dies` asks for death


@dataclass(frozen=True, eq=False)
class HiddenCourses:
    """The courses of P patients over T visits, and on for AHEAD more, as if nobody ever died.

    Attributes:
        time: int64 [P, T + AHEAD], microseconds.
        severity, velocity: float64 [P, T + AHEAD].
        sensitivity: float64 [P].
        labs: float32 [P, T + AHEAD, 2].
        treated: bool [P, T + AHEAD], from this visit to the next.
        death: int64 [P], the visit before which the patient dies; T + AHEAD if none of these.
    """

    time: np.ndarray
    severity: np.ndarray
    velocity: np.ndarray
    sensitivity: np.ndarray
    labs: np.ndarray
    treated: np.ndarray
    death: np.ndarray


@dataclass(frozen=True)
class LatentWorld:
    """How patients fare. Time is in months of 30 days; pairs are mean and standard deviation over patients.

    Attributes:
        severity: at the first visit.
        velocity: of the severity, per month, at the first visit.
        sensitivity: by how much a month of treatment lowers the severity.
        jolt: deviation of what else moves the severity in a month.
        wander: deviation of what moves the velocity in a month.
        noise: deviation of a lab from the severity.
        policy: of treatment at a visit: the severity at which half are treated, and the slope of the log odds.
        hazard: of death: at severity 0, per month, and the slope of its logarithm.
        visits: T, of those who live.
        gap: days between visits: the median, and the deviation of the logarithm; 0 is regular visits.
        nuisance: how many codes there are that mean nothing, and how many a visit has.
    """

    severity: tuple[float, float] = (0.0, 1.0)
    velocity: tuple[float, float] = (0.3, 0.33)
    sensitivity: tuple[float, float] = (0.6, 0.4)
    jolt: float = 0.15
    wander: float = 0.02
    noise: float = 1.0
    policy: tuple[float, float] = (0.5, 1.5)
    hazard: tuple[float, float] = (0.055, 1.2)
    visits: int = 10
    gap: tuple[float, float] = (30.0, 0.0)
    nuisance: tuple[int, int] = (12, 3)

    def gaps(self, normal: np.ndarray) -> np.ndarray:
        """Time between visits in whole minutes, at least two days, from standard normal numbers: int64."""
        median, spread = self.gap
        days = median * np.exp(spread * normal)
        return np.rint(np.maximum(days, 2.0) * (DAY // MINUTE)).astype(np.int64)

    def treats(self, severity: np.ndarray) -> np.ndarray:
        """The probability of treatment at a visit."""
        half, slope = self.policy
        return 1 / (1 + np.exp(-slope * (severity - half)))

    def survives(self, severity: np.ndarray, months: np.ndarray | float) -> np.ndarray:
        """The probability of being alive at a visit, so many months after the last one.

        Args:
            severity: at this visit.
            months: since the last visit, broadcast against it.
        """
        base, slope = self.hazard
        return np.exp(-base * np.exp(slope * severity) * months)

    def courses(self, patients: int, seed: int) -> HiddenCourses:
        """Draw what happens to patients.

        Args:
            patients: P.
            seed: of everything random, together with P.
        """
        random = np.random.default_rng(seed)
        length = self.visits + AHEAD
        gap = self.gaps(random.standard_normal((patients, length)))
        gap[:, 0] = 0
        time = EPOCH + gap.cumsum(1) * MINUTE
        months = gap * MINUTE / MONTH
        severity, velocity = np.empty((2, patients, length))
        s, v, a = random.standard_normal((3, patients)) * self._deviations + self._means
        treated = np.zeros((patients, length), bool)
        alive, death = np.ones(patients, bool), np.full(patients, length)
        for visit in range(length):
            month = months[:, visit]
            if visit:
                s = s + (v - a * treated[:, visit - 1]) * month
                s = s + self.jolt * np.sqrt(month) * random.standard_normal(patients)
                v = v + self.wander * np.sqrt(month) * random.standard_normal(patients)
                dies = alive & (random.random(patients) > self.survives(s, month))
                death[dies], alive = visit, alive & ~dies
            treated[:, visit] = random.random(patients) < self.treats(s)
            severity[:, visit], velocity[:, visit] = s, v
        labs = severity[..., None] + self.noise * random.standard_normal((*severity.shape, len(LABS)))
        return HiddenCourses(time, severity, velocity, a, labs.astype(np.float32), treated, death)

    def events(self, patients: int, seed: int) -> pl.DataFrame:
        """Simulate patients: birth 60 years before the first visit, visits, and death or the end of follow-up.

        Death is dated to the visit that it takes the place of, so that silence tells nothing.

        Args:
            patients: number of patients, numbered from 0.
            seed: see `courses`.

        Returns:
            A sorted MEDS frame (see `sequela.record.dataset`).
        """
        drawn = self.courses(patients, seed)
        kinds, count = self.nuisance
        numbers = (
            np.random.default_rng([seed, 1]).random((patients, self.visits, kinds)).argsort(2)[..., :count]
        )
        who, visit = np.nonzero(np.arange(self.visits) < drawn.death[:, None])
        when, treated = drawn.time[who, visit], drawn.treated[who, visit]
        everyone, last = np.arange(patients), drawn.time[:, self.visits - 1]
        dead = np.flatnonzero(drawn.death < self.visits)
        lost = np.flatnonzero(drawn.death >= self.visits)
        born = np.full(patients, EPOCH - 60 * 365 * DAY)
        rows = [_rows(everyone, born, BIRTH)]
        rows += [_rows(who, when, code, drawn.labs[who, visit, number]) for number, code in enumerate(LABS)]
        names = np.array([f"NUISANCE//{number:02}" for number in range(kinds)])
        rows += [_rows(who, when, names[numbers[who, visit, place]]) for place in range(count)]
        rows.append(_rows(who[treated], when[treated], TREATED))
        rows.append(_rows(dead, drawn.time[dead, drawn.death[dead]], DEATH))
        rows.append(_rows(lost, last[lost] + DAY, FOLLOW_UP_END))
        return pl.concat(rows).sort("subject_id", "time", "code", maintain_order=True)

    def truth(self, patients: int, seed: int) -> pl.DataFrame:
        """What the records of `events` of the same arguments hide, at every visit.

        Returns:
            A row for each patient and visit, sorted: `subject_id`, `prediction_time` (one minute after the visit, so
            that it belongs to what is known), `visit` from 0, HIDDEN, and `dies`: whether the patient dies within
            AHEAD visits, also where that is after the end of follow-up. It is a table of questions.
        """
        drawn = self.courses(patients, seed)
        who, visit = np.nonzero(np.arange(self.visits) < drawn.death[:, None])
        hidden = (drawn.severity[who, visit], drawn.velocity[who, visit], drawn.sensitivity[who])
        return pl.DataFrame(
            {
                "subject_id": who,
                "prediction_time": pl.Series(drawn.time[who, visit] + MINUTE).cast(pl.Datetime("us")),
                "visit": visit,
                **dict(zip(HIDDEN, hidden, strict=True)),
                "dies": drawn.death[who] <= visit + AHEAD,
            }
        )

    @property
    def _means(self) -> np.ndarray:
        return np.array([self.severity[0], self.velocity[0], self.sensitivity[0]])[:, None]

    @property
    def _deviations(self) -> np.ndarray:
        return np.array([self.severity[1], self.velocity[1], self.sensitivity[1]])[:, None]


def _rows(
    patients: np.ndarray, time: np.ndarray, code: object, value: np.ndarray | None = None
) -> pl.DataFrame:
    count = len(patients)
    return pl.DataFrame(
        {
            "subject_id": pl.Series(patients, dtype=pl.Int64),
            "time": pl.Series(time, dtype=pl.Int64).cast(pl.Datetime("us")),
            "code": pl.Series(np.broadcast_to(np.asarray(code, object), count).tolist(), dtype=pl.String),
            "numeric_value": pl.Series([None] * count if value is None else value, dtype=pl.Float32),
        }
    )
