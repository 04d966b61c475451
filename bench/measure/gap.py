"""How much of the gap between a reference and the best possible answer does a model close?

For worlds whose ceiling is known, such as that of `sequela.record.worlds.belief`. A share of what can be known says
more than a difference of scores, and a model that does better than the ceiling knows what it cannot: the future.
Intervals are paired: all answers are scored on the same resampled patients. If each model was trained with several
seeds, they say how far the numbers would move with other patients and other seeds (see `sequela.task.scoring.seeds`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sequela.task.scoring.areas import ratio
from sequela.task.scoring.bootstrap import RESAMPLES, Estimate, interval, resamples
from sequela.task.scoring.metric import Measure, Metric, ModelAnswers, Weights
from sequela.task.scoring.seeds import SeedSpread


def _r2(answers: ModelAnswers) -> Measure:
    """The share of the variance that is explained, 1 - mean squared error / variance.

    >>> float(R2(np.array([0.0, 2.0]), np.array([0.5, 1.5]), np.ones(2)))
    0.75
    """
    error = (answers.outcome - answers.prediction) ** 2
    centered = answers.outcome - answers.outcome.mean()

    def measure(weights: Weights) -> tuple[np.ndarray, ...]:
        about_zero = centered**2 @ weights.known
        return (
            1 - ratio(error @ weights.known, about_zero - (centered @ weights.known) ** 2 / weights.total),
        )

    return measure


R2 = Metric("r2", _r2, "R2", page_title="R²", higher_is_better=True)


@dataclass(frozen=True)
class GapClosed:
    """A model between a reference and a ceiling, with 95 % intervals.

    Attributes:
        gain: the model's score less the reference's.
        gap: the ceiling's score less the reference's.
        share: gain / gap; not defined where the gap is not surely above 0, because then there is nothing to close.
        beyond: the model's score less the ceiling's.
    """

    gain: Estimate
    gap: Estimate
    share: Estimate
    beyond: Estimate

    @property
    def peeks(self) -> bool:
        """Whether the model is surely above the ceiling, which only a look at the future or at the truth explains."""
        return self.beyond.low > 0

    def as_dict(self) -> dict[str, object]:
        """The numbers with their intervals, and `peeks`."""
        gone = "the ceiling is not surely above the reference"
        return {
            "gain": self.gain.as_dict(),
            "gap": self.gap.as_dict(),
            "share": self.share.as_dict(gone),
            "beyond": self.beyond.as_dict(),
            "peeks": self.peeks,
        }


@dataclass(frozen=True, eq=False)
class Answered:
    """The same N questions, answered by a model, a reference and a ceiling.

    Attributes:
        patient: int64 [N]; rows of one patient are resampled together.
        outcome: float64 [N], the truth.
        model, reference: float64 [K, N], of K training seeds each, paired; or [1, N] of what has none.
        ceiling: float64 [N].
    """

    patient: np.ndarray
    outcome: np.ndarray
    model: np.ndarray
    reference: np.ndarray
    ceiling: np.ndarray


def gap_closed(
    answered: Answered, metric: Metric = R2, *, count: int = RESAMPLES, seed: int = 0
) -> GapClosed:
    """Score all answers on the same resampled patients; scores of several seeds are averaged.

    Args:
        answered: questions and answers.
        metric: one of which more is better.
        count: resamples.
        seed: of the resamples.
    """
    every = np.vstack([answered.model, answered.reference, answered.ceiling[None]])
    measures = [metric.prepare(ModelAnswers(answered.outcome, one, one)) for one in every]

    def scores(copies: np.ndarray) -> np.ndarray:
        weights = Weights(copies, copies, ratio(answered.outcome @ copies, copies.sum(axis=0)))
        return np.array([measure(weights)[metric.part] for measure in measures])

    point = scores(np.ones((len(answered.outcome), 1)))
    drawn = np.concatenate([scores(copies) for copies in resamples(answered.patient, count, seed)], axis=1)
    (model, reference, ceiling), (models, references, ceilings) = (
        np.split(each, (len(answered.model), len(every) - 1)) for each in (point, drawn)
    )
    gain, gap = model.mean() - reference.mean(), (ceiling - reference.mean()).item()
    above, below = model - model.mean(), reference - reference.mean()  # of each seed, from their mean
    gains, gaps = models.mean(0) - references.mean(0), ceilings[0] - references.mean(0)
    known = _estimate(gap, gaps, -below, seed)
    slopes = above / gap - below * (gap - gain) / gap**2 if gap else above
    share = _estimate(gain / gap, gains / gaps, slopes, seed) if known.low > 0 else Estimate(*[np.nan] * 3)
    return GapClosed(
        gain=_estimate(gain, gains, above - below, seed),
        gap=known,
        share=share,
        beyond=_estimate(gain - gap, gains - gaps, above, seed),
    )


def _estimate(value: float, draws: np.ndarray, of_seeds: np.ndarray, seed: int) -> Estimate:
    """A number with its interval over patients [R], and over seeds, each of which moves it so far: [K, 1]."""
    seeds = len(of_seeds)
    if seeds > 1:
        draws = draws + SeedSpread(float(np.std(of_seeds, ddof=1)), seeds, seeds - 1).draws(len(draws), seed)
    return interval(value, draws)
