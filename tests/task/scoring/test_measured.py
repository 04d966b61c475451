import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from sequela.task.kinds import KINDS
from sequela.task.scoring import sums
from sequela.task.scoring.bootstrap import resamples
from sequela.task.scoring.measured import OBSERVED, SharedAnswers, measure_all
from tests.task.scoring.test_metric import ece_by_hand, slope_by_statsmodels

ROWS, DRAWS = 90, 12


def shared(rows: int = ROWS, seed: int = 0, kind: str = "binary") -> SharedAnswers:
    """Questions of which two in three are decided, one in nine without a number; scores and times are tied."""
    draw = np.random.default_rng(seed)
    risk = np.round(1 / (1 + np.exp(1.2 - draw.normal(size=rows))), 1)
    until = np.ceil(4 * draw.random(rows))
    lost = (draw.random(rows) < 0.3) & (until < 4)
    outcome = np.where(lost, np.nan, (draw.random(rows) < risk).astype(float))
    outcome[(draw.random(rows) < 0.1) & ~lost] = np.nan
    predictions = {"sequela": risk, "other": np.round(draw.random(rows), 2), "level": np.full(rows, 0.25)}
    return SharedAnswers(KINDS[kind], np.arange(rows) // 2, outcome, until, lost, predictions)


def weights_by_hand(cohort: SharedAnswers, copies: np.ndarray) -> np.ndarray:
    """One over Kaplan and Meier's chance of being followed, row by row, in plain loops."""
    weights = np.zeros(len(copies))
    for row in np.flatnonzero(~cohort.lost & ~np.isnan(cohort.outcome)):
        followed = 1.0
        for time in np.unique(cohort.until_days[cohort.lost]):
            if time < cohort.until_days[row]:
                here = cohort.until_days == time
                at_risk = copies[(cohort.until_days > time) | (here & cohort.lost)].sum()
                leaving = copies[here & cohort.lost].sum()
                followed *= 1 - leaving / at_risk if at_risk else 1
        weights[row] = copies[row] / followed if followed > 0 else 0
    return weights


def by_hand(cohort: SharedAnswers, copies: np.ndarray) -> dict:
    known = ~np.isnan(cohort.outcome)
    weights = weights_by_hand(cohort, copies)
    weight, outcome = weights[known], cohort.outcome[known]
    result = {OBSERVED: np.average(outcome, weights=weight)}
    for model, everyone in cohort.predictions.items():
        risk = everyone[known]
        result |= {
            (model, "auroc"): roc_auc_score(outcome, risk, sample_weight=weight),
            (model, "auprc"): average_precision_score(outcome, risk, sample_weight=weight),
            (model, "brier"): brier_score_loss(outcome, risk, sample_weight=weight),
            (model, "ece"): ece_by_hand(outcome, risk, weight),
            (model, "calibration_slope"): np.nan
            if np.ptp(risk) == 0
            else slope_by_statsmodels(outcome, risk, weight),
            (model, "oe"): result[OBSERVED] / np.average(everyone, weights=copies),
        }
    return result


@pytest.mark.parametrize("limit", [sums.MANY, 10], ids=["in batches", "one by one"])
def test_every_draw_is_what_loops_and_scikit_learn_say(monkeypatch, limit):
    """The oracle repeats nothing of ours: no sorting, no groups, no batches. Scores, times and patients are tied."""
    monkeypatch.setattr(sums, "MANY", limit)
    cohort = shared()
    copies = np.concatenate(list(resamples(cohort.patient, DRAWS, seed=3)), axis=1)
    assert (copies == 0).any()
    measured = measure_all(cohort, seed=3, resample_count=DRAWS)
    expected = [by_hand(cohort, column) for column in copies.T]
    once = by_hand(cohort, np.ones(ROWS))
    for key in once:
        assert measured.points[key] == pytest.approx(once[key], rel=1e-6, nan_ok=True), key
        np.testing.assert_allclose(
            measured.draws[key], [draw[key] for draw in expected], rtol=1e-6, err_msg=str(key)
        )


@pytest.mark.parametrize("kind", ["binary", "count"])
def test_one_by_one_is_what_batches_are(monkeypatch, kind):
    """Same draws, same numbers up to rounding, for a few hundred questions whose scores are not tied."""
    cohort = shared(400, seed=1, kind=kind)
    cohort.predictions["free"] = np.random.default_rng(2).random(400)
    together = measure_all(cohort, seed=5, resample_count=30)
    monkeypatch.setattr(sums, "MANY", 10)
    alone = measure_all(cohort, seed=5, resample_count=30)
    for key, point in together.points.items():
        assert alone.points[key] == pytest.approx(point, rel=1e-7, nan_ok=True), key
        np.testing.assert_allclose(alone.draws[key], together.draws[key], rtol=1e-7, err_msg=str(key))


def test_a_draw_without_anybody_who_was_followed_says_nothing():
    """Only one patient is followed to the end: a resample without this one has no support, and no value."""
    until, lost = np.r_[1.0, 1.0, np.full(17, 2.0), 5.0], np.r_[False, False, np.full(17, True), False]
    outcome = np.where(lost, np.nan, np.r_[1.0, 1.0, np.zeros(18)])
    cohort = SharedAnswers(
        KINDS["binary"], np.arange(20), outcome, until, lost, {"sequela": np.linspace(0, 1, 20)}
    )
    copies = np.concatenate(list(resamples(cohort.patient, 50)), axis=1)
    measured = measure_all(cohort, seed=0, resample_count=50)
    np.testing.assert_array_equal(np.isnan(measured.draws["sequela", "oe"]), copies[-1] == 0)
