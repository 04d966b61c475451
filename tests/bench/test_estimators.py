"""The benchmark of the estimators: its batches, its rule of what matches with controls, and a tiny run."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
Q = 400


@pytest.fixture
def curves(monkeypatch):
    """The module of the curves."""
    monkeypatch.syspath_prepend(BENCH)
    from measure import curves

    return curves


@pytest.fixture
def pools() -> dict[str, np.ndarray]:
    """Votes [Q, N], scores with the same mean and a twentieth of the variance, and votes that mostly fail."""
    random = np.random.default_rng(0)
    risk = random.beta(1, 6, (Q, 1))
    votes = (random.random((Q, 200)) < risk).astype(float)
    better = risk + np.sqrt(risk * (1 - risk) / 20) * random.normal(size=(Q, 200))
    return {
        "risk": risk[:, 0],
        "votes": votes,
        "better": better,
        "worse": votes * (random.random((Q, 1)) < 0.5),
    }


def truth_of(curves, risk: np.ndarray):
    outcome = (np.random.default_rng(1).random(Q) < risk).astype(float)
    return curves.Truth(outcome, np.ones(Q), np.arange(Q), risk)


def test_batches_share_no_rollout_and_leave_the_patients_in_place(curves):
    scores = np.arange(6)[:, None] * 100.0 + np.arange(10)
    parts = list(
        curves.batches(scores, 3, np.random.default_rng(0), 4, answer=lambda some: some.sum(1), most=9)
    )
    assert [part.shape for part in parts] == [(6, 3)] * 4
    for part in parts:
        assert ((part // 300).astype(int) == np.arange(6)[:, None]).all()
    assert not (parts[0] == parts[1]).all()
    singles = next(curves.batches(scores, 1, np.random.default_rng(0), 1, answer=lambda some: some[:, 0]))
    assert (np.sort(singles, 1) == scores).all()
    assert not (singles == scores).all()
    assert next(curves.batches(scores, 1, np.random.default_rng(0), 1, most=4)).shape == (6, 4)
    with pytest.raises(ValueError, match="pool of 10 rollouts has no batch of 11"):
        next(curves.batches(scores, 11, np.random.default_rng(0), 1))


def test_half_a_case(curves):
    votes = np.array([[0, 0, 0, np.nan], [1, 1, 1, 1], [np.nan] * 4])
    np.testing.assert_allclose(curves.half_a_case(votes), [0.5 / 4, 4.5 / 5, np.nan])


def test_the_error_is_that_of_other_random_numbers(curves):
    """Of means over partitions of many pools: their spread is what the error says, and repeated partitions, whose
    batches share rollouts, do not make it smaller than it is."""
    values, errors = [], []
    for seed in range(300):
        random = np.random.default_rng(seed)
        pool = random.normal(size=(1, 40))
        parts = [one[0] for one in curves.batches(pool, 10, random, 5, answer=lambda some: some.mean(1))]
        mean = curves.Mean.of(parts)
        values.append(mean.value)
        errors.append(mean.error**2)
    assert np.sqrt(np.mean(errors)) == pytest.approx(np.std(values), rel=0.12)
    assert np.std(values) == pytest.approx(1 / np.sqrt(40), rel=0.12)
    assert np.isnan(curves.Mean.of([np.ones(1)]).error)


def test_the_rule(curves):
    def of(**values: float):
        return {int(name[1:]): curves.Mean(value, 0.01) for name, value in values.items()}

    reference = curves.Mean(0.5, 0.01)
    assert curves.matches(of(n1=0.7, n5=0.5, n10=0.4), reference) == 5
    assert curves.matches(of(n1=0.4, n5=0.6, n10=0.4), reference) == 10  # one lucky n is no match
    assert curves.matches(of(n1=0.4, n5=0.4, n10=0.6), reference) is None
    assert curves.matches(of(n5=0.5, n10=0.48, n20=0.4), reference, curves.SURE) == 20
    assert curves.matches({5: curves.Mean(np.nan, np.nan)}, reference) is None
    assert curves.matches({5: curves.Mean(0.1, np.nan)}, reference, curves.SURE) is None


def test_what_matches_a_hundred_votes(curves, pools):
    """Scores of a twentieth of the variance need a twentieth of the rollouts; votes need as many; worse ones never."""
    truth, counts = truth_of(curves, pools["risk"]), (1, 3, 5, 7, 10, 50, 70, 100)

    def losses(name: str, metric: str) -> dict:
        return {
            n: truth.means(list(curves.batches(pools[name], n, np.random.default_rng(n), 2)))[metric]
            for n in counts
        }

    votes = losses("votes", "rmse")
    assert votes[100].value == pytest.approx(
        np.sqrt(np.mean(pools["risk"] * (1 - pools["risk"])) / 100), rel=0.1
    )
    assert curves.matches(votes, votes[100]) == 100
    assert curves.matches(losses("better", "rmse"), votes[100]) in (5, 7)
    assert curves.matches(losses("worse", "rmse"), votes[100]) is None
    ratio = curves.spread(pools["votes"]).mean() / curves.spread(pools["better"]).mean()
    assert ratio == pytest.approx(20, rel=0.05)


def test_metrics_are_those_of_the_package(curves, pools):
    truth = truth_of(curves, pools["risk"])
    prediction = pools["better"].mean(1).clip(0, 1)
    found = truth.measure(prediction, np.ones(Q))
    assert found["brier"] == pytest.approx(np.mean((prediction - truth.outcome) ** 2))
    assert found["oe"] == pytest.approx(truth.outcome.mean() / prediction.mean())
    draws = truth.draws(prediction[:, None], count=50)
    assert all(len(values) == 50 for values in draws.values())
    low, high = curves.span(float(found["auroc"]), draws["auroc"])
    assert low < found["auroc"] < high
    # In expectation over the outcomes: the mean of many worlds.
    worlds = [
        curves.Truth((np.random.default_rng(k).random(Q) < truth.risk).astype(float), *2 * (np.arange(Q),))
        for k in range(200)
    ]
    drawn = np.array(
        [[w.measure(prediction, np.ones(Q))[name] for name in ("auroc", "slope")] for w in worlds]
    )
    expected = [found["auroc_exact"], found["slope_exact"]]
    assert (np.abs(drawn.mean(0) - expected) < 4 * drawn.std(0) / np.sqrt(200) + 0.002).all()
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean((prediction - truth.risk) ** 2)))
    assert truth.means([prediction[:, None]])["slope_exact_error"].value == pytest.approx(
        abs(found["slope_exact"] - 1)
    )
    # A patient without a prediction is left out, one who was lost only weighs through the others.
    some = prediction.copy()
    some[:3] = np.nan
    rest = curves.Truth(truth.outcome[3:], truth.until_days[3:], truth.patient[3:], truth.risk[3:])
    assert truth.measure(some, np.ones(Q))["auroc"] == pytest.approx(
        rest.measure(prediction[3:], np.ones(Q - 3))["auroc"]
    )


@pytest.mark.slow
def test_a_quick_run():
    done = subprocess.run(
        [sys.executable, BENCH / "estimators.py", "--quick"], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["name"], found["target"], found["reference"]) == ("estimators", 10, 20)
    worth = found["worth"]
    assert worth["reach"]["variance"] < worth["scope"]["variance"] < worth["mc"]["variance"] / 10
    rmse = {
        one["estimator"]: one["n"]
        for one in found["matches"]
        if (one["reference"], one["metric"]) == ("mc", "rmse")
    }
    assert rmse["mc"] == 20
    assert rmse["scope"] <= 5 and rmse["reach"] <= 5
