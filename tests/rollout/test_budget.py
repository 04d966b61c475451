"""Budgets: fixed ones, and adaptive ones whose answers are exactly unbiased."""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
import pytest

from sequela.rollout.budget import AdaptiveBudget, FixedBudget
from sequela.rollout.estimators import ESTIMATORS, answers
from sequela.rollout.spread import interval, spread_of
from tests.rollout.chain import covered, off, risk, scores, within


def carry_out(plan: AdaptiveBudget | FixedBudget, offered_QN: np.ndarray) -> np.ndarray:
    """Scores [Q, N] of the rollouts that the plan asks for, NaN for the others."""
    out = np.full(offered_QN.shape, np.nan)
    for question, offered in enumerate(offered_QN):
        done = np.zeros(0, np.int64)
        while len(new := plan.more(question, done, offered[done, None])):
            done = np.append(done, new)
        out[question, done] = offered[done]
    return out


def test_a_fixed_plan():
    plan = FixedBudget(5)
    assert plan.more(0, np.zeros(0, np.int64), np.zeros((0, 2))).tolist() == [0, 1, 2, 3, 4]
    assert plan.more(0, np.array([3, 0]), np.zeros((2, 2))).tolist() == [1, 2, 4]
    assert plan.more(0, np.arange(5), np.zeros((5, 2))).tolist() == []
    np.testing.assert_allclose(plan.weights(np.array([[1, np.nan, 0]])), [[0.5, 0, 0.5]])
    with pytest.raises(ValueError, match="n must be 1"):
        FixedBudget(0)


def test_a_plan_asks_once_more_and_then_no_more():
    plan = AdaptiveBudget("scope", target=0.03, pilot=4, cap=64)
    assert plan.more(0, np.zeros(0, np.int64), np.zeros((0, 1))).tolist() == list(range(8))
    noisy = np.array(
        [[0.1, 0.2], [0.3, 0.2], [0.0, 0.22], [0.5, 0.22], [0.2, 0.2], [0.1, 0.2], [0.1, 0.21], [0.4, 0.2]]
    )
    new = plan.more(0, np.arange(8), noisy)
    assert len(new) and len(np.unique(new)) == len(new) and not np.isin(new, np.arange(8)).any()
    order = np.random.default_rng(0).permutation(8)
    assert plan.more(9, order, noisy[order]).tolist() == new.tolist()
    both = np.append(np.arange(8), new)
    assert not len(plan.more(0, both, np.concatenate([noisy, np.full((len(new), 2), 5.0)])))
    # Even numbers were asked for by odd ones: other even scores change nothing of that.
    other = noisy.copy()
    other[::2] = 0.2
    again = plan.more(0, np.arange(8), other)
    assert again[again % 2 == 0].tolist() == new[new % 2 == 0].tolist()
    assert again[again % 2 == 1].tolist() != new[new % 2 == 1].tolist()
    # All outcomes must be settled.
    one, two = (set(plan.more(0, np.arange(8), noisy[:, [k]])) for k in (0, 1))
    assert one | two == set(new)
    assert one != two


def test_nothing_seen_is_not_nothing_there():
    """Equal scores, or none that is decidable, do not settle a question."""
    for estimator, score in (("mc", 0.0), ("mc", 1.0), ("scope", 0.0), ("reach", 0.02)):
        pilot = np.full((16, 1), score)
        assert len(AdaptiveBudget(estimator, target=0.01).more(0, np.arange(16), pilot)) > 16
        assert len(AdaptiveBudget(estimator, threshold=0.05).more(0, np.arange(16), pilot)) > 16 or score == 1
    assert len(AdaptiveBudget("scope", target=0.5).more(0, np.arange(16), np.full((16, 1), np.nan))) == 240


def test_what_other_patients_tell_decides_what_a_pilot_asks_for():
    """A pilot that saw nothing rare asks for few where others vary little, and for many where they vary much."""
    pilot = np.full((16, 1), 0.02)
    sizes = [
        len(AdaptiveBudget("scope", target=0.01, overdispersion=phi).more(0, np.arange(16), pilot))
        for phi in (0.01, 0.1, 0.3)
    ]
    assert sizes[0] < sizes[1] < sizes[2]
    unknown = AdaptiveBudget("scope", target=0.01).more(0, np.arange(16), pilot)
    assert len(unknown) == sizes[2]


def expected(
    plan: AdaptiveBudget, law: list[tuple[float, float]], outcome: int = 0, outcomes: int = 1
) -> tuple[float, set]:
    """Exact expectation of the plan's answer when each score is drawn from a law of (score, probability): the sum over
    all that can come. And the numbers of rollouts that it spends."""
    mean, weight, spent = 0.0, 0.0, set()
    everything = list(product(law, repeat=plan.cap * outcomes))
    x = np.array([[one[0] for one in drawn] for drawn in everything]).reshape(-1, plan.cap, outcomes)
    probability = np.array([np.prod([one[1] for one in drawn]) for drawn in everything])
    for scores_NK, p in zip(x, probability, strict=True):
        done = np.zeros(0, np.int64)
        while len(new := plan.more(0, done, scores_NK[done])):
            done = np.append(done, new)
        row = np.full((1, plan.cap), np.nan)
        row[0, done] = scores_NK[done, outcome]
        value = answers(row, plan.weights(row)).value[0]
        spent.add(len(done))
        if not np.isnan(value):
            mean, weight = mean + p * value, weight + p
    return mean / weight, spent


