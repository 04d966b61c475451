import numpy as np
import pytest

from sequela.task.scoring import sums
from sequela.task.scoring.sums import GroupSums, placed


@pytest.mark.parametrize("shape", [(9,), (9, 3)])
def test_groups_without_rows_sum_to_nothing(shape):
    weights = np.arange(np.prod(shape), dtype=float).reshape(shape)
    order = np.array([8, 1, 3, 0])
    found = GroupSums.of(order, np.array([0, 0, 1, 3, 4, 4]), 9) @ weights
    expected = [
        0 * weights[0],
        weights[8],
        weights[1] + weights[3],
        weights[0],
        0 * weights[0],
        0 * weights[0],
    ]
    np.testing.assert_array_equal(found, expected)
    nobody = GroupSums.of(order[:0], np.array([0, 0]), 9) @ weights
    np.testing.assert_array_equal(nobody, np.zeros((2, *shape[1:])))


@pytest.mark.parametrize("shape", [(40,), (40, 3)])
def test_many_rows_are_placed_as_few_are(monkeypatch, shape):
    draw = np.random.default_rng(0)
    values, place, weights = draw.normal(size=(2, 40)), draw.integers(7, size=40), draw.random(shape)
    place[place == 4] = 5  # a place without rows
    few = placed(values, place, 7) @ weights
    monkeypatch.setattr(sums, "MANY", 10)
    np.testing.assert_allclose(placed(values, place, 7) @ weights, few)
    assert (few.reshape(2, 7, -1)[:, 4] == 0).all()
