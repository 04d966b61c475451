"""Scores of predictions against the number of rollouts behind them, from one pool of rollouts.

Shape letters: Q questions, N rollouts of the pool, B batches, R resamples of the patients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from sequela.rollout.estimators import answers
from sequela.task.scoring import metric
from sequela.task.scoring.bootstrap import interval, resamples
from sequela.task.scoring.censoring import censoring_weights

MOST = 20  # batches of one partition that are looked at
SURE = 1.96
SLOPES = {"slope", "slope_exact"}


def share(scores_QN: np.ndarray) -> np.ndarray:
    """The mean of the decidable scores as a probability; NaN without one."""
    return answers(scores_QN).risk


def half_a_case(scores_QN: np.ndarray) -> np.ndarray:
    """Votes with half a case and half a control added (Jeffreys), so that no risk is 0 or 1."""
    known = np.isfinite(scores_QN).sum(1)
    return np.where(known > 0, (np.nansum(scores_QN, 1) + 0.5) / (known + 1), np.nan)


def batches(
    scores_QN: np.ndarray,
    n: int,
    random: np.random.Generator,
    times: int,
    answer: Callable[[np.ndarray], np.ndarray] = share,
    most: int = MOST,
) -> Iterator[np.ndarray]:
    """`times` partitions of the pool into disjoint batches of n; the answers [Q, B] of each.

    Every question's rollouts are put in an order of their own, which is fair since questions share no rollouts.

    Raises:
        ValueError: where the pool has fewer than n.
    """
    if n > scores_QN.shape[1]:
        raise ValueError(f"a pool of {scores_QN.shape[1]} rollouts has no batch of {n}")
    count = min(scores_QN.shape[1] // n, most)
    for _ in range(times):
        mixed = random.permuted(scores_QN, axis=1)
        yield np.stack([answer(mixed[:, n * b : n * (b + 1)]) for b in range(count)], 1)


@dataclass(frozen=True)
class Mean:
    """Mean over batches with its standard error, NaN where there was one batch alone."""

    value: float
    error: float

    @staticmethod
    def of(partitions: list[np.ndarray]) -> Mean:
        """Of values by batch, for each partition.

        Batches of one partition share no rollouts, so their variance is that of a batch, and its root over the root of
        their number the error of one partition's mean. The mean over all partitions is at least as sure.
        """
        value = float(np.mean([np.mean(one) for one in partitions]))
        count = min(len(one) for one in partitions)
        if count < 2:
            return Mean(value, np.nan)
        variance = np.mean([np.var(one, ddof=1) for one in partitions])
        return Mean(value, float(np.sqrt(variance / count)))


def matches(losses: dict[int, Mean], reference: Mean, margin: float = 0.0) -> int | None:
    """The smallest n from which on every n that was tried loses no more than the reference; None where none does.

    "From which on", since one lucky n is no match. `margin`: standard errors of the difference by which it must be
    better than equal; 0 takes the means as they are.
    """
    found = None
    for n in sorted(losses, reverse=True):
        error = np.hypot(losses[n].error, reference.error) if margin else 0.0
        if not losses[n].value + margin * error <= reference.value:
            break
        found = n
    return found


@dataclass(frozen=True, eq=False)
class Truth:
    """What came of the questions: outcome float [Q] (NaN: lost), days until it was known [Q], patient [Q].

    `risk` [Q]: exact, where the world is known. `own` [Q]: the model's, as well as it is known.
    """

    outcome: np.ndarray
    until_days: np.ndarray
    patient: np.ndarray
    risk: np.ndarray | None = None
    own: np.ndarray | None = None

    def measure(self, prediction_Q: np.ndarray, copies: np.ndarray) -> dict[str, np.ndarray]:
        """AUROC, Brier, slope, O/E, ECE as `sequela evaluate` has them, when patients count `copies` [Q] or [Q, R].

        Who has no prediction is left out. With exact risks also `rmse`, and AUROC and slope in expectation: each
        patient is a case with its risk and a control with the rest.
        """
        answered = np.isfinite(prediction_Q)
        outcome, prediction, copies = self.outcome[answered], prediction_Q[answered], copies[answered]
        decided = np.isfinite(outcome)
        weights = censoring_weights(self.until_days[answered], decided, copies)
        weights[~decided] = 0
        known = outcome[decided], prediction[decided], weights[decided]
        found = {
            "auroc": metric.AUROC(*known),
            "brier": metric.BRIER(*known),
            "slope": metric.CALIBRATION_SLOPE(*known),
            "oe": metric.OE(np.nan_to_num(outcome), prediction, weights, copies),
            "ece": metric.ECE(*known),
        }
        if self.risk is not None:
            square = (prediction - self.risk[answered]) ** 2
            found["rmse"] = np.sqrt(square @ copies / copies.sum(0))
            risk = self.risk[answered].reshape(-1, *[1] * (copies.ndim - 1))
            split = np.concatenate([copies * risk, copies * (1 - risk)])
            sides = np.repeat([1.0, 0.0], len(prediction)), np.concatenate([prediction, prediction]), split
            found["auroc_exact"], found["slope_exact"] = (
                metric.AUROC(*sides),
                metric.CALIBRATION_SLOPE(*sides),
            )
        return found

    def means(self, partitions: list[np.ndarray]) -> dict[str, Mean]:
        """Every metric over the batches of partitions [Q, B].

        `slope_error`: the mean of |slope - 1|, likewise `slope_exact_error`; `slope_off`: that of the distance from the
        slope of the model's own risks.
        """
        ones = np.ones(len(self.patient))
        found = [[self.measure(column, ones) for column in answers_QB.T] for answers_QB in partitions]
        by_name = {
            name: [np.array([float(one[name]) for one in own]) for own in found] for name in found[0][0]
        }
        for name in SLOPES & by_name.keys():
            by_name[f"{name}_error"] = [np.abs(values - 1) for values in by_name[name]]
        if self.own is not None:
            own = float(self.measure(self.own, ones)["slope"])
            by_name["slope_off"] = [np.abs(values - own) for values in by_name["slope"]]
        return {name: Mean.of(values) for name, values in by_name.items()}

    def draws(self, answers_QB: np.ndarray, seed: int = 0, count: int = 1000) -> dict[str, np.ndarray]:
        """Every metric, mean over batches, when patients are drawn anew: [R], the same draws for the same seed."""
        found: dict[str, list[np.ndarray]] = {}
        for copies in resamples(self.patient, count, seed):
            own = [self.measure(column, copies) for column in answers_QB.T]
            for name in own[0]:
                found.setdefault(name, []).append(np.mean([one[name] for one in own], 0))
            for name in SLOPES & own[0].keys():
                off = np.mean([np.abs(one[name] - 1) for one in own], 0)
                found.setdefault(f"{name}_error", []).append(off)
        return {name: np.concatenate(parts) for name, parts in found.items()}


def span(value: float, draws_R: np.ndarray) -> tuple[float, float]:
    """Ends of the 95 % interval by patient."""
    found = interval(value, draws_R)
    return found.low, found.high


def spread(scores_QN: np.ndarray) -> np.ndarray:
    """Variance [Q] of one score of each question; over n it is the squared error of n rollouts. NaN below 2 scores."""
    found = answers(scores_QN)
    return found.standard_error**2 * found.effective
