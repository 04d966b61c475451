"""Power laws through the minima of the budgets."""

from dataclasses import replace

from sequela.training.scaling.isoflop import isoflop
from tests.training.scaling.surface import BUDGETS, PUBLISHED


def test_the_pure_power_law_of_the_loss_is_no_match_for_a_surface_with_a_floor():
    found = isoflop(PUBLISHED.study())
    assert found.loss.exponent.value > PUBLISHED.loss_exponent + 0.05  # flatter: part of the loss never falls
    assert found.loss.scatter > 2
    assert found.loss_with_floor.exponent.holds(PUBLISHED.loss_exponent)


def test_budgets_that_disagree_widen_the_intervals():
    runs = [
        replace(run, parameters=run.parameters * (1.5 if run.budget == BUDGETS[2] else 1))
        for run in PUBLISHED.study()
    ]
    found, sound = isoflop(runs), isoflop(PUBLISHED.study())
    assert found.parameters.scatter > 2 > sound.parameters.scatter
    assert "intervals are as much wider" in found.notes[0]
