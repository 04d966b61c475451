"""Every metric of every model of a task: on the patients as they are, and on many resamples of them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
from threadpoolctl import threadpool_limits

from sequela.task.answers.prediction import SIMULATION
from sequela.task.kinds import Kind
from sequela.task.scoring.areas import ratio
from sequela.task.scoring.bootstrap import Estimate, interval, resamples
from sequela.task.scoring.censoring import UNSEEN, Censoring, in_time
from sequela.task.scoring.comparison import Comparison
from sequela.task.scoring.metric import Measure, Metric, ModelAnswers, Prepare, Weights
from sequela.task.scoring.seeds import SeedSpread, left_out
from sequela.task.scoring.sums import many
from sequela.workers import cores

Key = tuple[str, str]
"""A model and a metric."""
OBSERVED: Key = ("", "observed")
THREADS = min(4, cores())  # resamples measured at once; they share all but their weights


@dataclass(frozen=True, eq=False)
class SharedAnswers:
    """The questions that all models answered, and the answers.

    Attributes:
        kind: of the task.
        patient: int64 [N].
        outcome: float64 [N], NaN if there is none to score.
        until_days: float64 [N]; 0 everywhere if nobody says how long patients were followed.
        lost: bool [N], whether the record ends before the outcome is known; others without one never had any.
        predictions: by model, float64 [N].
    """

    kind: Kind
    patient: np.ndarray
    outcome: np.ndarray
    until_days: np.ndarray
    lost: np.ndarray
    predictions: dict[str, np.ndarray]

    def take(self, rows: np.ndarray) -> SharedAnswers:
        """These rows, in this order."""
        return SharedAnswers(
            self.kind,
            self.patient[rows],
            self.outcome[rows],
            self.until_days[rows],
            self.lost[rows],
            {model: prediction[rows] for model, prediction in self.predictions.items()},
        )


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured.

    Attributes:
        points: by model and metric.
        draws: the same on R resamples of the patients, float64 [R].
        seeds: by metric, how far the simulation moves with its training seeds; empty unless it is a mean of several.
        unseen: the share of patients for whom nobody stands (see `Censoring.unseen`).
        seed: of the resamples.
    """

    points: dict[Key, float]
    draws: dict[Key, np.ndarray]
    seeds: dict[str, SeedSpread] = field(default_factory=dict)
    unseen: float = 0.0
    seed: int = 0

    def estimate(self, model: str, metric: str) -> Estimate:
        """A metric with its interval, NaN if it was not measured."""
        key = model, metric
        if key not in self.points:
            return Estimate(np.nan, np.nan, np.nan)
        return interval(self.points[key], self._moved(self.draws[key], self._spread(*key)))

    def comparison(self, other: str, metric: Metric, margin: float) -> Comparison:
        """The simulation against another model, `margin` as for `Metric.margin`; not yet corrected."""
        mine, theirs = (SIMULATION, metric.name), (other, metric.name)
        value, draws = self.points[mine] - self.points[theirs], self.draws[mine] - self.draws[theirs]
        spread, known = self._spread(*mine), draws[np.isfinite(draws)]
        difference = interval(value, self._moved(draws, spread))
        p = float(spread.chance(value, float(np.std(known)))) if np.isfinite(difference.low) else 1.0
        gain = value if metric.higher_is_better else -value
        return Comparison(difference, gain, p, metric.margin(margin, self.points[theirs]))

    def _spread(self, model: str, metric: str) -> SeedSpread:
        return self.seeds.get(metric, SeedSpread()) if model == SIMULATION else SeedSpread()

    def _moved(self, draws_R: np.ndarray, spread: SeedSpread) -> np.ndarray:
        return draws_R + spread.draws(len(draws_R), self.seed)


