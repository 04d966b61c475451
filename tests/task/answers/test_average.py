"""The mean over training seeds: its number, its error of sampling, and how far the seeds lie apart."""

import numpy as np
import polars as pl
import pytest

from sequela.errors import InputError
from sequela.rollout.estimators import wilson
from sequela.task.answers.average import averaged
from sequela.task.kinds import KINDS
from tests.task.conftest import START


def answers(prediction, low, high, error=0.03, estimator="scope", cut=0):
    count = len(prediction)
    return pl.DataFrame(
        {
            "subject_id": np.arange(count),
            "prediction_time": [START] * count,
            "prediction": pl.Series(prediction, dtype=pl.Float64),
            "standard_error": [error] * count,
            "low": pl.Series(low, dtype=pl.Float64),
            "high": pl.Series(high, dtype=pl.Float64),
            "reached": [None if estimator == "scope" else 0.5] * count,
            "rollouts": [10] * count,
            "undecidable_rollouts": [cut] * count,
            "tokens": [100] * count,
            "estimator": [estimator] * count,
        }
    )


def test_the_mean_its_errors_and_its_counts():
    each = [answers([0.2, 0.0], [0.1, 0.0], [0.4, 0.3]), answers([0.4, 0.0], [0.2, 0.0], [0.6, 0.3])]
    first, second = averaged(KINDS["binary"], each, apart=True).to_dicts()
    assert first["prediction"] == pytest.approx(0.3)
    assert first["standard_error"] == pytest.approx(0.03 / np.sqrt(2))
    assert first["low"] == pytest.approx(0.3 - np.hypot(0.1, 0.2) / 2)
    assert first["high"] == pytest.approx(0.3 + np.hypot(0.2, 0.2) / 2)
    assert first["between_seeds"] == pytest.approx(np.std([0.2, 0.4], ddof=1))
    assert (first["seeds"], first["rollouts"], first["undecidable_rollouts"], first["tokens"]) == (2, 20, 0, 200)
    assert (second["low"], second["between_seeds"]) == (0, 0) and 0 < second["high"] < 0.3


def test_what_truncated_rollouts_could_have_shown_does_not_average_out():
    each = [answers([0.2], [0.1], [0.4], cut=1), answers([0.4], [0.2], [0.6])]
    (row,) = averaged(KINDS["binary"], each, apart=True).to_dicts()
    assert (row["low"], row["high"]) == (pytest.approx(0.15), pytest.approx(0.5))
    assert row["undecidable_rollouts"] == 1


def test_random_numbers_that_were_shared_make_no_mean_surer():
    each = [answers([0.2], [0.1], [0.4]), answers([0.4], [0.2], [0.6])]
    (row,) = averaged(KINDS["binary"], each, apart=False).to_dicts()
    assert row["standard_error"] == pytest.approx(0.03)
    assert (row["low"], row["high"]) == (pytest.approx(0.15), pytest.approx(0.5))


def test_who_is_not_answered_by_every_model_has_no_mean():
    each = [answers([0.2, None], [0.1, None], [0.4, None]), answers([0.4, 0.1], [0.2, 0.0], [0.6, 0.2])]
    whole, without = averaged(KINDS["binary"], each, apart=True).to_dicts()
    assert whole["prediction"] == pytest.approx(0.3)
    assert without["prediction"] is without["low"] is without["between_seeds"] is None
    assert without["rollouts"] == 20


def test_numbers_keep_the_range_of_their_rollouts():
    """Averaging models does not make a stay more certain."""
    each = [answers([6.0], [2.0], [20.0]), answers([8.0], [4.0], [30.0])]
    (row,) = averaged(KINDS["time"], each, apart=True).to_dicts()
    assert (row["prediction"], row["low"], row["high"]) == (7, 3, 25)


@pytest.mark.parametrize(("apart", "least", "most"), [(True, 0.93, 0.985), (False, 0.985, 1.0)])
def test_the_interval_of_a_mean_covers(apart, least, most):
    """Three models with risks of their own, ten votes each: the interval is that of their mean, not of any of them."""
    random = np.random.default_rng(0)
    true = np.array([0.1, 0.25, 0.3])
    votes = random.binomial(10, true[:, None], (3, 4000)) / 10
    each = [answers(one, *wilson(one, np.full(len(one), 10.0))) for one in votes]
    found = averaged(KINDS["binary"], each, apart=apart)
    held = pl.Series([float(true.mean())] * len(found)).is_between(found["low"], found["high"]).mean()
    assert least < held < most


def test_models_that_answer_in_different_ways_are_not_averaged():
    each = [answers([0.2], [0.1], [0.4]), answers([0.4], [0.2], [0.6], estimator="reach")]
    with pytest.raises(InputError, match=r"different estimators \(reach, scope\)"):
        averaged(KINDS["binary"], each, apart=True)
