"""Training seeds: how far would the score of the mean of K models move if other seeds were trained?

The score's slope in the weight of each model follows from the means that leave one out (the infinitesimal jackknife;
Efron and Tibshirani 1993, chapter 21), and the slopes' variance is that of a single seed. Drawing K of the K seeds
again would say less: the mean of fewer distinct models ranks worse, and they lie closer to their own mean than to that
of all seeds. So a resample moves by a draw from Student's t with that variance, and as many degrees of freedom as were
seen; few seeds say little about how far seeds lie apart. The tasks of a run are trained together, and tell each other
how far: without that, two seeds would decide nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sequela.errors import InputError
from sequela.task.answers.prediction import SIMULATION, is_seed

LEFT_OUT = f"{SIMULATION} without "
CLOSE = 1e-4  # of predictions in single precision
TAIL = 8.0  # standard deviations, beyond which a normal distribution ends
STEPS = 1001  # of an integral over it


@dataclass(frozen=True)
class SeedSpread:
    """How far a score moves with the training seeds.

    Attributes:
        deviation: the standard deviation of the score over single seeds.
        seeds: how many are averaged.
        freedom: degrees of freedom that the deviation was estimated with.
    """

    deviation: float = 0.0
    seeds: int = 1
    freedom: float = np.inf

    @staticmethod
    def of(score: float, without_K: np.ndarray) -> SeedSpread:
        """From the score of the mean of K models, and those of the means that leave one out.

        Of a score that is linear in the models, it is the standard deviation of their scores:

        >>> scores = np.array([0.70, 0.72, 0.77])
        >>> without = (scores.sum() - scores) / 2
        >>> round(SeedSpread.of(scores.mean(), without).deviation / float(scores.std(ddof=1)), 6)
        1.0
        """
        count = len(without_K)
        slopes = (count - 1) * (score - without_K)
        return SeedSpread(float(np.std(slopes, ddof=1)), count, count - 1)

    @property
    def error(self) -> float:
        """The standard error of the score of the mean."""
        return self.deviation / np.sqrt(self.seeds)

    def draws(self, count: int, seed: int) -> np.ndarray:
        """What other seeds would add to the score, [count]: quantiles of Student's t in a random order."""
        from scipy.special import stdtrit  # here: who only lists metrics need not load scipy

        if not self.error > 0:
            return np.zeros(count)
        order = np.random.default_rng([seed, self.seeds]).permutation(count)
        return self.error * stdtrit(self.freedom, (order + 0.5) / count)

    def chance(self, value: np.ndarray | float, error: float) -> np.ndarray:
        """How likely a difference as large as `value` is if there is none: by this and by patients.

        It is what Behrens and Fisher gave for two errors of different freedom: at most as often wrong as it says.

        >>> round(float(SeedSpread().chance(1.96, 1.0)), 3)
        0.05
        >>> round(float(SeedSpread(1.0, 3, 2).chance(4.3 / 3**0.5, 1e-9)), 3)
        0.05

        Args:
            value: a number, or several of one `error`, [C].
            error: standard error by patients, normally distributed.
        """
        from scipy.special import ndtr, stdtr

        size = np.abs(value)
        if not self.error > 0:
            return 2 * ndtr(-size / error) if error > 0 else np.where(size > 0, 0.0, 1.0)
        z, step = np.linspace(-TAIL, TAIL, STEPS, retstep=True)
        density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * step
        return np.minimum(1.0, 2 * stdtr(self.freedom, np.subtract.outer(-size, error * z) / self.error) @ density)


def pooled(spreads: Sequence[SeedSpread]) -> list[SeedSpread]:
    """The spreads of one metric in the tasks of a run: each as it is or as in all of them, whichever is larger.

    >>> [(round(one.deviation, 3), one.freedom) for one in pooled([SeedSpread(0.01, 2, 1), SeedSpread(0.03, 2, 1)])]
    [(0.022, 2), (0.03, 2)]
    """
    known = [one for one in spreads if np.isfinite(one.deviation)]
    freedom = sum(one.freedom for one in known)
    together = sum(one.freedom * one.deviation**2 for one in known) / freedom if known else np.nan
    return [replace(one, deviation=float(np.fmax(one.deviation, together**0.5)), freedom=freedom) for one in spreads]


def seeds_of(models: dict[str, np.ndarray]) -> list[str]:
    """The models that are single seeds of the simulation; empty if there are not two or more beside their mean."""
    names = [model for model in models if is_seed(model)]
    return names if SIMULATION in models and len(names) > 1 else []


def left_out(predictions: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """For each single seed the mean of the others, [N], under the name `LEFT_OUT` and its own.

    >>> left_out({"sequela": np.array([0.4]), "sequela_1": np.array([0.3]), "sequela_2": np.array([0.5])})
    {'sequela without sequela_1': array([0.5]), 'sequela without sequela_2': array([0.3])}

    Raises:
        InputError: if the simulation is not the mean of its seeds.
    """
    names = seeds_of(predictions)
    if not names:
        return {}
    total = np.sum([predictions[name] for name in names], axis=0)
    if not np.allclose(total / len(names), predictions[SIMULATION], rtol=CLOSE, atol=CLOSE):
        raise InputError(
            f"the predictions of {SIMULATION} are not the mean of {', '.join(names)}: predict again, with all models "
            "at once."
        )
    return {LEFT_OUT + name: (total - predictions[name]) / (len(names) - 1) for name in names}
