"""k patients of each class, drawn anew in each replicate, the same for every arm."""

import numpy as np
import pytest

from sequela.errors import InputError
from sequela.task.baselines.baseline import TrainingSample
from sequela.task.probing.few_shot import FewShot, by_class
from sequela.task.probing.heads import ProbeRows
from tests.task.probing.conftest import make_rows

TRAIN, TUNING, ASKED = make_rows(300, 0), make_rows(60, 1), make_rows(400, 2)


def test_so_many_of_each_class_are_drawn() -> None:
    few = FewShot((4, 16), 3, seed=5)
    for shots in few.shots:
        drawn = [few.drawn(TRAIN, shots, replicate) for replicate in range(3)]
        for rows in drawn:
            assert len(rows.patient) == len(set(rows.patient)) == 2 * shots
            assert rows.sample.outcome.sum() == shots
            np.testing.assert_array_equal(rows.weights, 1)
        assert len({tuple(rows.patient) for rows in drawn}) == 3
    again = FewShot((4,), 3, seed=5).drawn(TRAIN, 4, 1).patient
    np.testing.assert_array_equal(again, few.drawn(TRAIN, 4, 1).patient)
    assert not np.array_equal(again, FewShot((4,), 3, seed=6).drawn(TRAIN, 4, 1).patient)


def test_a_patient_is_drawn_once_and_not_without_an_answer() -> None:
    patient = np.array([1, 1, 1, 2, 2, 3, 4])
    outcome = np.array([1, 0, 1, 0, 0, np.nan, 1])
    rows = ProbeRows(patient, TrainingSample(np.zeros((7, 1), np.float32), outcome, np.ones(7)))
    for seed in range(20):
        without, having = by_class(rows, seed)
        assert sorted(patient[np.r_[without, having]]) == [1, 2, 4]
        assert (outcome[without] == 0).all() and (outcome[having] == 1).all()


def test_more_shots_score_better_and_too_many_are_left_out() -> None:
    scores = FewShot((1, 64, 5000), 4).scores(TRAIN, TUNING, ASKED)
    assert list(scores) == [1, 64] and all(len(each) == 4 for each in scores.values())
    assert np.mean(scores[64]) > np.mean(scores[1]) and np.mean(scores[64]) > 0.75


@pytest.mark.parametrize(("shots", "replicates", "said"), [((0,), 1, "`few_shot` must be"), ((1,), 0, "`replicates`")])
def test_what_makes_no_sense_is_refused(shots: tuple[int, ...], replicates: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        FewShot(shots, replicates)
