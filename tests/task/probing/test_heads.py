"""Heads find what is there, find nothing where nothing is, and learn from nobody but the training patients."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from sequela.record.duration import DAY
from sequela.task.baselines.baseline import TrainingSample, standardizer
from sequela.task.probing import heads
from sequela.task.probing.heads import INVERSE_PENALTIES, ProbeRows, fit_cox, fit_linear, fit_logistic
from sequela.task.scoring.metric import AUROC
from tests.task.conftest import make_task
from tests.task.probing.conftest import make_rows

TRAIN, TUNING, ASKED = make_rows(600, 0), make_rows(200, 1), make_rows(1000, 2)


def auroc(head: heads.Head, rows: ProbeRows) -> float:
    return float(AUROC(rows.sample.outcome, head.predict(rows.sample.values), np.ones(len(rows.patient))))


def of(rows: ProbeRows, **changes: np.ndarray) -> ProbeRows:
    return ProbeRows(rows.patient, replace(rows.sample, **changes))


def test_a_planted_signal_is_found_and_noise_is_not() -> None:
    best = float(AUROC(ASKED.sample.outcome, ASKED.sample.values[:, 0], np.ones(1000)))
    assert auroc(fit_logistic(TRAIN, TUNING), ASKED) == pytest.approx(best, abs=0.01)
    blind = [of(rows, values=rows.sample.values[:, 1:]) for rows in (TRAIN, TUNING, ASKED)]
    assert auroc(fit_logistic(*blind[:2]), blind[2]) == pytest.approx(0.5, abs=0.06)


def test_permuted_labels_teach_nothing() -> None:
    draw = np.random.default_rng(3)
    shuffled = [of(rows, outcome=draw.permutation(rows.sample.outcome)) for rows in (TRAIN, TUNING)]
    assert auroc(fit_logistic(*shuffled), ASKED) == pytest.approx(0.5, abs=0.12)
    assert auroc(fit_logistic(TRAIN, TUNING), ASKED) > 0.75  # the negative control


def test_it_is_the_protocol_of_ehrshot() -> None:
    head = fit_logistic(TRAIN, TUNING)
    scale = standardizer(TRAIN.sample.values)
    values, scores = scale(TRAIN.sample.values), {}
    for inverse in (1e-8, 1e-6, 1e-4, 1e-2, 1e-1, 1, 1e2, 1e4):
        model = LogisticRegression(C=inverse, tol=1e-4, max_iter=1000).fit(values, TRAIN.sample.outcome)
        tuned = model.predict_proba(scale(TUNING.sample.values))[:, 1]
        scores[inverse] = float(AUROC(TUNING.sample.outcome, tuned, np.ones(200)))
    assert head.scores == pytest.approx(scores) and tuple(head.scores) == INVERSE_PENALTIES
    assert head.penalty == max(scores, key=scores.__getitem__)
    kept = LogisticRegression(C=head.penalty, tol=1e-4, max_iter=1000).fit(values, TRAIN.sample.outcome)
    np.testing.assert_allclose(head.predict(ASKED.sample.values), kept.predict_proba(scale(ASKED.sample.values))[:, 1])


def test_tuning_patients_choose_and_do_nothing_else() -> None:
    other = fit_logistic(TRAIN, make_rows(150, 9, strength=-2.0))  # who would be answered best by next to nothing
    head = fit_logistic(TRAIN, TUNING)
    assert other.penalty != head.penalty
    again = fit_logistic(TRAIN, of(TUNING, values=5 * TUNING.sample.values + 3, outcome=TUNING.sample.outcome))
    if again.penalty == head.penalty:
        np.testing.assert_array_equal(again.predict(ASKED.sample.values), head.predict(ASKED.sample.values))


def test_a_patient_with_many_rows_counts_as_one() -> None:
    patient = np.array([1, 1, 1, 2, 3, 3])
    outcome = np.array([1, 0, np.nan, 1, 0, 0])
    rows = ProbeRows(patient, TrainingSample(np.zeros((6, 1), np.float32), outcome, np.ones(6), np.zeros(6, bool)))
    np.testing.assert_allclose(rows.weights, [1 / 2, 1 / 2, 0, 1, 1 / 2, 1 / 2])
    np.testing.assert_allclose(rows.shares, [1 / 3, 1 / 3, 1 / 3, 1, 1 / 2, 1 / 2])
    twice = ProbeRows(
        np.tile(TRAIN.patient, 2),
        TrainingSample(np.tile(TRAIN.sample.values, (2, 1)), np.tile(TRAIN.sample.outcome, 2), np.ones(1200)),
    )
    once, doubled = fit_logistic(TRAIN, TUNING), fit_logistic(twice, TUNING)
    assert doubled.penalty == once.penalty
    np.testing.assert_allclose(doubled.predict(ASKED.sample.values), once.predict(ASKED.sample.values), atol=2e-3)


def test_those_who_were_followed_stand_for_those_who_were_not() -> None:
    outcome, until = np.array([1, np.nan, 0, 0]), np.array([1.0, 2.0, 9.0, 9.0])
    rows = ProbeRows(np.arange(4), TrainingSample(np.zeros((4, 1), np.float32), outcome, until))
    np.testing.assert_allclose(rows.weights, [1, 0, 1.5, 1.5])


def number_rows(count: int, seed: int) -> ProbeRows:
    rows = make_rows(count, seed)
    return of(rows, outcome=np.clip(10 + 2 * rows.sample.values[:, 0].astype(float), 0, None))


def test_numbers_are_answered_by_ridge() -> None:
    parts = [number_rows(count, seed) for count, seed in ((300, 0), (100, 1), (200, 2))]
    for changes in ({"kind": "value", "outcome": ("LAB//A",)}, {"kind": "count"}):
        head = fit_linear(make_task(**changes), *parts[:2])
        off = np.abs(head.predict(parts[2].sample.values) - parts[2].sample.outcome).mean()
        assert off < 0.8 < np.abs(parts[2].sample.outcome - 10).mean()
        assert head.scores[head.penalty] == min(head.scores.values())


def followed_rows(count: int, seed: int, width: int) -> tuple[ProbeRows, np.ndarray]:
    """Strokes whose hazard a factor moves that half of the numbers share, with death as the other end and censoring;
    and that factor."""
    draw = np.random.default_rng(seed)
    values, factor = draw.normal(size=(count, width)).astype(np.float32), draw.normal(size=count)
    values[:, : width // 2] += 2 * factor[:, None]
    stroke, death = draw.exponential(12 * np.exp(-1.5 * factor)), draw.exponential(40, count)
    lost = draw.uniform(5, 40, count)
    until = np.minimum.reduce([stroke, death, lost, np.full(count, 10.0)])
    outcome = np.where(until == stroke, 1.0, np.where((until == lost) & (lost < 10), np.nan, 0.0))
    return ProbeRows(np.arange(count), TrainingSample(values, outcome, until)), factor


def test_cox_heads_answer_a_risk_and_read_components_where_rows_are_few() -> None:
    task = make_task()
    assert task.horizon == 10 * DAY
    for width in (4, 120):
        (train, _), (tuning, _), (asked, factor) = (
            followed_rows(*each, width) for each in ((300, 0), (150, 1), (400, 2))
        )
        head = fit_cox(task, train, tuning)
        prediction = head.predict(asked.sample.values)
        assert ((prediction >= 0) & (prediction <= 1)).all()
        known = asked.sample.decided
        found = AUROC(asked.sample.outcome[known], prediction[known], asked.weights[known])
        best = AUROC(asked.sample.outcome[known], factor[known], asked.weights[known])
        assert best - 0.06 < found < best + 0.02
    assert heads._components(train.sample.values)(asked.sample.values).shape == (400, 50)
    assert heads._components(make_rows(600, 0).sample.values)(np.zeros((2, 6))).shape == (2, 6)


def test_cox_heads_are_for_probabilities_with_a_horizon() -> None:
    assert fit_cox(make_task(horizon=None), TRAIN, TUNING) is None
    assert fit_cox(make_task(kind="count"), TRAIN, TUNING) is None
