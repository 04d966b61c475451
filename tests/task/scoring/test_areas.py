import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from sequela.task.scoring.areas import Ranking


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 3)), min_size=2, max_size=12))
def test_areas_of_any_few_patients(rows):
    """Few patients, many ties, patients of weight 0: against scikit-learn wherever that is defined."""
    outcome, prediction, weights = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    prediction /= 5
    areas = Ranking.of(outcome, prediction).areas(weights)
    cases, controls = (weights * outcome).sum(), (weights * (1 - outcome)).sum()
    if cases and controls:
        assert areas[0] == pytest.approx(roc_auc_score(outcome, prediction, sample_weight=weights))
    else:
        assert np.isnan(areas[0])
    if cases:
        assert areas[1] == pytest.approx(average_precision_score(outcome, prediction, sample_weight=weights))
    else:
        assert np.isnan(areas[1])


@pytest.mark.parametrize("columns", [1, 3])
def test_rows_in_the_order_of_their_predictions_need_no_looking_up(columns):
    draw = np.random.default_rng(0)
    prediction = np.sort(np.round(draw.random(80), 1))[::-1]
    outcome, weights = (draw.random(80) < prediction).astype(float), draw.poisson(1.0, (80, columns)).astype(float)
    mixed = draw.permutation(80)
    ranking = Ranking.of(outcome, prediction)
    assert ranking.every.order is None
    np.testing.assert_allclose(
        ranking.areas(weights), Ranking.of(outcome[mixed], prediction[mixed]).areas(weights[mixed])
    )
