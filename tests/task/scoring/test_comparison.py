"""Words for differences, on made differences whose truth is known: how often they are wrong, and what they find."""

import numpy as np
import pytest

from sequela.task.scoring.bootstrap import Estimate
from sequela.task.scoring.comparison import BEATEN, BEATS, MATCHES, OPEN, Comparison, corrected
from sequela.task.scoring.measured import Measured
from sequela.task.scoring.metric import AUROC, MAE
from sequela.task.scoring.seeds import SeedSpread, pooled

TASKS, MODELS = 4, 4  # 16 comparisons a run
PATIENTS, TRAINING = 0.008, 0.012  # standard deviations of an AUROC: by patients, and of one seed by training
RUNS = 250


def run(random, *, true=0.0, seeds=1, training=0.0, blind=False):
    """The comparisons of one run: the mean of K seeds with models that are truly worse by `true`.

    `blind`: as if the seeds were those of every run.
    """
    moved = random.normal(0, training, (TASKS, seeds))
    spreads = [SeedSpread()] * TASKS
    if seeds > 1 and not blind:
        without = (moved.sum(axis=1, keepdims=True) - moved) / (seeds - 1)
        spreads = pooled([SeedSpread.of(one.mean(), other) for one, other in zip(moved, without, strict=True)])
    found = []
    for own, spread in zip(moved, spreads, strict=True):
        values = true + own.mean() + random.normal(0, PATIENTS, MODELS)
        chances = spread.chance(values, PATIENTS)
        wide = Estimate(0, -1, 1)
        found += [Comparison(wide, value, p, 0.02) for value, p in zip(values, chances, strict=True)]
    return found


def wrong(*, correct=True, **world):
    """The share of runs in which equal models are called different."""
    random = np.random.default_rng(1)
    words = ([one.word for one in (corrected if correct else list)(run(random, **world))] for _ in range(RUNS))
    return np.mean([BEATS in some or BEATEN in some for some in words])


@pytest.mark.parametrize("world", [{}, {"seeds": 2, "training": TRAINING}, {"seeds": 3, "training": TRAINING}])
def test_equal_models_pass_for_different_in_at_most_one_of_twenty_runs(world):
    assert wrong(**world) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / RUNS)


def test_without_correction_they_do_in_a_third_of_all_runs():
    """Negative control: sixteen comparisons at 95 % each."""
    assert wrong(correct=False) > 0.3


def test_without_the_seeds_they_do_too():
    """Negative control: one training run, or three, as if no other could have come."""
    assert wrong(seeds=1, training=TRAINING) > 0.2
    assert wrong(seeds=3, training=TRAINING, blind=True) > 0.1


def test_a_planted_difference_is_found():
    random = np.random.default_rng(2)
    found = [one.word for _ in range(20) for one in corrected(run(random, true=0.06, seeds=3, training=0.004))]
    assert np.mean([word == BEATS for word in found]) > 0.95
    worse = [one.word for _ in range(20) for one in corrected(run(random, true=-0.06))]
    assert np.mean([word == BEATEN for word in worse]) > 0.99


def one(value, half, metric=AUROC, other=0.7):
    """A comparison whose interval reaches `half` to both sides."""
    draws = other + value + half * np.linspace(-1, 1, 401) / 0.95
    name = metric.name
    points = {("sequela", name): other + value, ("cox", name): other}
    measured = Measured(points, {("sequela", name): draws, ("cox", name): np.full(401, other)})
    return measured.comparison("cox", metric, 0.02)


@pytest.mark.parametrize(
    ("comparison", "word"),
    [
        (one(0.001, 0.011), MATCHES),
        (one(0.001, 0.04), OPEN),
        (one(0.010, 0.011), OPEN),  # it reaches beyond the margin
        (one(0.010, 0.004), BEATS),  # sure, though small
        (one(-0.010, 0.004), BEATEN),
        (one(0.010, 0.004, MAE, other=0.7), BEATEN),  # an error is better if it is smaller
        (one(0.01, 0.05, MAE, other=6.7), MATCHES),  # within 2 % of 6.7
        (one(0.01, 0.05, MAE, other=1.0), OPEN),
        (one(0.0, 0.0), MATCHES),
    ],
)
def test_the_word_follows_from_the_interval_and_the_margin(comparison, word):
    assert comparison.word == word


def test_what_is_not_defined_is_not_decided():
    draws = dict.fromkeys([("sequela", "auroc"), ("cox", "auroc")], np.full(9, np.nan))
    found = Measured(dict.fromkeys(draws, 0.5), draws).comparison("cox", AUROC, 0.02)
    assert (found.word, found.p) == (OPEN, 1)
    assert Comparison(Estimate(np.nan, np.nan, np.nan), np.nan, 1.0, 0.02).as_dict() == {}
    assert corrected([]) == []
