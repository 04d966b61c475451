"""The filter of the world of hidden courses is right: against exact posteriors, particles, calibration and fits."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy.stats import kstest, rankdata

from sequela.errors import InputError
from sequela.record.worlds.belief import Visits, beliefs, ceiling
from sequela.record.worlds.latent import AHEAD, HIDDEN, LABS, LatentWorld
from sequela.record.worlds.markov import MarkovWorld

WORLD = LatentWorld()
IRREGULAR = replace(WORLD, gap=(30.0, 0.6))


@pytest.fixture(scope="module")
def many():
    return WORLD.events(5000, seed=3), WORLD.truth(5000, seed=3)


@pytest.fixture(scope="module")
def best(many):
    return ceiling(WORLD, many[0])


def at(table, visit):
    return table.filter(pl.col("visit") == visit)


def area(dies, score):
    """AUROC by ranks."""
    cases = dies.sum()
    return (rankdata(score)[dies].sum() - cases * (cases + 1) / 2) / (cases * (len(dies) - cases))


def test_without_news_from_death_and_treatment_it_is_exact():
    """Then everything is jointly normal, and the posterior is one system of equations."""
    world = replace(IRREGULAR, policy=(0.5, 0.0), hazard=(0.03, 0.0))
    visits = Visits.of(world.events(20, seed=1))
    length = visits.time.shape[1]
    deviations = [world.severity[1], world.velocity[1], world.sensitivity[1]]
    for visit, (rows, belief) in enumerate(beliefs(world, visits)):
        for row, mean, spread in zip(rows, belief.mean, belief.spread, strict=True):
            causes = np.diag([*deviations, *[world.jolt] * length, *[world.wander] * length]) ** 2
            severity, velocity, sensitivity = np.eye(3, len(causes))
            center = np.array([world.severity[0], world.velocity[0], world.sensitivity[0]])
            now = center[0]
            seen, expected = [severity], [now]
            for step in range(1, visit + 1):
                month, treated = visits.months[row, step], visits.treated[row, step - 1]
                severity = severity + month * (velocity - treated * sensitivity)
                severity = severity + np.sqrt(month) * np.eye(len(causes))[3 + step]
                velocity = velocity + np.sqrt(month) * np.eye(len(causes))[3 + length + step]
                now = now + month * (center[1] - treated * center[2])
                seen.append(severity)
                expected.append(now)
            seen, hidden = np.array(seen), np.array([severity, velocity, sensitivity])
            noise = np.eye(len(seen)) * world.noise**2 / 2
            gain = np.linalg.solve(seen @ causes @ seen.T + noise, seen @ causes @ hidden.T).T
            news = visits.lab[row, : visit + 1] - expected
            np.testing.assert_allclose(mean, [now, *center[1:]] + gain @ news, atol=1e-9)
            np.testing.assert_allclose(spread, (hidden - gain @ seen) @ causes @ hidden.T, atol=1e-9)


def particles(world, visits, row, random, count=40_000):
    """The plainest particle filter, for one patient: means, deviations and risk at each visit."""
    hidden = [mean + deviation * random.standard_normal(count)
              for mean, deviation in (world.severity, world.velocity, world.sensitivity)]  # fmt: skip
    out = []

    def step(hidden, month, treated):
        severity, velocity, sensitivity = hidden
        moved = severity + (velocity - sensitivity * treated) * month
        moved = moved + world.jolt * np.sqrt(month) * random.standard_normal(count)
        return [moved, velocity + world.wander * np.sqrt(month) * random.standard_normal(count), sensitivity]

    for visit in range(visits.count[row]):
        month, treated = visits.months[row, visit], visits.treated[row, visit]
        if visit:
            hidden = step(hidden, month, visits.treated[row, visit - 1])
        treats = world.treats(hidden[0])
        weight = np.exp(-((visits.lab[row, visit] - hidden[0]) ** 2) / world.noise**2)
        weight = weight * (treats if treated else 1 - treats) * world.survives(hidden[0], month)
        places = (np.arange(count) + random.random()) * weight.sum() / count
        drawn = np.minimum(np.searchsorted(weight.cumsum(), places), count - 1)
        hidden = [values[drawn] for values in hidden]
        later, alive = hidden, np.ones(count, bool)
        for _ in range(AHEAD):
            month = world.gaps(random.standard_normal(count)) / (30 * 24 * 60)
            later = step(later, month, treated)
            alive &= random.random(count) < world.survives(later[0], month)
            treated = random.random(count) < world.treats(later[0])
        out.append([np.mean(hidden, 1), np.std(hidden, 1), 1 - alive.mean()])
    return out


@pytest.mark.parametrize("world", [WORLD, IRREGULAR, replace(WORLD, policy=(0.5, 4.0), hazard=(0.03, 2.0))])
def test_it_agrees_with_brute_force(world):
    """The third world is one in which treatment and survival tell much more than in ours."""
    random = np.random.default_rng(0)
    visits = Visits.of(world.events(40, seed=4))
    rows = np.argsort(visits.count, kind="stable")[[0, 12, 24, -1]]
    truth = {row: particles(world, visits, row, random) for row in rows}
    for visit, (here, belief) in enumerate(beliefs(world, visits)):
        risk = belief.risk(world)
        for place in np.flatnonzero(np.isin(here, rows)):
            mean, deviation, dies = truth[here[place]][visit]
            ours = np.sqrt(np.diagonal(belief.spread[place]))
            np.testing.assert_allclose(belief.mean[place], mean, atol=0.06 * deviation.max(), rtol=0)
            np.testing.assert_allclose(ours / deviation, 1, atol=0.08)
            assert risk[place] == pytest.approx(dies, abs=0.012)


def test_the_future_is_not_seen(many):
    """Beliefs are the same to the bit whatever comes later."""
    events = many[0].filter(pl.col("subject_id") < 100)
    full = ceiling(WORLD, events)
    cut = at(full, 4)["prediction_time"][0]  # the same for all, as visits are regular
    past = events.filter(pl.col("time") < cut)
    changed = events.with_columns(
        pl.when(pl.col("time") > cut).then(pl.col("numeric_value") + 5).otherwise(pl.col("numeric_value"))
    )
    known = full.filter(pl.col("visit") <= 4)
    assert ceiling(WORLD, past).equals(known)
    assert ceiling(WORLD, changed).filter(pl.col("visit") <= 4).equals(known)
    assert not ceiling(WORLD, changed).equals(full)


def uniform(world, events, truth):
    """The chance, for every third visit and hidden value, of levels so far from uniform."""
    out = {}
    for visit, (_, belief) in enumerate(beliefs(world, Visits.of(events))):
        if visit in (0, 3, 6, 9):
            levels = belief.levels(at(truth, visit).select(HIDDEN).to_numpy())
            out |= {(visit, name): kstest(levels[:, k], "uniform").pvalue for k, name in enumerate(HIDDEN)}
    return out


def test_credible_intervals_hold_as_often_as_they_say(many):
    assert min(uniform(WORLD, *many).values()) > 0.001
    assert min(uniform(IRREGULAR, IRREGULAR.events(5000, 5), IRREGULAR.truth(5000, 5)).values()) > 0.001


@pytest.mark.parametrize(
    ("wrong", "seen"),
    [
        ({"noise": 0.8}, "severity"),
        ({"velocity": (0.2, 0.33)}, "velocity"),
        ({"velocity": (0.3, 0.2)}, "velocity"),
        ({"sensitivity": (0.4, 0.4)}, "sensitivity"),
        ({"policy": (0.5, 0.0)}, "sensitivity"),
    ],
)
def test_a_filter_of_another_world_is_seen(many, wrong, seen):
    chances = uniform(replace(WORLD, **wrong), *many)
    assert chances[6, seen] < 1e-4


def off(real, answers):
    """By how many standard errors the risk is off, at most, in a tenth of the patients by risk."""
    risk, dies = answers["dies"].to_numpy(), real["dies"].to_numpy()
    parts = np.array_split(np.argsort(risk), 10)
    error = [np.sqrt((risk[part] * (1 - risk[part])).mean() / len(part)) for part in parts]
    return max(abs(dies[part].mean() - risk[part].mean()) / e for part, e in zip(parts, error, strict=True))


@pytest.mark.parametrize("visit", [2, 6, 9])
def test_risks_come_true(many, best, visit):
    assert off(at(many[1], visit), at(best, visit)) < 4


def test_risks_of_another_world_are_seen(many):
    events, truth = (table.filter(pl.col("subject_id") < 2000) for table in many)
    assert off(at(truth, 4), at(ceiling(replace(WORLD, hazard=(0.055, 0.6)), events), 4)) > 5


def history(events, visit):
    """What a record holds up to a visit, as columns for a regression, with squares and products."""
    visits = Visits.of(events)
    here = visits.count > visit
    lab, treated = visits.lab[here, : visit + 1], visits.treated[here, : visit + 1].astype(float)
    plain = np.column_stack([lab, treated, lab.mean(1), treated.sum(1)])
    upper = np.triu_indices(plain.shape[1])
    return np.column_stack([np.ones(len(plain)), plain, (plain[:, :, None] * plain[:, None])[:, *upper]])


def test_no_regression_on_the_history_is_better_and_the_numbers_are_as_planned(many, best):
    events, truth = many
    planned = {2: (0.77, 0.29, 0.75), 4: (0.83, 0.56, 0.81), 6: (0.88, 0.69, 0.84)}
    for visit, plan in planned.items():
        x, real, ours = history(events, visit), at(truth, visit), at(best, visit)
        fit = np.arange(len(x)) % 2 == 0
        scores = []
        for name in ("severity", "velocity", "sensitivity", "dies"):
            outcome, answer = real[name].to_numpy(), ours[name].to_numpy()[~fit]
            ridge = np.linalg.solve(x[fit].T @ x[fit] + 3 * np.eye(x.shape[1]), x[fit].T @ outcome[fit])
            rival, outcome = x[~fit] @ ridge, outcome[~fit]
            if name == "dies":
                scores.append((area(outcome, answer), area(outcome, rival)))
            else:
                scores.append(
                    [1 - ((outcome - each) ** 2).mean() / outcome.var() for each in (answer, rival)]
                )
        assert all(filtered > fitted for filtered, fitted in scores), scores
        assert [scores[k][0] for k in (0, 1, 3)] == pytest.approx(plan, abs=0.04)


def test_events_of_another_world_are_refused(many):
    with pytest.raises(InputError, match="LAB//A and LAB//B"):
        ceiling(WORLD, MarkovWorld.known().events(5, seed=0))
    with pytest.raises(InputError, match="simulate them with LatentWorld"):
        ceiling(WORLD, many[0].head(200).filter(pl.col("code") != LABS[1]))
