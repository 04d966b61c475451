import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from sequela.task.scoring.bootstrap import Estimate, interval, resamples
from sequela.task.scoring.metric import AUROC


def every(patients: np.ndarray, count: int = 200, seed: int = 0) -> np.ndarray:
    return np.concatenate(list(resamples(patients, count, seed)), axis=1)


def test_each_resample_draws_as_many_patients_as_there_are():
    copies = every(np.arange(50))
    assert copies.shape == (50, 200)
    np.testing.assert_array_equal(copies.sum(axis=0), 50)
    assert copies.mean(axis=1).std() < 0.15  # nobody is favoured: standard error 0.07


def test_many_patients_come_in_several_batches():
    batches = list(resamples(np.arange(2_000), 300))
    assert len(batches) > 1
    assert sum(batch.shape[1] for batch in batches) == 300


def test_rows_of_a_patient_are_drawn_together():
    copies = every(np.array([7, 3, 7, 3, 9]))
    np.testing.assert_array_equal(copies[0], copies[2])
    np.testing.assert_array_equal(copies[1], copies[3])
    assert (copies[0] != copies[1]).any()


def test_the_seed_decides():
    np.testing.assert_array_equal(every(np.arange(9), seed=1), every(np.arange(9), seed=1))
    assert (every(np.arange(9), seed=1) != every(np.arange(9), seed=2)).any()


def test_the_interval_is_that_of_repeating_the_patients_one_by_one():
    draw = np.random.default_rng(0)
    outcome = (draw.random(150) < 0.3).astype(float)
    prediction = np.round(np.clip(0.2 * outcome + 0.6 * draw.random(150), 0, 1), 2)
    copies = every(np.arange(150))
    slow = []
    for column in copies.T.astype(int):
        rows = np.repeat(np.arange(150), column)
        slow.append(roc_auc_score(outcome[rows], prediction[rows]))
    np.testing.assert_allclose(AUROC(outcome, prediction, copies), slow)
    low, high = np.percentile(slow, [2.5, 97.5])
    value = float(AUROC(outcome, prediction, np.ones(150)))
    assert interval(value, np.array(slow)) == Estimate(value, low, high)


def test_the_interval_of_a_mean_is_as_wide_as_theory_says():
    values = np.random.default_rng(1).normal(size=400)
    copies = every(np.arange(400), count=2000)
    estimate = interval(values.mean(), values @ copies / 400)
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.08)


def test_questions_about_one_patient_are_no_independent_evidence():
    """The negative control: four copies of everyone, taken for other people, halve the interval."""
    values = np.tile(np.random.default_rng(2).normal(size=100), 4)
    honest = interval(0.0, values @ every(np.tile(np.arange(100), 4), 1000) / 400)
    naive = interval(0.0, values @ every(np.arange(400), 1000) / 400)
    assert (honest.high - honest.low) / (naive.high - naive.low) == pytest.approx(2, rel=0.15)


def test_what_is_not_defined():
    assert interval(np.nan, np.array([1.0])).as_dict() == {}
    assert interval(0.5, np.array([np.nan])).as_dict() == {"value": 0.5, "low": None, "high": None}
    assert interval(0.5, np.array([np.nan, 0.4, 0.4])).as_dict() == {"value": 0.5, "low": 0.4, "high": 0.4}


def test_two_cohorts_are_drawn_together_among_the_patients_of_both():
    first, second, both = np.array([3, 3, 8]), np.arange(3_000), np.arange(3_000)
    one, other = (np.concatenate(list(resamples(each, 150, 4, both)), axis=1) for each in (first, second))
    np.testing.assert_array_equal(one, other[first])
    np.testing.assert_array_equal(other.sum(axis=0), 3_000)
    alone = np.concatenate(list(resamples(first, 150, 4)), axis=1)
    assert (alone != other[first]).any()  # the negative control: each drawn for itself
