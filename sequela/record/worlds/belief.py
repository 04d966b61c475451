"""What the records of `sequela.record.worlds.latent` tell: the posterior of the hidden course, any model's ceiling.

At each visit the posterior given the record up to and including that visit: labs, treatments, gaps, and having lived to
see it. Everything is linear and normal but treatment and survival, which depend on the severity alone. So the filter
carries a normal distribution of the three hidden values, takes labs exactly, and moves mean and covariance to those
that treatment and survival leave, by quadrature over the severity (assumed-density filtering: Maybeck 1982, Stochastic
Models, Estimation and Control, volume 2, chapter 12). The tests hold it against a particle filter and against brute
force.

>>> from sequela.record.worlds.latent import LatentWorld
>>> world = LatentWorld()
>>> ceiling(world, world.events(patients=2, seed=0)).columns
['subject_id', 'prediction_time', 'visit', 'severity', 'velocity', 'sensitivity', 'dies']
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from sequela.errors import InputError
from sequela.record.duration import MINUTE
from sequela.record.worlds.latent import AHEAD, HIDDEN, LABS, MONTH, TREATED, LatentWorld

NODES = 24  # of the quadrature over the severity
PATHS = 1 << 10  # by which a belief is carried on, to tell risks
CELLS = 1 << 18  # patients x paths worked on at once: 2 MB of float64, so that a batch stays in the cache


@dataclass(frozen=True, eq=False)
class Visits:
    """The visits of P patients, as their records tell them; T is the largest number of visits.

    Attributes:
        patient: int64 [P], sorted.
        count: int64 [P], visits of each.
        time: int64 [P, T], microseconds.
        months: float64 [P, T], since the visit before; 0 for the first.
        lab: float64 [P, T], the mean of the two.
        treated: bool [P, T], from this visit to the next.
    """

    patient: np.ndarray
    count: np.ndarray
    time: np.ndarray
    months: np.ndarray
    lab: np.ndarray
    treated: np.ndarray

    @staticmethod
    def of(events: pl.DataFrame) -> Visits:
        """Read MEDS events of the world.

        Raises:
            InputError: if there is no visit, or a visit lacks a lab.
        """
        visits = (
            events.filter(pl.col("code").is_in([*LABS, TREATED]))
            .group_by("subject_id", "time")
            .agg(
                *(pl.col("numeric_value").filter(pl.col("code") == lab).first().alias(lab) for lab in LABS),
                treated=(pl.col("code") == TREATED).any(),
            )
            .sort("subject_id", "time")
        )
        labs = visits.select(pl.col(LABS).cast(pl.Float64)).to_numpy()
        if not len(labs) or np.isnan(labs).any():
            raise InputError(
                f"the events are not of the world of hidden courses, where every visit has {' and '.join(LABS)}: "
                "simulate them with LatentWorld."
            )
        patient, row, count = np.unique(
            visits["subject_id"].to_numpy(), return_inverse=True, return_counts=True
        )
        visit = np.arange(len(row)) - (count.cumsum() - count)[row]
        shape = (len(patient), int(count.max()))
        time, lab, treated = np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape, bool)
        time[row, visit] = visits["time"].to_physical().to_numpy()
        lab[row, visit] = labs.mean(1)
        treated[row, visit] = visits["treated"].to_numpy()
        return Visits(patient, count, time, np.diff(time, axis=1, prepend=time[:, :1]) / MONTH, lab, treated)


@dataclass(frozen=True, eq=False)
class Belief:
    """The posterior of HIDDEN at one visit of P patients.

    Attributes:
        mean: float64 [P, 3].
        spread: float64 [P, 3, 3], covariances.
        treated: bool [P], from this visit to the next.
    """

    mean: np.ndarray
    spread: np.ndarray
    treated: np.ndarray

    def levels(self, hidden: np.ndarray) -> np.ndarray:
        """The posterior probability of less than `hidden` [P, 3].

        Of true values these are uniform over patients if the posterior is right: each credible interval then holds as
        often as it says (Cook, Gelman, Rubin 2006, J Comput Graph Stat 15:675).
        """
        from scipy.special import ndtr

        return ndtr((hidden - self.mean) / np.sqrt(np.diagonal(self.spread, axis1=1, axis2=2)))

    def risk(self, world: LatentWorld, ahead: int = AHEAD, paths: int = PATHS) -> np.ndarray:
        """The probability of death within so many visits: float64 [P].

        The paths are spread evenly (Sobol points, moved by a random shift) and are the same for all patients, which
        leaves an error of about .001 that hardly changes their order.

        Args:
            world: the one that patients live in.
            ahead: visits.
            paths: a power of 2.
        """
        from scipy.special import ndtri
        from scipy.stats.qmc import Sobol

        size = len(HIDDEN) + 4 * ahead
        even = Sobol(size, scramble=False).random(paths) + np.random.default_rng(0).random(size)
        points = (even % 1).T
        start, steps = ndtri(points[: len(HIDDEN)]), points[len(HIDDEN) :].reshape(ahead, 4, paths)
        every = self.mean[..., None] + _root(self.spread) @ start
        severity, velocity, sensitivity = every[:, 0], every[:, 1], every[:, 2]
        treated, alive = np.broadcast_to(self.treated[:, None], severity.shape), np.ones_like(severity)
        for gap, jolt, wander, treatment in steps:
            month = world.gaps(ndtri(gap)) * MINUTE / MONTH
            severity = severity + (velocity - sensitivity * treated) * month
            severity += world.jolt * np.sqrt(month) * ndtri(jolt)
            velocity = velocity + world.wander * np.sqrt(month) * ndtri(wander)
            alive = alive * world.survives(severity, month)
            treated = treatment < world.treats(severity)
        return 1 - alive.mean(1)


def beliefs(world: LatentWorld, visits: Visits) -> Iterator[tuple[np.ndarray, Belief]]:
    """For every visit, the first, second, ..., the rows [p] of the patients who have it and what is believed then."""
    rows = np.arange(len(visits.patient))
    prior = np.array([world.severity, world.velocity, world.sensitivity])
    mean, spread = np.tile(prior[:, 0], (len(rows), 1)), np.tile(np.diag(prior[:, 1] ** 2), (len(rows), 1, 1))
    for visit in range(visits.time.shape[1]):
        here = visits.count[rows] > visit
        rows, mean, spread = rows[here], mean[here], spread[here]
        months, treated = visits.months[rows, visit], visits.treated[rows, visit]
        if visit:
            mean, spread = _moved(world, mean, spread, months, visits.treated[rows, visit - 1])
        severity, chance = _learned(world, mean[:, 0], spread[:, 0, 0], visits.lab[rows, visit])
        treats = world.treats(severity)
        chance = chance * np.where(treated[:, None], treats, 1 - treats)
        chance = chance * world.survives(severity, months[:, None])
        mean, spread = _given(mean, spread, severity, chance / chance.sum(1, keepdims=True))
        yield rows, Belief(mean, spread, treated)


def ceiling(world: LatentWorld, events: pl.DataFrame) -> pl.DataFrame:
    """The best answers that records allow, at every visit: what no model can beat except by luck.

    Args:
        world: the one that the events are of.
        events: of any patients of it.

    Returns:
        The rows and columns of `LatentWorld.truth`, with posterior means for what is hidden, and the probability of
        death within AHEAD visits.

    Raises:
        InputError: if the events are not of this kind of world.
    """
    visits = Visits.of(events)
    tables = []
    for visit, (rows, belief) in enumerate(beliefs(world, visits)):
        step = max(1, CELLS // PATHS)
        parts = [slice(first, first + step) for first in range(0, len(rows), step)]
        risks = [
            Belief(belief.mean[part], belief.spread[part], belief.treated[part]).risk(world) for part in parts
        ]
        tables.append(
            pl.DataFrame(
                {
                    "subject_id": visits.patient[rows],
                    "prediction_time": pl.Series(visits.time[rows, visit] + MINUTE).cast(pl.Datetime("us")),
                    "visit": np.full(len(rows), visit),
                    **dict(zip(HIDDEN, belief.mean.T, strict=True)),
                    "dies": np.concatenate(risks),
                }
            )
        )
    return pl.concat(tables).sort("subject_id", "visit")


def _moved(
    world: LatentWorld, mean: np.ndarray, spread: np.ndarray, months: np.ndarray, treated: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance so many months later, before anything is measured."""
    step = np.tile(np.eye(len(HIDDEN)), (len(mean), 1, 1))
    step[:, 0, 1], step[:, 0, 2] = months, -months * treated
    spread = step @ spread @ step.transpose(0, 2, 1)
    spread[:, 0, 0] += world.jolt**2 * months
    spread[:, 1, 1] += world.wander**2 * months
    return np.einsum("phk,pk->ph", step, mean), spread


def _learned(
    world: LatentWorld, mean: np.ndarray, variance: np.ndarray, lab: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Nodes [P, NODES] and weights [NODES] of the severity, of known mean and variance [P], given the labs."""
    noise = world.noise**2 / len(LABS)
    trust = variance / (variance + noise)
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    middle = mean + trust * (lab - mean)
    return middle[:, None] + np.sqrt(trust * noise)[:, None] * nodes, weights


def _given(
    mean: np.ndarray, spread: np.ndarray, severity: np.ndarray, chance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance if the severity is at nodes [P, NODES] with these chances, and the rest follows it."""
    middle = (chance * severity).sum(1)
    variance = (chance * (severity - middle[:, None]) ** 2).sum(1)
    gain = spread[:, :, 0] / spread[:, :1, 0]
    change = (variance - spread[:, 0, 0])[:, None, None]
    mean = mean + gain * (middle - mean[:, 0])[:, None]
    return mean, spread + change * gain[:, :, None] * gain[:, None, :]


def _root(spread: np.ndarray) -> np.ndarray:
    """Roots L of covariances [P, H, H] = L L', also where they are singular."""
    values, vectors = np.linalg.eigh(spread)
    return vectors * np.sqrt(np.maximum(values, 0))[:, None]
