import math

import pytest

from sequela.errors import InputError
from sequela.training.scaling.plan import Candidate, beyond, expected, grid, ladder, nearest
from tests.training.scaling.surface import shapes

BUDGETS = [1e14, 1e15, 1e16]


def test_a_budget_is_spent_whole_by_sizes_that_double():
    plan = grid(BUDGETS, shapes(), unique_tokens=1e12)
    assert [run.budget for run in plan.runs] == sorted(BUDGETS * 7)
    for run in plan.runs:
        assert run.tokens * run.flops_per_token == pytest.approx(run.budget, rel=1e-3)
    for budget in BUDGETS:
        sizes = [run.parameters for run in plan.runs if run.budget == budget]
        assert all(1.3 < b / a < 3 for a, b in zip(sizes, sizes[1:], strict=False))
        assert sizes[3] == pytest.approx(expected()(budget), rel=0.3)
    assert plan.notes == ()


def test_the_expected_optimum_has_the_tokens_asked_for():
    size = expected(1000)(1e18)
    assert 1e18 / (6 * size) / size == pytest.approx(1000)


def test_repeats_are_told_and_those_beyond_the_bound_left_out():
    plan = grid([1e15], shapes(), unique_tokens=3e8)
    epochs = {run.epochs for run in plan.runs}
    assert 1 < max(epochs) <= 4
    told = " ".join(plan.notes)
    assert f"{7 - len(plan.runs)} runs are left out" in told
    assert f"{sum(e > 1 for e in epochs)} of {len(plan.runs)} runs repeat the data" in told
    free = grid([1e15], shapes(), unique_tokens=3e8, most_epochs=math.inf)
    assert len(free.runs) == 7 and max(run.epochs for run in free.runs) > 4


def test_the_center_can_be_that_of_finished_budgets():
    plan = grid([1e15], shapes(), 1e12, sizes=5, optimum=lambda budget: 1e7)
    assert nearest(shapes(), 1e7).parameters == plan.runs[2].parameters


def test_a_ladder_is_sorted_and_holds_no_odd_shapes():
    found = shapes()
    assert found == sorted(found, key=lambda shape: shape.parameters)
    assert all(16 <= shape.width / shape.depth <= 256 for shape in found)
    wide, usual = Candidate(1, 256, 1000, 6e3), Candidate(4, 256, 1010, 6e3)
    assert nearest([wide, usual], 1000) == usual


def test_too_few_shapes_are_told():
    few = ladder(lambda d, w: (16 * d * w * w, 96.0 * d * w * w), [4], [128, 256])
    plan = grid([1e15], few, 1e12)
    assert "of 7 sizes" in plan.notes[0]
    assert "fewer than 5 sizes" in plan.notes[-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budgets": []}, "`flops` needs"),
        ({"budgets": [0.0]}, "`flops` needs"),
        ({"sizes": 3}, "sizes must be 5 to 9, not 3"),
        ({"shapes": []}, "No shape"),
        ({"unique_tokens": 0}, "no training tokens"),
        ({"unique_tokens": 1e5}, "more than 4 times: lower `flops`"),
    ],
)
def test_what_cannot_be_planned_is_a_sentence(change, message):
    with pytest.raises(InputError, match=message):
        grid(**{"budgets": [1e15], "shapes": shapes(), "unique_tokens": 1e12} | change)


def test_where_the_shapes_end_the_sizes_begin():
    sizes = [shape.parameters for shape in shapes()]
    large = grid([1e30], shapes(), 1e30).runs
    assert len(large) == 7
    assert large[-1].parameters == max(sizes)
    assert grid([1e8], shapes(), 1e30).runs[0].parameters == pytest.approx(min(sizes), rel=0.5)


def test_beyond_an_edge_come_larger_or_smaller_sizes_not_tried():
    offered = [Candidate(1, 32 * k, 1000 * 2**k, 6000.0 * 2**k) for k in range(1, 10)]
    tried = {shape.parameters for shape in offered[3:6]}
    larger = beyond(1e12, tried, "largest", offered, 1e12)
    smaller = beyond(1e12, tried, "smallest", offered, 1e12)
    assert [run.parameters for run in larger] == [offered[6].parameters, offered[7].parameters]
    assert [run.parameters for run in smaller] == [offered[1].parameters, offered[2].parameters]
    assert beyond(1e12, {shape.parameters for shape in offered}, "largest", offered, 1e12) == []
    assert beyond(1e12, tried, "smallest", offered, 1e6) == [], "they would see the data too often"
