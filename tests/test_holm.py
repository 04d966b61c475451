import numpy as np

from sequela.holm import holm


def test_it_stops_at_the_first_that_stands():
    assert (holm(np.array([0.001, 0.02, 0.9])) <= 0.05).tolist() == [True, True, False]
    assert (holm(np.array([0.03, 0.03])) <= 0.05).tolist() == [False, False]
    assert (holm(np.array([0.04, 0.001, 0.03])) <= 0.05).tolist() == [False, True, False]
    assert holm(np.zeros(0)).tolist() == []
