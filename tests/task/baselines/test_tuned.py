import numpy as np
import pytest

from sequela.task.baselines import tuned
from sequela.task.baselines.baseline import TrainingSample
from sequela.task.baselines.tuned import LARGE, LINEAR, RANKS, _Quantiles, fit_tuned
from tests.task.conftest import make_task

TASK = make_task(horizon=None)


@pytest.fixture(autouse=True)
def fewer_trees(monkeypatch):
    monkeypatch.setattr(tuned, "MOST_TREES", 40)


def made(seed: int, count: int = 500, leak: bool = False, columns: int = 30) -> TrainingSample:
    """A risk that depends on the first column; if it leaks, the last column is the answer."""
    draw = np.random.default_rng(seed)
    values = draw.normal(size=(count, columns)).astype(np.float32)
    values[draw.random(values.shape) < 0.1] = np.nan
    outcome = (draw.random(count) < 1 / (1 + np.exp(1 - 2 * np.nan_to_num(values[:, 0])))).astype(float)
    if leak:
        values[:, -1] = outcome
    return TrainingSample(values, outcome, np.full(count, 10.0))


def loss(model, sample: TrainingSample) -> float:
    risk = np.clip(model(sample.values), 1e-6, 1 - 1e-6)
    return float(-np.mean(np.where(sample.outcome == 1, np.log(risk), np.log(1 - risk))))


def test_the_tuning_patients_choose_the_best_of_all_means():
    train, tuning = made(0), made(1)
    mean = fit_tuned(TASK, train, tuning)
    assert len(mean.losses) == 15
    assert mean.chosen == min(mean.losses, key=mean.losses.get)
    assert loss(mean.predict, tuning) == pytest.approx(mean.losses[mean.chosen], rel=1e-5)
    assert loss(mean.predict, made(2)) < 0.9 * loss(lambda values: np.full(len(values), 0.35), made(2))


def test_normal_scores_depend_on_the_order_alone():
    values = np.random.default_rng(0).normal(size=(1_000, 2)).astype(np.float32)
    values[:10, 0], values[:, 1] = np.nan, np.nan
    scores, same = (_Quantiles.of(each).scores(each) for each in (values, np.exp(3 * values)))
    assert np.nanmean(np.abs(scores - same)) < 0.01
    assert np.nanstd(scores[:, 0]) == pytest.approx(1, abs=0.1)
    assert np.isnan(scores[:10]).all()
    assert np.isnan(scores[:, 1]).all()


def test_bins_hold_the_order_and_what_is_not_known():
    values = np.random.default_rng(0).normal(size=(1_000, 2)).astype(np.float32)
    values[:10, 0], values[:, 1] = np.nan, np.nan
    bins = _Quantiles.of(values).bins(values)
    assert np.isnan(bins[:10, 0]).all()
    assert np.isnan(bins[:, 1]).all()
    order = np.argsort(values[10:, 0])
    assert (np.diff(bins[10:, 0][order]) >= 0).all()
    assert set(bins[10:, 0]) == set(range(RANKS - 1))


def test_nothing_is_learned_from_the_tuning_patients():
    """A leak among them alone changes nothing that matters; planted among the training patients too, it is used."""
    train, test = made(0), made(2, leak=True)
    blind, leaking = fit_tuned(TASK, train, made(1, leak=True)), fit_tuned(TASK, made(0, leak=True), made(1, leak=True))
    assert loss(blind.predict, test) > 0.4
    assert loss(leaking.predict, test) < 0.1


def test_a_leak_that_only_training_patients_have_is_punished_by_the_tuning_patients():
    """The same column is noise later: what relied on it looks bad on the tuning patients."""
    leaked = fit_tuned(TASK, made(0, leak=True), made(1))
    assert leaked.losses[leaked.chosen] > min(fit_tuned(TASK, made(0), made(1)).losses.values())


@pytest.mark.parametrize("kind", ["time", "count", "value"])
def test_numbers_are_tuned_by_their_absolute_error(kind):
    def numbers(seed: int) -> TrainingSample:
        draw = np.random.default_rng(seed)
        values = draw.normal(size=(500, 3)).astype(np.float32)
        signal = np.exp(values[:, 0])
        outcome = draw.poisson(signal).astype(float) if kind == "count" else signal - 5 * (kind == "value")
        return TrainingSample(values, outcome, np.full(500, 10.0))

    test, fitted = numbers(2), fit_tuned(make_task(kind=kind), numbers(0), numbers(1))
    error = np.abs(test.outcome - fitted.predict(test.values)).mean()
    assert error < 0.8 * np.abs(test.outcome - np.median(test.outcome)).mean()
    assert kind == "value" or fitted.predict(test.values).min() >= 0


def test_with_too_few_patients_nothing_is_tuned():
    few = made(1, count=6)
    assert fit_tuned(TASK, made(0), few) is None
    assert fit_tuned(TASK, few, made(1)) is None
    assert fit_tuned(TASK, made(0), TrainingSample(made(1).values, np.zeros(500), np.full(500, 10.0))) is None


def test_the_seed_alone_decides():
    train, tuning = made(0, 120, columns=60), made(1, 120, columns=60)
    same, again, other = (fit_tuned(TASK, train, tuning, seed).losses for seed in (0, 0, 1))
    assert same == again
    assert same[LARGE,] != other[LARGE,]
    assert same[LINEAR,] == other[LINEAR,]
