"""Against a finite world whose risks are exact: a chain of tokens with an outcome, a competing end and a horizon."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from itertools import product

import numpy as np
import pytest
from scipy import stats

from sequela.record.worlds.markov import MarkovWorld
from sequela.rollout.estimators import (
    ESTIMATORS,
    AdaptiveBudget,
    Answer,
    FixedBudget,
    _student,
    answers,
    interval,
)

TOKEN_MINUTES = np.array([1, 6, 0, 0, 0])


@dataclass(frozen=True)
class Chain:
    """S states, one a token. At every position comes the `outcome` [S], a `competing` end [S], or another token by
    `moves` [S, S], which takes so many `minutes` [S]; a rollout ends when its clock has passed the `horizon`."""

    outcome: np.ndarray
    competing: np.ndarray
    moves: np.ndarray
    minutes: np.ndarray
    horizon: int

    def risk(self, start: int) -> float:
        """Exact: the sum over positions of (probability to be in a state at a time within the horizon) x hazard."""
        stay = (1 - self.outcome - self.competing)[:, None] * self.moves
        here = np.zeros((self.horizon + 1, len(stay)))  # by clock and state
        here[0, start] = 1.0
        risk = 0.0
        while here.sum() > 1e-15:
            risk += float((here @ self.outcome).sum())
            moved, here = here @ stay, np.zeros_like(here)
            for state, minutes in enumerate(self.minutes):
                here[minutes:, state] = moved[: len(here) - minutes, state]
        return risk

    def rollouts(self, start: int, count: int, seed: int, *, avoid: bool) -> dict[str, np.ndarray]:
        """`count` rollouts: happened, hazard, reached, tokens, and the hazard at the position that truncated it."""
        random = np.random.default_rng(seed)
        state, clock = np.full(count, start), np.zeros(count, np.int64)
        happened, hazard, survival = np.zeros(count), np.zeros(count), np.ones(count)
        tokens, truncating = np.zeros(count, np.int64), np.zeros(count)
        cumulative, live = self.moves.cumsum(1), np.arange(count)
        while len(live):
            here = state[live]
            h, c = self.outcome[here], self.competing[here]
            hazard[live] += h
            survival[live] *= 1 - h
            tokens[live] += 1
            draw, other = random.random((2, len(live)))
            out = np.zeros(len(live), bool) if avoid else draw < h
            end = draw < c / (1 - h) if avoid else (draw >= h) & (draw < h + c)
            happened[live] = out
            new = np.minimum((cumulative[here] < other[:, None]).sum(1), len(self.minutes) - 1)
            state[live], clock[live] = new, clock[live] + self.minutes[new]
            passed = ~out & ~end & (clock[live] > self.horizon)
            truncating[live[passed]] = h[passed]
            live = live[~out & ~end & ~passed]
        return {
            "happened": happened,
            "hazard": hazard,
            "reached": 1 - survival,
            "tokens": tokens,
            "truncating": truncating,
        }


def of_world(deaths_times: float, days: int) -> Chain:
    """The known world as such a chain: one position a day, `days` of them."""
    world = MarkovWorld.known(deaths_times)
    return Chain(world.deaths, 0 * world.deaths, world.moves, np.ones(3, np.int64), days - 1)


def rich(times: float) -> Chain:
    """An hour, a day, a normal value, an abnormal one, a crisis; a day is 6 units and the horizon 8 days."""
    moves = np.array(
        [
            [0.3, 0.2, 0.3, 0.15, 0.05],
            [0.2, 0.4, 0.25, 0.13, 0.02],
            [0.4, 0.4, 0.15, 0.04, 0.01],
            [0.35, 0.2, 0.15, 0.2, 0.1],
            [0.4, 0.1, 0.05, 0.25, 0.2],
        ]
    )
    outcome = np.array([0.004, 0.002, 0.001, 0.03, 0.15]) * times
    return Chain(outcome, np.array([0.01, 0.02, 0.005, 0.01, 0.04]), moves, TOKEN_MINUTES, 48)


CASES = {  # chain, start: risks of .31, .10, .0087, .0022, .26, .025 and .0010
    "world, often": (of_world(1.4, 7), 2),
    "world": (of_world(1, 7), 0),
    "world, rare": (of_world(0.05, 7), 1),
    "world, rarer": (of_world(0.02, 7), 0),
    "rich, often": (rich(1), 3),
    "rich": (rich(0.1), 1),
    "rich, rarest": (rich(0.004), 2),
}
BOTH = [(case, estimator) for case in CASES for estimator in ESTIMATORS]
SIZE = 120_000


@cache
def pool(case: str, avoid: bool) -> dict[str, np.ndarray]:
    chain, start = CASES[case]
    return chain.rollouts(start, SIZE, 7 + avoid, avoid=avoid)


@cache
def risk(case: str) -> float:
    chain, start = CASES[case]
    return chain.risk(start)


def scores(case: str, estimator: str, n: int, questions: int | None = None) -> np.ndarray:
    """Independent scores [questions, n]."""
    one = ESTIMATORS[estimator]
    questions = questions or SIZE // n
    return pool(case, one.avoids)[one.score][: questions * n].reshape(questions, n)


def off(values: np.ndarray, truth: float) -> float:
    """How many standard errors the mean of the values lies from the truth."""
    return float((values.mean() - truth) / (values.std(ddof=1) / np.sqrt(len(values))))


def carry_out(plan: AdaptiveBudget | FixedBudget, offered_QN: np.ndarray) -> np.ndarray:
    """Scores [Q, N] of the rollouts that the plan asks for, NaN for the others."""
    out = np.full(offered_QN.shape, np.nan)
    for question, offered in enumerate(offered_QN):
        done = np.zeros(0, np.int64)
        while len(new := plan.more(question, done, offered[done, None])):
            done = np.append(done, new)
        out[question, done] = offered[done]
    return out


def covered(answer: Answer, estimator: str, truth: float, width: float = 1.0) -> float:
    low, high = interval(answer, estimator)
    middle, half = (low + high) / 2, (high - low) / 2 * width
    return float((np.abs(truth - middle) <= half).mean())


def within(share: float, count: int) -> bool:
    """Whether a coverage measured on so many intervals agrees with one of 93 to 97 %."""
    error = 3 * np.sqrt(0.05 * 0.95 / count)
    return 0.93 - error <= share <= 0.97 + error


# The world and its controls


def test_the_chain_is_the_known_world():
    for times, level, days in ((1, 2, 7), (0.05, 1, 3), (1.4, 0, 30)):
        assert of_world(times, days).risk(level) == pytest.approx(MarkovWorld.known(times).risk(level, days))
    assert [round(risk(case), 4) for case in CASES] == [0.3128, 0.1017, 0.0087, 0.0022, 0.2575, 0.0252, 0.001]


@pytest.mark.parametrize(("case", "estimator"), BOTH)
def test_every_estimator_is_unbiased(case: str, estimator: str):
    assert abs(off(scores(case, estimator, 1)[:, 0], risk(case))) < 4


@pytest.mark.parametrize("case", ["world, often", "world", "rich, often", "rich"])
def test_what_is_left_out_or_counted_too_long_is_seen(case: str):
    ordinary, avoiding = pool(case, False), pool(case, True)
    left_out = 1 - (1 - avoiding["reached"]) / (1 - avoiding["truncating"])
    assert off(ordinary["hazard"] - ordinary["truncating"], risk(case)) < -4
    assert off(left_out, risk(case)) < -4
    chain, start = CASES[case]
    late = replace(chain, horizon=chain.horizon + 6).rollouts(start, SIZE, 1, avoid=False)
    assert off(late["happened"], risk(case)) > 4
    assert off(pool(case, True)["hazard"], risk(case)) > 4  # hazards summed where the outcome is avoided


@pytest.mark.parametrize("case", CASES)
def test_reach_never_varies_more_than_mc(case: str):
    def variance(estimator: str) -> tuple[float, float]:
        x = scores(case, estimator, 1)[:, 0]
        square = (x - x.mean()) ** 2
        return square.mean(), square.std() / np.sqrt(len(x))

    (reach, reach_error), (mc, mc_error), (scope, scope_error) = map(variance, ("reach", "mc", "scope"))
    assert reach <= mc + 4 * np.hypot(reach_error, mc_error)
    assert mc / reach > 1 / max(risk(case), 0.15)  # measured: 7 to 2000 times
    assert scope <= mc - 4 * np.hypot(scope_error, mc_error)  # here, not always:


def test_scope_can_vary_more_than_mc_and_exceed_one():
    one = np.ones(1, np.int64)
    chain = Chain(np.array([0.2]), np.zeros(1), np.ones((1, 1)), one, 30)
    drawn, truth = chain.rollouts(0, 20_000, 0, avoid=False), chain.risk(0)
    assert abs(off(drawn["hazard"], truth)) < 4
    assert drawn["hazard"].var() > 20 * drawn["happened"].var()
    answer = answers(drawn["hazard"].reshape(-1, 20))
    low, high = interval(answer, "scope")
    assert answer.value.max() > 1.2
    assert answer.risk.max() == 1
    assert low.min() >= 0 and high.max() == 1
    assert within(covered(answer, "scope", truth), 1000)


# Answers and intervals


def test_the_answer_is_the_usual_mean_and_error():
    x = np.array([[0.1, 0.2, 0.6, np.nan], [0.5, np.nan, np.nan, np.nan], [np.nan] * 4])
    tokens = np.array([[3, 4, 5, 6], [7, 8, 0, 0], [0, 0, 0, 0]])
    answer = answers(x, None, tokens)
    known = x[0, :3]
    np.testing.assert_allclose(answer.value, [0.3, 0.5, np.nan])
    np.testing.assert_allclose(answer.standard_error, [known.std(ddof=1) / np.sqrt(3), np.nan, np.nan])
    np.testing.assert_allclose(
        answer.skewness[0], ((known - 0.3) ** 3).mean() / known.std(ddof=1) ** 3, rtol=1e-9
    )
    assert answer.rollouts.tolist() == [3, 1, 0]
    assert answer.undecidable.tolist() == [1, 1, 0]
    assert answer.tokens.tolist() == [18, 15, 0]
    np.testing.assert_allclose(answer.effective, [3, 1, 0])
    assert answers(x).undecidable.tolist() == [1, 3, 4]
    low, high = interval(answer, "mc")
    assert low[1] < 0.5 < high[1]
    assert np.isnan([low[2], high[2]]).all()


def test_intervals_are_those_of_the_books():
    answer = answers(np.array([[0.0] * 10, [1.0] * 10, [1.0] * 3 + [0.0] * 7]))
    wilson = [stats.binomtest(k, 10).proportion_ci(0.95, "wilson") for k in (0, 10, 3)]
    low, high = interval(answer, "mc")
    np.testing.assert_allclose(np.stack([low, high], 1), [(one.low, one.high) for one in wilson], atol=1e-12)
    for estimator in ("scope", "reach"):  # equal scores do not mean that the next one is equal too
        same = answers(np.full((1, 10), 0.2) + np.random.default_rng(0).normal(0, 1e-8, (1, 10)))
        assert interval(same, estimator)[1] > 0.4
        symmetric = answers(np.array([[0.3, 0.4, 0.5, 0.6, 0.7]]))
        error = stats.t.ppf(0.975, 4) * symmetric.standard_error[0]
        np.testing.assert_allclose(
            np.ravel(interval(symmetric, estimator)), [0.5 - error, 0.5 + error], rtol=1e-4
        )
    for confidence in (0.9, 0.95, 0.999):
        freedom = np.array([1, 2, 3, 9, 99, 300, 1e4])
        np.testing.assert_allclose(
            _student(confidence, freedom), stats.t.ppf((1 + confidence) / 2, freedom), rtol=1e-4
        )
    with pytest.raises(ValueError, match="no estimator 'best'"):
        interval(answer, "best")


@pytest.mark.parametrize("estimator", ["scope", "reach"])
@pytest.mark.parametrize("case", CASES)
def test_intervals_cover(case: str, estimator: str):
    for n in (10, 25, 100):
        answer = answers(scores(case, estimator, n, min(4000, SIZE // n)))
        count = len(answer.value)
        assert within(covered(answer, estimator, risk(case)), count), n
        assert not within(covered(answer, estimator, risk(case), 0.5), count)
        assert not within(covered(answer, estimator, risk(case), 2), count)


def test_intervals_of_votes_cover_over_a_cohort():
    """Of one risk they cannot: 10 votes give 11 intervals. Over many risks they do."""
    random = np.random.default_rng(3)
    truth = np.exp(random.uniform(np.log(0.001), np.log(0.3), 8000))
    for n in (10, 25, 100):
        votes = random.random((len(truth), n)) < truth[:, None]
        assert within(covered(answers(votes.astype(float)), "mc", truth), len(truth))
        assert not within(covered(answers(votes.astype(float)), "mc", truth, 0.5), len(truth))


def test_where_rollouts_see_the_crisis_rarely():
    """Two days from a good state: the only score of 20 that counts is a rare one. Student's t does not know."""
    chain, start = of_world(0.05, 2), 0
    x = chain.rollouts(start, 100_000, 5, avoid=False)["hazard"]
    for n in (10, 16, 25):
        answer = answers(x[: 4000 * n].reshape(4000, n))
        plain = stats.t.ppf(0.975, n - 1) * answer.standard_error
        assert 0.93 <= covered(answer, "scope", chain.risk(start)) <= 1
        assert (np.abs(answer.value - chain.risk(start)) <= plain).mean() < 0.85


# Plans


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
        low, high = interval(answer, estimator)
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
        low, high = interval(answers(scores(case, estimator, round(rollouts_at_threshold), 1000)), estimator)
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
    ):
        with pytest.raises(ValueError):
            AdaptiveBudget(**wrong)
