"""Guesses of a head, and rollouts that they steady: against exact risks, with any guess, a random one too."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from sequela.errors import InputError
from sequela.record.dataset import read_events
from sequela.rollout.clock.minutes import TokenClock
from sequela.rollout.engine.rollouts import Prompts
from sequela.rollout.engine.sampling import Sampling
from sequela.rollout.engine.step import TokenStep
from sequela.rollout.forecast import forecast, load
from sequela.rollout.request import Request
from sequela.rollout.settings import SimulateSettings
from sequela.rollout.tracker import OutcomeTracker, StopRule, WatchedOutcomes
from sequela.rollout.values.control import STEPS, guesses, latest
from sequela.tokens.ragged import Ragged
from tests.rollout.chain import CASES, off

ROWS = 12_000


def tracked(case: str, values: np.ndarray, *, expects_ends: bool = True) -> dict[str, np.ndarray]:
    """What the tracker says of rollouts of a chain: its states are tokens, and so are the outcome and an end."""
    chain, start = CASES[case]
    states = len(chain.outcome)
    size, outcome, end = states + 2, states, states + 1
    chances = np.hstack([
        (1 - chain.outcome - chain.competing)[:, None] * chain.moves, chain.outcome[:, None], chain.competing[:, None],
    ])  # fmt: skip
    logits = torch.from_numpy(np.log(np.maximum(chances, 1e-300))).float()
    minutes = np.append(chain.minutes, [0, 0])
    mark = np.eye(size, dtype=bool)
    watch = WatchedOutcomes(mark[[outcome]], np.zeros((1, size), bool), np.array([chain.horizon]))
    rule = StopRule(mark[end], chain.horizon, 10_000)
    tracker = OutcomeTracker(rule, watch, TokenClock.constant(minutes), steadied=True)
    tracker.weight_over *= expects_ends
    step = TokenStep(tracker, None, Sampling())
    prompts = Prompts(Ragged.of([[0]]), np.zeros(1, np.int64), values=values.astype(np.float32)[None, None])
    state = step.start(prompts, np.zeros(ROWS, np.int64), torch.arange(ROWS) * 7919 + 1)
    here = torch.full((ROWS,), start)
    found: list[dict[str, np.ndarray]] = []
    while len(here):
        token, mass = step.choose(logits[here], state, None)
        reason = step.take(token, state, mass)
        found.append(tracker.account(state.take(reason >= 0)))
        here, state = token[reason < 0], state.take(reason < 0)
    return {name: np.concatenate([one[name] for one in found])[:, 0] for name in ("happened", "hazard", "controlled")}


@pytest.mark.parametrize("case", ["world, often", "rich, often", "rich"])
def test_any_guess_leaves_the_risk_as_it_is(case):
    """The mean is the exact risk for a random head; what a head is worth shows in the variance alone."""
    chain, start = CASES[case]
    risk, exact = chain.risk(start), chain.by_clock(start)[: chain.horizon + 1, 0]
    good = tracked(case, exact[: chain.horizon])  # a step of the guess for each minute before the horizon
    random = tracked(case, np.random.default_rng(0).random(chain.horizon))
    none = tracked(case, np.zeros(1))
    for one in (good, random, none):
        assert abs(off(one["controlled"], risk)) < 4
    np.testing.assert_allclose(none["controlled"], none["hazard"], atol=1e-6)  # 0 is "scope"
    expected = chain.variance(start, chain.by_clock(start))
    assert good["controlled"].var() == pytest.approx(expected, rel=0.1)
    assert good["controlled"].var() < 0.9 * none["controlled"].var() < random["controlled"].var()


def test_a_control_whose_mean_is_not_0_is_seen():
    """Negative control: ends that are not expected before they come."""
    chain, start = CASES["rich, often"]
    unexpected = tracked("rich, often", np.full(1, 0.5), expects_ends=False)
    assert off(unexpected["controlled"], chain.risk(start)) > 20


DEATH = Request("death", pl.DataFrame(), ("MEDS_DEATH",), (), 7 * 1440)


@pytest.fixture(scope="module")
def cohort(world_meds):
    events = read_events(world_meds, "held_out")
    asked = events.filter(pl.col("code") == "COHORT//ENTRY").select("subject_id", prediction_time="time").head(8)
    return events.join(asked, on="subject_id", how="semi"), asked


def test_guesses_are_what_is_left_of_the_risk(headed, cohort):
    events, asked = cohort
    head = latest(headed)
    often = replace(DEATH, name="often", counted="all")
    values = guesses(headed, events, asked, [DEATH, often, replace(DEATH, horizon_minutes=None)])
    assert values.shape == (8, 3, STEPS) and (values[:, 1] == 0).all()
    rates = head.rates(head.states(events, asked)[1], DEATH)
    np.testing.assert_allclose(values[:, 0, 0], rates.incidence(np.array([7.0]))[:, 0], rtol=1e-5)
    np.testing.assert_allclose(values[:, 0, 32], rates.remaining(np.array([3.5]), 7.0)[:, 0], rtol=1e-5)
    assert (np.diff(values[:, 0]) < 0).all() and (values[:, 2] == 1).all()  # death is sure, and nothing competes
    unknown = pl.concat([asked, asked.select("subject_id", prediction_time=pl.lit(0).cast(pl.Datetime("us")))])
    unknown = unknown.sort("subject_id", "prediction_time")
    later = guesses(headed, events, unknown, [DEATH])
    np.testing.assert_allclose(later[1::2], values[:, :1], rtol=1e-4)
    assert latest(headed) is head


def test_steadied_futures_are_those_of_scope_with_another_score(headed, cohort):
    events, asked = cohort
    requests = [replace(DEATH, times=asked), replace(DEATH, name="entry", outcome=("COHORT//ENTRY",), times=asked)]
    settings = SimulateSettings(estimator="cv", rollouts=60, limit=40, seed=3)
    steadied = forecast(load(headed, settings), events, requests, settings).rollouts()
    plain = forecast(load(headed, settings), events, requests, replace(settings, estimator="scope")).rollouts()
    shared = [name for name in plain.columns if not name.startswith(("cv//", "seen//cv//"))]
    assert steadied.select(shared).equals(plain) and set(steadied.columns) - set(shared) == {
        "cv//death", "cv//entry", "seen//cv//death", "seen//cv//entry",
    }  # fmt: skip
    for name in ("death", "entry"):
        difference = (steadied[f"cv//{name}"] - steadied[f"scope//{name}"]).drop_nulls().to_numpy()
        assert len(difference) > 200 and abs(off(difference, 0.0)) < 4 and difference.std() > 0.01


def test_a_model_without_a_head_cannot_steady(rough, cohort):
    events, asked = cohort
    settings = SimulateSettings(estimator="cv", rollouts=2)
    with pytest.raises(InputError, match="has no value head: train it"):
        forecast(load(rough, settings), events, [replace(DEATH, times=asked)], settings)
    head = replace(settings, estimator="head")
    with pytest.raises(InputError, match="the estimator head reads risks off the history, without futures"):
        forecast(load(rough, head), events, [replace(DEATH, times=asked)], head)
