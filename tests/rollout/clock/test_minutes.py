"""How far tokens move the clock, and what follows from silence."""

import numpy as np
import polars as pl
import pytest
import torch

from sequela.record.duration import MINUTE
from sequela.record.events import Events
from sequela.rollout.clock.minutes import TokenClock
from sequela.rollout.engine.rollouts import Prompts, Rollouts
from sequela.rollout.engine.sampling import seeds, uniform
from sequela.rollout.prompts import prompts_of
from sequela.tokens.ehr.encode import encode
from sequela.tokens.ehr.fit import fit
from sequela.tokens.ehr.grammar.fit import fit_grammar
from sequela.tokens.ehr.settings import TokenSettings
from sequela.tokens.ragged import Ragged

DAY = 1440


def us(text):
    return int(np.datetime64(text, "us").astype(np.int64))


def gap_days(count, seed):
    """Gaps of a register: most of a few months, in whole days, some on a day that many keep; some of years."""
    random = np.random.default_rng(seed)
    short = np.floor(random.gamma(2.0, 40.0, count) + 1)
    gaps = np.where(random.random(count) < 0.2, 91, short)
    return np.where(random.random(count) < 0.01, np.floor(random.uniform(180, 500, count)), gaps)


def register(gaps):
    """A patient for each gap, who has two visits so far apart."""
    rows = [(p, us("2000-01-01") + int(day * DAY) * MINUTE) for p, gap in enumerate(gaps) for day in (0, gap)]
    patient, time = np.array(rows).T
    return Events(patient, time, np.zeros(len(rows), np.int32), np.full(len(rows), np.nan, np.float32), ("VISIT",))


@pytest.fixture(scope="module")
def visits():
    columns = register(gap_days(20_000, 0))
    tokenizer = fit(columns, TokenSettings(min_patients=1))
    return tokenizer, fit_grammar(tokenizer, [encode(tokenizer, columns).tokens])


def class_shares(tokenizer, gaps):
    """How likely each number of longest tokens, and each class after them, is."""
    repeats, interval = tokenizer.intervals.encode((gaps * DAY).astype(np.int64))
    return repeats, interval


def drawn_gaps(clock, tokenizer, gaps, seed):
    """Gaps drawn token by token: the classes are those of other gaps, the minutes are the clock's."""
    repeats, interval = class_shares(tokenizer, gaps)
    first = tokenizer.vocabulary.index[tokenizer.intervals.names[0]]
    longest = first + len(tokenizer.intervals.edges) - 1
    own = seeds(torch.full((len(gaps),), seed), torch.arange(len(gaps)))
    total = np.zeros(len(gaps), np.int64)
    for step in range(int(repeats.max()) + 1):
        long, short = step < repeats, (step == repeats) & (interval >= 0)
        token = np.where(long, longest, np.where(short, first + interval, 0))
        zero = torch.zeros(len(gaps), dtype=torch.int64)
        total += clock.moves(torch.from_numpy(token), own, zero + step + 1, zero).numpy()
    return total


def test_drawn_gaps_are_as_long_as_those_of_life(visits):
    tokenizer, _ = visits
    gaps = gap_days(40_000, 1)
    drawn = drawn_gaps(TokenClock.of(tokenizer), tokenizer, gaps, 5)
    means = drawn_gaps(TokenClock.constant(tokenizer.minutes_V), tokenizer, gaps, 5)
    days = np.array([5, 20, 30, 45, 60, 75, 90, 91, 120, 150, 179, 180, 200, 250, 360, 450])
    life = [(gaps <= day).mean() for day in days]
    assert np.abs([(drawn <= day * DAY).mean() for day in days] - np.array(life)).max() < 0.012
    assert np.abs([(means <= day * DAY).mean() for day in days] - np.array(life)).max() > 0.1  # planted


def test_risks_are_right_at_every_horizon_and_a_staircase_with_one_number_a_class(visits):
    """After every visit one in ten has the outcome: when it comes is a matter of how the gaps add up."""
    tokenizer, _ = visits
    count, visits_each, horizons = 20_000, 12, (30, 60, 90, 120, 180, 240, 270, 365, 500, 730)
    outcome = np.random.default_rng(9).geometric(0.1, count)

    def risks(gaps):
        """Of an outcome by each horizon, from gaps [visits, people] in days."""
        at = gaps.cumsum(0)[np.minimum(outcome, visits_each) - 1, range(count)]
        at[outcome > visits_each] = np.inf
        return np.array([(at <= horizon).mean() for horizon in horizons])

    life = risks(np.stack([gap_days(count, 100 + n) for n in range(visits_each)]))
    other = [gap_days(count, 200 + n) for n in range(visits_each)]
    clocks = {"drawn": TokenClock.of(tokenizer), "means": TokenClock.constant(tokenizer.minutes_V)}
    ratio = {
        name: risks(np.stack([drawn_gaps(clock, tokenizer, g, n) for n, g in enumerate(other)]) / DAY) / life
        for name, clock in clocks.items()
    }
    assert np.abs(ratio["drawn"] - 1).max() < 0.06
    assert np.abs(ratio["means"] - 1).max() > 0.3  # planted
    assert np.abs(ratio["means"][-1] - 1) < 0.06  # far away it cancels


