import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from sequela.errors import InputError
from sequela.training.scaling.isoflop import isoflop
from sequela.training.scaling.runs import FinishedRun, Interval
from tests.training.scaling.surface import BUDGETS, PUBLISHED, STEEP

REPLICATES = 200


def enough(hits: int, of: int, level: float = 0.95) -> bool:
    """Whether so many hits are what intervals of that level give, but for one time in a thousand."""
    return bool(binom.cdf(hits, of, level) > 1e-3)


def hits(truth: float, studies, fitter=isoflop) -> int:
    return sum(fitter(study).parameters.exponent.holds(truth) for study in studies)


def biased(runs):
    """A fitter that reads the size off the best run alone, and believes the parabola's interval around it."""
    wrong = [replace(run, parameters=run.parameters * (run.budget / BUDGETS[0]) ** 0.03) for run in runs]
    return isoflop(wrong)


def test_without_noise_the_exponents_are_those_of_the_surface():
    for surface in (PUBLISHED, STEEP):
        found = isoflop(surface.study(noise=1e-7))
        a = surface.parameters_exponent
        assert found.parameters.exponent.value == pytest.approx(a, abs=1e-3)
        assert found.tokens.exponent.value == pytest.approx(1 - a, abs=1e-3)
        assert found.loss_with_floor.exponent.value == pytest.approx(surface.loss_exponent, rel=0.02)
        assert found.loss_with_floor.floor_R[0] == pytest.approx(surface.floor, rel=0.01)
        assert found.notes == ()


@pytest.mark.parametrize("surface", [PUBLISHED, STEEP])
def test_intervals_hold_the_truth_and_not_another_one(surface):
    studies = [surface.study(seed) for seed in range(30)]
    a = surface.parameters_exponent
    assert enough(hits(a, studies), 30)
    assert not enough(hits(a - 0.03, studies), 30)


def test_a_biased_fitter_is_found_out():
    studies = [PUBLISHED.study(seed) for seed in range(30)]
    assert not enough(hits(PUBLISHED.parameters_exponent, studies, biased), 30)


@pytest.mark.slow
@pytest.mark.parametrize(("surface", "design"), [
    (PUBLISHED, {}),
    (PUBLISHED, {"off": 2.0}),
    (PUBLISHED, {"sizes": 5, "noise": 0.005, "budgets": BUDGETS[:4]}),
    (PUBLISHED, {"sizes": 9, "budgets": BUDGETS[::2]}),
    (STEEP, {}),
])  # fmt: skip
def test_intervals_of_95_percent_hold_the_truth_95_percent_of_the_time(surface, design):
    laws = [isoflop(surface.study(seed, **design), seed=seed) for seed in range(REPLICATES)]
    truths = {"parameters": surface.parameters_exponent, "tokens": 1 - surface.parameters_exponent}
    if len(design.get("budgets", BUDGETS)) > 3:
        truths["loss_with_floor"] = surface.loss_exponent
    for name, truth in truths.items():
        held = sum(getattr(law, name).exponent.holds(truth) for law in laws)
        print(f"{name}: {held / REPLICATES:.3f} of {REPLICATES}")
        assert enough(held, REPLICATES), name


@pytest.mark.parametrize(
    ("off", "edge", "words"), [(40.0, "smallest", "smaller"), (1 / 40, "largest", "larger")]
)
def test_a_minimum_outside_the_sizes_tried_is_told_and_not_used(off, edge, words):
    runs = PUBLISHED.study() + PUBLISHED.study(budgets=[1e22], off=off)
    found = isoflop(runs)
    assert [curve.edge for curve in found.curves] == ["", "", "", "", "", edge]
    assert f"run {words} sizes" in found.notes[0]
    assert found.as_dict()["budgets"][-1].keys().isdisjoint({"parameters", "tokens", "loss"})
    assert found.parameters.exponent.value == isoflop(PUBLISHED.study()).parameters.exponent.value


def test_one_budget_has_a_minimum_but_no_exponent():
    found = isoflop(PUBLISHED.study(budgets=[1e20]))
    assert found.parameters is found.tokens is found.loss is found.predicted_loss is None
    assert "Exponents need two budgets" in found.notes[0]
    assert Interval.of(np.exp(found.curves[0].optimum_R)).holds(PUBLISHED.optimum(1e20))
    assert found.optimum(4e20) == pytest.approx(2 * PUBLISHED.optimum(1e20), rel=0.1)


def test_the_next_budget_is_planned_around_what_the_finished_ones_show():
    assert isoflop(STEEP.study()).optimum(1e22) == pytest.approx(STEEP.optimum(1e22), rel=0.15)
    edge = isoflop(STEEP.study(budgets=[1e20], off=40.0))
    assert edge.optimum(1e20) == min(run.parameters for run in edge.curves[0].runs)


def test_three_sizes_have_a_parabola_without_an_interval():
    found = isoflop(PUBLISHED.study(sizes=3))
    assert "have no intervals" in found.notes[0]
    assert found.parameters.exponent.as_dict()["low"] is None


def test_other_seeds_are_runs_of_their_own():
    runs = PUBLISHED.study() + [replace(run, seed=1) for run in PUBLISHED.study(seed=7)]
    twice, once = isoflop(runs).parameters.exponent, isoflop(PUBLISHED.study()).parameters.exponent
    assert twice.high - twice.low < once.high - once.low
    assert twice.holds(PUBLISHED.parameters_exponent)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([], "No run can be fitted"),
        ([FinishedRun(1e15, 1e6, 1e8, math.nan)], "1 of 1 runs without a finite loss"),
        ([FinishedRun(1e15, 1e6, 1e8, 2.0)], "has 1 of the 3 sizes"),
        ([FinishedRun(1e15, 1e6, 1e8, 2.0, seed=s) for s in range(9)], "has 1 of the 3 sizes"),
    ],
)
def test_what_cannot_be_fitted_is_a_sentence(runs, message):
    with pytest.raises(InputError, match=message):
        isoflop(runs)


@pytest.mark.parametrize("loss", [1e-3, 1.0, 2.0, 5.7, 3e4])
@pytest.mark.parametrize("rounding", [0.0, 1e-16, 1e-12, 6e-8])
def test_equal_losses_have_no_minimum(loss, rounding):
    """Neither do losses that differ by rounding alone, in fp32 or fp64, which every processor does in its own way."""
    random = np.random.default_rng(0)
    found = isoflop([replace(run, loss=loss * (1 + rounding * random.normal())) for run in PUBLISHED.study()])
    assert found.parameters is None and not found.bounded


def test_a_shallow_minimum_is_one():
    """The neighbor: a bowl of a thousandth of the loss."""
    budget, sizes = 1e15, np.geomspace(1e6, 1e8, 7)
    runs = [FinishedRun(budget, n, 1e9, 2.0 * (1 + 2e-4 * np.log(n / 1e7) ** 2)) for n in sizes]
    (curve,) = isoflop(runs).curves
    assert not curve.edge and np.exp(curve.optimum_R[0]) == pytest.approx(1e7, rel=1e-3)


def test_the_parabola_passes_through_the_runs():
    curve = isoflop(PUBLISHED.study(noise=1e-6)).curves[0]
    for run in curve.runs[2:5]:
        x = np.log(run.parameters / curve.center)
        assert np.exp(np.polyval(curve.coefficients[::-1], x)) == pytest.approx(run.loss, rel=2e-3)