# many small products: threads of each would spend more time waiting for each other than working
@threadpool_limits.wrap(limits=1)
def measure_all(
    cohort: SharedAnswers, seed: int, resample_count: int, among: np.ndarray | None = None
) -> Measured:
    """Everything that is identified: nothing without a known answer, or if nobody stands for too many patients.

    Args:
        among: patients to draw resamples from (see `resamples`).
    """
    if np.isnan(cohort.outcome).all():
        return Measured({}, {})
    one_by_one = many(len(cohort.patient))
    if one_by_one:
        cohort = cohort.take(in_time(cohort.until_days, ~cohort.lost))
    weigh = _weighing(cohort)
    weights, unseen = weigh(np.ones(len(cohort.patient)))
    if unseen > UNSEEN:
        return Measured({}, {}, unseen=float(unseen))
    models = [_Model.of(cohort, model) for model in cohort.predictions]
    points = _measure(cohort.kind, models, weights)
    seeds = _seeds(cohort, points, weights)

    def measured(copies: np.ndarray) -> dict[Key, np.ndarray]:
        # of many rows resamples come one by one, and a column is slower than a row
        return _measure(cohort.kind, models, weigh(copies[:, 0] if one_by_one else copies)[0])

    drawn = resamples(cohort.patient, resample_count, seed, among)
    batches: list[dict[Key, np.ndarray]] = []
    with ThreadPoolExecutor(THREADS) as pool:
        while some := list(islice(drawn, THREADS)):
            batches += pool.map(measured, some)
    if len(np.unique(cohort.patient)) < 2:  # a resample of one patient is that patient: it tells nothing
        batches = [dict.fromkeys(points, np.nan)]
    draws = {key: np.concatenate([np.atleast_1d(batch[key]) for batch in batches]) for key in points}
    return Measured({key: float(value) for key, value in points.items()}, draws, seeds, seed=seed)


def _seeds(cohort: SharedAnswers, points: dict[Key, np.ndarray], weights: Weights) -> dict[str, SeedSpread]:
    """By metric, how far the mean of several seeds moves with them; empty for one."""
    without = replace(cohort, predictions=left_out(cohort.predictions))
    models = [_Model.of(without, name) for name in without.predictions]
    measured = _measure(cohort.kind, models, weights)
    return {
        metric.name: SeedSpread.of(
            float(points[SIMULATION, metric.name]),
            np.array([measured[model.name, metric.name] for model in models], np.float64),
        )
        for metric in (cohort.kind.metrics if models else ())
    }


def _weighing(cohort: SharedAnswers) -> Callable[[np.ndarray], tuple[Weights, np.ndarray]]:
    """From how often each patient counts, [N] or [N, R]: the weights estimated on those copies, and who is unseen."""
    outcome = np.nan_to_num(cohort.outcome)
    known, unknown = (np.flatnonzero(x) for x in (~np.isnan(cohort.outcome), np.isnan(cohort.outcome)))
    censoring = Censoring.of(cohort.until_days, ~cohort.lost)

    def weigh(copies: np.ndarray) -> tuple[Weights, np.ndarray]:
        weights = censoring.weights(copies)
        unseen = censoring.unseen(weights, copies)
        weights[unknown] = 0
        if np.any(unseen > UNSEEN):
            weights[..., unseen > UNSEEN] = 0
        observed = ratio(outcome @ weights, weights.sum(axis=0))
        return Weights(weights[known] if len(unknown) else weights, copies, observed), unseen

    return weigh


@dataclass(frozen=True, eq=False)
class _Model:
    """A model's measures, by what prepared them. Of many rows they take the known ones in the `order` of predictions,
    so that no measure has to look them up.
    """

    name: str
    measures: dict[Prepare, Measure]
    order: np.ndarray | None

    @staticmethod
    def of(cohort: SharedAnswers, name: str) -> _Model:
        known, everyone = ~np.isnan(cohort.outcome), cohort.predictions[name]
        outcome, prediction, order = cohort.outcome[known], everyone[known], None
        if many(len(everyone)):
            order = np.argsort(-prediction, kind="stable")
            outcome, prediction = outcome[order], prediction[order]
        answers = ModelAnswers(outcome, prediction, everyone)
        prepared = dict.fromkeys(metric.prepare for metric in cohort.kind.metrics)
        return _Model(name, {prepare: prepare(answers) for prepare in prepared}, order)


def _measure(kind: Kind, models: list[_Model], weights: Weights) -> dict[Key, np.ndarray]:
    """The metrics under these weights."""
    measured = {OBSERVED: weights.observed}
    for model in models:
        mine = weights if model.order is None else replace(weights, known=weights.known[model.order])
        values = {prepare: measure(mine) for prepare, measure in model.measures.items()}
        for metric in kind.metrics:
            measured[model.name, metric.name] = values[metric.prepare][metric.part]
    return measured
