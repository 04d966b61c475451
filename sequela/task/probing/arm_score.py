"""The score of an arm: the mean over its training seeds, and how sure a difference of two arms is.

A score moves with other patients (the draws of a bootstrap, the same for all arms) and with other training runs (the
spread of the seeds, as a draw from Student's t with the degrees of freedom that were seen; see
`sequela.task.scoring.seeds`). Seeds of the same numbers are compared pair by pair. An arm with a single seed is taken
to move as much as the one that it is compared with; with one seed on both sides nothing tells, and the interval is that
of other patients alone. Unlike the mean of several models' answers, which is a model of its own, the mean of scores
says how good a model of the arm is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sequela.task.scoring.bootstrap import Estimate, interval
from sequela.task.scoring.seeds import SeedSpread


@dataclass(frozen=True, eq=False)
class ArmScore:
    """A number of one arm, such as its AUROC at a landmark.

    Attributes:
        seeds: which training seeds it has; None for one that is not numbered.
        each: float64 [K], the number of each.
        draws: float64 [R], the mean over the seeds on resamples of the patients.
        trained: whether another training run would move it; not true of a plain baseline.
    """

    seeds: tuple[int | None, ...]
    each: np.ndarray
    draws: np.ndarray
    trained: bool = True

    @property
    def value(self) -> float:
        """The mean over the seeds."""
        return float(self.each.mean())

    @property
    def deviation(self) -> float:
        """Standard deviation over the seeds; NaN for one."""
        return float(self.each.std(ddof=1)) if len(self.each) > 1 else np.nan

    def estimate(self, seed: int) -> Estimate:
        """The number with its interval over patients and seeds."""
        spread = SeedSpread()
        if len(self.each) > 1:
            spread = SeedSpread(self.deviation, len(self.each), len(self.each) - 1)
        return interval(self.value, self.draws + spread.draws(len(self.draws), seed))


def combined(weights: Sequence[float], scores: Sequence[ArmScore]) -> ArmScore:
    """The weighted sum of several numbers of one arm, drawn together.

    >>> late, soon = (ArmScore((1, 2), np.array(each), np.zeros(3)) for each in ([0.7, 0.8], [0.6, 0.5]))
    >>> combined([1, -1], [late, soon]).each.round(6).tolist()
    [0.1, 0.3]
    """
    first = scores[0]
    assert all(score.seeds == first.seeds for score in scores), "scores of different seeds"
    each, draws = (
        np.sum([w * values for w, values in zip(weights, parts, strict=True)], axis=0)
        for parts in ([score.each for score in scores], [score.draws for score in scores])
    )
    return ArmScore(first.seeds, each, draws, first.trained)


def spread_between(mine: ArmScore, theirs: ArmScore) -> SeedSpread:
    """How far the difference of two arms moves with their training seeds.

    >>> mine, theirs = (ArmScore((1, 2), np.array(each), np.zeros(1)) for each in ([0.8, 0.6], [0.7, 0.5]))
    >>> others = ArmScore((3, 4), theirs.each, theirs.draws)
    >>> [round(float(spread_between(mine, each).error), 6) for each in (theirs, others)]
    [0.0, 0.141421]

    Returns:
        None of it where nothing tells: two arms of one seed each, or two baselines.
    """
    if mine.seeds == theirs.seeds and len(mine.each) > 1 and mine.trained and theirs.trained:
        return SeedSpread(float(np.std(mine.each - theirs.each, ddof=1)), len(mine.each), len(mine.each) - 1)
    trained = [score for score in (mine, theirs) if score.trained]
    several = [score for score in trained if len(score.each) > 1]
    if not several:
        return SeedSpread()
    if len(several) < len(trained):
        (known,) = several
        wider = np.sqrt(sum(1 / len(score.each) for score in trained))
        return SeedSpread(float(known.deviation * wider), 1, len(known.each) - 1)
    parts = [(score.deviation**2 / len(score.each), len(score.each) - 1) for score in several]
    total = sum(error for error, _ in parts)
    if not total > 0:
        return SeedSpread()
    return SeedSpread(float(np.sqrt(total)), 1, total**2 / sum(error**2 / freedom for error, freedom in parts))


def difference(mine: ArmScore, theirs: ArmScore, seed: int) -> tuple[Estimate, float]:
    """`mine` less `theirs` with its interval, and how likely one as large is if there is none; not corrected."""
    value, draws = mine.value - theirs.value, mine.draws - theirs.draws
    spread, known = spread_between(mine, theirs), draws[np.isfinite(draws)]
    estimate = interval(value, draws + spread.draws(len(draws), seed))
    p = float(spread.chance(value, float(np.std(known)))) if np.isfinite(estimate.low) else 1.0
    return estimate, p
