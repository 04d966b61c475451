"""A cell is measured as a whole, and in thirds by how varied the histories are."""

import numpy as np
import pytest

from sequela.task.probing.cell import measure_cells
from sequela.task.probing.landmarks import Landmark
from sequela.task.scoring.metric import AUROC
from tests.task.probing.test_compare import made


def test_a_third_is_scored_as_a_cohort_of_its_own() -> None:
    cell = made(Landmark("x"), 0.3)
    (measured,) = measure_cells([cell], 0, 20)
    rows = cell.entropy > np.quantile(cell.entropy, 2 / 3)
    outcome = cell.truth["label"].to_numpy()[rows]
    expected = float(AUROC(outcome, cell.predictions["plain"][rows], np.ones(rows.sum())))
    assert measured.score({"plain": None}, "auroc", trained=True, third=2).value == pytest.approx(expected)


def test_cells_are_measured_on_the_same_resamples() -> None:
    cells = [made(Landmark("x"), 0.3), made(Landmark("y"), 0.3)]  # the same answers at two landmarks
    both = [cell.score({"plain": None}, "auroc", trained=True).draws for cell in measure_cells(cells, 0, 20)]
    np.testing.assert_array_equal(*both)
    (fewer,) = measure_cells([made(Landmark("x"), 0.3, patients=300)], 0, 20)
    assert (fewer.score({"plain": None}, "auroc", trained=True).draws != both[0]).any()


def test_a_model_that_did_not_answer_has_no_score() -> None:
    (cell,) = measure_cells([made(Landmark("x"), 0.3)], 0, 5)
    assert cell.score({"nobody": None}, "auroc", trained=True) is None
