"""Differences of arms over seeds and patients, on numbers whose errors are known."""

import numpy as np
import pytest
from scipy.stats import ttest_ind, ttest_rel

from sequela.task.probing.arm_score import ArmScore, combined, difference, spread_between


def score(seeds: tuple, each: list[float], draws: np.ndarray | None = None, *, trained: bool = True) -> ArmScore:
    """Without draws, patients do not move it."""
    still = np.full(400, np.mean(each))
    return ArmScore(seeds, np.array(each), still if draws is None else draws, trained)


MINE, THEIRS = [0.80, 0.83, 0.79, 0.84], [0.78, 0.82, 0.78, 0.81]


def test_seeds_of_the_same_numbers_are_compared_in_pairs() -> None:
    estimate, p = difference(score((1, 2, 3, 4), MINE), score((1, 2, 3, 4), THEIRS), seed=0)
    assert estimate.value == pytest.approx(np.mean(MINE) - np.mean(THEIRS))
    assert p == pytest.approx(ttest_rel(MINE, THEIRS).pvalue, rel=0.01)
    low, high = ttest_rel(MINE, THEIRS).confidence_interval()
    assert (estimate.low, estimate.high) == (pytest.approx(low, abs=0.003), pytest.approx(high, abs=0.003))


def test_other_seeds_are_compared_as_welch_does() -> None:
    _, p = difference(score((1, 2, 3, 4), MINE), score((5, 6, 7, 8), THEIRS), seed=0)
    assert p == pytest.approx(ttest_ind(MINE, THEIRS, equal_var=False).pvalue, rel=0.01)


def test_a_single_seed_moves_as_much_as_the_other_arm_and_a_baseline_does_not_move() -> None:
    several, alone = score((1, 2, 3, 4), MINE), score((1,), [0.8])
    deviation = np.std(MINE, ddof=1)
    assert spread_between(several, alone).error == pytest.approx(deviation * np.sqrt(1 / 4 + 1))
    assert spread_between(several, alone).freedom == pytest.approx(3)
    plain = score((None,), [0.8], trained=False)
    assert spread_between(several, plain).error == pytest.approx(deviation / 2)
    assert spread_between(alone, score((1,), [0.7])).error == 0


def test_patients_move_a_difference_by_what_they_do_to_both() -> None:
    draws = np.random.default_rng(0).normal(0, 0.02, 4000)
    shared = difference(score((None,), [0.8], 0.8 + draws), score((None,), [0.8], 0.8 + draws), 0)
    assert shared[0].low == shared[0].high == 0 and shared[1] == 1
    apart = difference(score((None,), [0.84], 0.84 + draws), score((None,), [0.8], 0.8 - draws), 0)
    assert apart[1] == pytest.approx(0.317, abs=0.02)  # one standard error
    none = score((None,), [0.8], np.full(10, np.nan))
    assert difference(none, none, 0)[1] == 1


def test_a_sum_of_scores_moves_as_the_sum_does() -> None:
    draws = np.random.default_rng(1).normal(size=(2, 400))
    late, soon = score((1, 2), [0.8, 0.9], draws[0]), score((1, 2), [0.7, 0.6], draws[1])
    both = combined([1.0, -1.0], [late, soon])
    np.testing.assert_allclose(both.each, [0.1, 0.3])
    np.testing.assert_allclose(both.draws, draws[0] - draws[1])
    assert both.estimate(0).value == pytest.approx(0.2)
    assert both.estimate(0).high - both.estimate(0).low > np.ptp(np.percentile(draws[0] - draws[1], [2.5, 97.5]))
