"""How far the score of a mean of models moves when other seeds are trained."""

import numpy as np
import pytest

from sequela.errors import InputError
from sequela.task.kinds import KINDS
from sequela.task.scoring.areas import Ranking
from sequela.task.scoring.measured import SharedAnswers, measure_all
from sequela.task.scoring.seeds import SeedSpread, left_out, pooled, seeds_of

COUNT, SEEDS = 600, 3


def world(random, seeds=SEEDS, training=1.0):
    """Patients of known risks, and K models that each see them through noise of their own."""
    fixed = np.random.default_rng(7)
    truth = fixed.normal(0, 1, COUNT)
    outcome = (fixed.random(COUNT) < 1 / (1 + np.exp(1 - 1.5 * truth))).astype(float)
    each = 1 / (1 + np.exp(1 - truth - random.normal(0, training, (seeds, COUNT))))
    models = {f"sequela_{k + 1}": one for k, one in enumerate(each)} if seeds > 1 else {}
    return SharedAnswers(
        KINDS["binary"], np.arange(COUNT), outcome, np.zeros(COUNT), np.zeros(COUNT, bool),
        {"sequela": each.mean(axis=0), **models, "other": 1 / (1 + np.exp(1 - truth))},
    )  # fmt: skip


def auroc(cohort, model="sequela"):
    return float(Ranking.of(cohort.outcome, cohort.predictions[model]).areas(np.ones(COUNT))[0])


def test_the_error_of_a_mean_is_what_other_seeds_do_to_it():
    """AUROC is not linear in the models: the mean of fewer ranks worse, which must not pass for spread."""
    random = np.random.default_rng(0)
    worlds = [world(random) for _ in range(60)]
    told = [
        SeedSpread.of(auroc(one), np.array([auroc(one, name) for name in left]))
        for one, left in ((replaced(cohort), left_out(cohort.predictions)) for cohort in worlds)
    ]
    really = np.std([auroc(one) for one in worlds], ddof=1)
    assert np.sqrt(np.mean([spread.error**2 for spread in told])) == pytest.approx(really, rel=0.3)


def replaced(cohort):
    return SharedAnswers(**vars(cohort) | {"predictions": cohort.predictions | left_out(cohort.predictions)})


def test_the_score_of_a_mean_is_that_of_all_its_models_and_its_interval_is_wider():
    cohort = world(np.random.default_rng(0))
    measured = measure_all(cohort, 0, 300)
    mean = {"sequela": cohort.predictions["sequela"]}
    alone = measure_all(SharedAnswers(**vars(cohort) | {"predictions": mean}), 0, 300)
    assert measured.points["sequela", "auroc"] == alone.points["sequela", "auroc"] == auroc(cohort)
    assert {model for model, _ in measured.points} == {"", "sequela", "sequela_1", "sequela_2", "sequela_3", "other"}
    assert alone.seeds == {}
    of_all, of_patients, of_one = (
        measured.estimate("sequela", "auroc"), alone.estimate("sequela", "auroc"),
        measured.estimate("sequela_1", "auroc"),
    )  # fmt: skip
    assert 1 < (of_all.high - of_all.low) / (of_patients.high - of_patients.low) < 2
    assert of_one.low < of_one.value < of_one.high
    spread = measured.seeds["auroc"]
    assert (spread.seeds, spread.freedom) == (3, 2)


def test_equal_seeds_add_nothing():
    measured = measure_all(world(np.random.default_rng(0), training=0.0), 0, 50)
    assert measured.seeds["auroc"].error == pytest.approx(0, abs=1e-12)


def test_draws_have_the_distribution_of_a_mean_of_few_and_are_repeated():
    spread = SeedSpread(0.03, 3, 8)
    draws = spread.draws(4000, 1)
    assert np.array_equal(draws, spread.draws(4000, 1)) and not np.array_equal(draws, spread.draws(4000, 2))
    assert np.quantile(draws, 0.975) == pytest.approx(2.306 * 0.03 / np.sqrt(3), rel=0.01)
    assert not SeedSpread().draws(5, 0).any()


@pytest.mark.parametrize(("freedom", "error"), [(1, 0.5), (2, 1.0), (8, 2.0), (4, 1e-6)])
def test_the_chance_is_that_of_both_errors_together(freedom, error):
    spread, random = SeedSpread(np.sqrt(3), 3, freedom), np.random.default_rng(0)
    drawn = np.abs(random.normal(0, error, 200_000) + random.standard_t(freedom, 200_000))
    for value in (0.5, 2.0, 4.0):
        assert spread.chance(value, error) == pytest.approx((drawn >= value).mean(), abs=0.005)


def test_a_score_that_is_not_defined_tells_others_nothing():
    one, two = pooled([SeedSpread(np.nan, 2, 1), SeedSpread(0.02, 2, 1)])
    assert one.deviation == two.deviation == 0.02


def test_seeds_need_their_mean():
    one, two = np.array([0.2]), np.array([0.4])
    assert seeds_of({"sequela_1": one, "sequela_2": two}) == seeds_of({"sequela": one, "sequela_1": one}) == []
    assert left_out({"sequela": one, "trees": two}) == {}
    with pytest.raises(InputError, match="are not the mean of sequela_1, sequela_2"):
        left_out({"sequela": two, "sequela_1": one, "sequela_2": two})