def test_minutes_depend_on_the_rollout_and_the_place_alone(visits):
    tokenizer, _ = visits
    clock = TokenClock.of(tokenizer)
    months = tokenizer.vocabulary.index["TIME//1mo-6mo"]
    own = seeds(torch.arange(2000), torch.full((2000,), 3))
    one, two = (clock.moves(torch.full_like(own, months), own, torch.full_like(own, n), own * 0) for n in (1, 2))
    some = clock.moves(torch.full((5,), months), own[:5], torch.full((5,), 1), own[:5] * 0)
    assert one[:5].tolist() == some.tolist() and one.unique().numel() > 50
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.1
    # and not on what was drawn for the token itself
    assert abs(np.corrcoef(one, uniform(own, torch.ones_like(own)))[0, 1]) < 0.1
    assert clock.key == TokenClock.of(tokenizer).key != TokenClock.constant(tokenizer.minutes_V).key


def test_rollouts_are_told_by_the_minutes_that_the_tracker_counted(visits):
    tokenizer, _ = visits
    clock, index = TokenClock.of(tokenizer), tokenizer.vocabulary.index
    names = [["TIME//1mo-6mo", "VISIT", "TIME//1w-2w", "VISIT"], ["TIME//6mo", "TIME//1mo-6mo"], ["VISIT"], []]
    tokens = Ragged.of([[index[name] for name in row] for row in names])
    number = np.array([0, 1, 7, 8])
    prompts = Prompts(Ragged.of([[1]] * 2), np.array([11, 12]), clock=np.array([-60 * DAY, 0]))
    prompt = np.array([0, 0, 0, 1])
    rollouts = Rollouts(prompt, number, tokens, np.zeros(4, np.int8), np.zeros(4, np.int64), {})
    moves = Ragged(clock.moves_of(prompts, rollouts), tokens.offsets)
    for row in range(4):
        own, at = seeds(torch.from_numpy(prompts.key[prompt[[row]]]), torch.from_numpy(number[[row]])), -60 * DAY
        for step, token in enumerate(tokens[row]):
            moved = clock.moves(torch.tensor([int(token)]), own, torch.tensor([step]), torch.tensor([at]))
            assert moved.item() == moves[row][step]
            at += moved.item()
            assert at >= 0
    assert moves[2].tolist() == [60 * DAY]  # what comes at once comes now


# Silence


@pytest.mark.parametrize("silent", [90, 120, 150, 170])
def test_the_risk_after_silence_is_that_of_the_gaps_that_outlasted_it(visits, silent):
    """The next visit before day 180: where it comes at random among those who were silent as long."""
    tokenizer, grammar = visits
    gaps, people = gap_days(40_000, 1), 20_000
    frame = register(gap_days(1, 0)).frame().head(1)
    at = pl.DataFrame({"subject_id": [0], "prediction_time": [us("2000-01-01") + silent * DAY * MINUTE]})
    _, prompts = prompts_of(tokenizer, grammar, frame, at.cast({"prediction_time": pl.Datetime("us")}), 0)
    first = tokenizer.vocabulary.index[tokenizer.intervals.names[0]]
    classes = first + np.arange(len(tokenizer.intervals.edges))
    repeats, interval = class_shares(tokenizer, gaps)
    share = np.bincount(np.where(repeats > 0, len(classes) - 1, interval), minlength=len(classes)) / len(gaps)
    truth = (gaps[gaps >= silent] < 180).mean()

    def risk(weights, clock):
        mass = share * weights
        token = np.random.default_rng(3).choice(classes, people, p=mass / mass.sum())
        own = seeds(torch.full((people,), 4), torch.arange(people))
        before = torch.full((people,), -silent * DAY)
        moved = clock.moves(torch.from_numpy(token), own, torch.zeros_like(own), before)
        assert (moved >= silent * DAY).all()
        return (moved.numpy() < 180 * DAY).mean()

    assert abs(risk(prompts.first[0, classes].astype(float), TokenClock.of(tokenizer)) - truth) < 0.025
    whole = tokenizer.intervals.upper() > silent * DAY  # planted: a class counts with its whole mass
    assert risk(whole, TokenClock.constant(tokenizer.minutes_V)) - truth > 0.05