@pytest.mark.parametrize(
    ("plan", "law", "outcomes"),
    [
        (AdaptiveBudget("mc", target=0.158, pilot=2, cap=10), [(0.0, 0.8), (1.0, 0.2)], 1),
        (AdaptiveBudget("mc", threshold=0.35, confidence=0.7, pilot=2, cap=10), [(0.0, 0.8), (1.0, 0.2)], 1),
        (AdaptiveBudget("scope", target=0.1, pilot=3, cap=10), [(0.05, 0.7), (1.3, 0.3)], 1),
        (AdaptiveBudget("reach", target=0.08, pilot=3, cap=10), [(0.05, 0.7), (0.2, 0.3)], 1),
        (AdaptiveBudget("mc", target=0.158, pilot=2, cap=6), [(0.0, 0.5), (1.0, 0.2), (np.nan, 0.3)], 1),
        (AdaptiveBudget("mc", target=0.165, pilot=2, cap=6), [(0.0, 0.8), (1.0, 0.2)], 2),
    ],
)
def test_auto_is_exactly_unbiased(plan: AdaptiveBudget, law: list, outcomes: int):
    known = [(score, p) for score, p in law if not np.isnan(score)]
    truth = sum(score * p for score, p in known) / sum(p for _, p in known)
    mean, spent = expected(plan, law, 0, outcomes)
    assert len(spent) > 1  # else there was no choice to be biased by
    assert mean == pytest.approx(truth, abs=1e-12)


def test_peeking_is_biased_and_so_are_rounds():
    """By the sum over all that can come, for votes with p = 0.2 and q = 0.8."""
    p, q = 0.2, 0.8
    peeking = 0.0
    for votes in product((0, 1), repeat=4):
        probability = np.prod([p if vote else q for vote in votes])
        peeking += probability * np.mean(votes if any(votes[:2]) else votes[:2])  # settled, where both are 0
    assert peeking == pytest.approx(p * (1 - q**2 / 2))

    rounds = 0.0
    for votes in product((0, 1), repeat=8):
        probability = np.prod([p if vote else q for vote in votes])
        halves, size = (votes[0::2], votes[1::2]), [1, 1]
        live = [True, True]
        while any(live):  # a half goes on, 1 to 2 to 4, until the other's scores so far have a 1
            live = [live[i] and size[i] < 4 and not any(halves[1 - i][: size[1 - i]]) for i in (0, 1)]
            size = [2 * n if on else n for n, on in zip(size, live, strict=True)]
        rounds += probability * np.mean([np.mean(half[:n]) for half, n in zip(halves, size, strict=True)])
    assert abs(rounds / p - 1) > 0.01


TARGET, THRESHOLD = 0.02, 0.075
MIXED = ("world, often", "world", "rich, often", "rich")


@cache
def spent(estimator: str, aim: str) -> tuple[float, float, float]:
    """Rollouts a question of a mixed cohort, the share of its intervals on one side of the threshold, and the largest
    root mean squared error of any case; every case checked for bias and coverage."""
    rollouts, settled, error = [], [], []
    plan = AdaptiveBudget(estimator, cap=200, **{aim: TARGET if aim == "target" else THRESHOLD})
    for case in MIXED:
        asked = carry_out(plan, scores(case, estimator, 200, 500))
        answer = answers(asked, plan.weights(asked))
        low, high = interval(answer, spread_of(answer, estimator))
        assert abs(off(answer.value, risk(case))) < 4
        assert within(covered(answer, estimator, risk(case)), len(asked))
        assert not within(covered(answer, estimator, risk(case), 0.5), len(asked))
        rollouts.append(answer.rollouts.mean())
        settled.append(((low > THRESHOLD) | (high < THRESHOLD)).mean())
        error.append(np.sqrt(np.mean((answer.value - risk(case)) ** 2)))
    return float(np.mean(rollouts)), float(np.mean(settled)), max(error)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_auto_is_unbiased_and_covers(estimator: str):
    for aim in ("target", "threshold"):
        rollouts, settled, error = spent(estimator, aim)
        print(f"{estimator} {aim}: {rollouts:.0f} rollouts, {settled:.0%} settled, error {error:.4f}")


@pytest.mark.parametrize("estimator", ["scope", "reach"])
def test_auto_spends_less_than_a_fixed_number(estimator: str):
    rollouts, _, error = spent(estimator, "target")
    assert error < 1.2 * TARGET
    fixed = (
        max(scores(case, estimator, 1).var() for case in MIXED) / error**2
    )  # for the same error in every case
    rollouts_at_threshold, settled, _ = spent(estimator, "threshold")
    same = []
    for case in MIXED:
        evenly = answers(scores(case, estimator, round(rollouts_at_threshold), 1000))
        low, high = interval(evenly, spread_of(evenly, estimator))
        same.append(((low > THRESHOLD) | (high < THRESHOLD)).mean())
    print(f"{estimator}: {rollouts:.0f} instead of {fixed:.0f} for an error of {error:.4f}")
    print(
        f"{estimator}: {rollouts_at_threshold:.0f} rollouts settle {settled:.1%}, as many fixed {np.mean(same):.1%}"
    )
    assert rollouts < 0.9 * fixed
    assert settled > np.mean(same)


def test_settings_are_checked():
    for wrong in (
        {"estimator": "best", "target": 0.1},
        {"estimator": "mc"},
        {"estimator": "mc", "target": 0.0},
        {"estimator": "mc", "threshold": 1.0},
        {"estimator": "mc", "threshold": 0.1, "confidence": 1.0},
        {"estimator": "mc", "target": 0.1, "pilot": 1},
        {"estimator": "mc", "target": 0.1, "cap": 15},
        {"estimator": "mc", "target": 0.1, "overdispersion": 0.0},
    ):
        with pytest.raises(ValueError):
            AdaptiveBudget(**wrong)
