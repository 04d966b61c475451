"""How far tokens move the clock, what follows from silence, and which ages and periods follow from the clock."""

from dataclasses import replace
from datetime import datetime

import numpy as np
import polars as pl
import pytest
import torch

from sequela.record.duration import MINUTE
from sequela.record.events import NEVER, Events
from sequela.rollout.clock import Calendar, TokenClock, begin_minutes
from sequela.rollout.engine.rollouts import Prompts, Rollouts
from sequela.rollout.engine.sampling import seeds, uniform
from sequela.rollout.prompts import prompts_of
from sequela.tokens.ehr.clock import Intervals
from sequela.tokens.ehr.encode import encode
from sequela.tokens.ehr.fit import fit
from sequela.tokens.ehr.grammar.fit import fit_grammar
from sequela.tokens.ehr.settings import TokenSettings
from sequela.tokens.ragged import Ragged

DAY = 1440
YEAR = 525_960


def us(text):
    return int(np.datetime64(text, "us").astype(np.int64))


# Durations


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


# Age and calendar


def scheme_of(width=5, calendar=5, **settings):
    """Patients born in 1950 and seen for many years."""
    rows, names = [], ("LAB//A", "MEDS_BIRTH")
    for patient in range(3):
        rows.append((patient, us("1950-03-01T06:30"), 1))
        rows += [(patient, us(f"{year}-05-0{patient + 1}"), 0) for year in range(1990, 2020, 1 + patient)]
    patient, time, code = np.array(rows).T
    columns = Events(patient, time, code.astype(np.int32), np.full(len(rows), np.nan, np.float32), names)
    chosen = TokenSettings(min_patients=1, age_band_years=width, calendar_years=calendar, **settings)
    tokenizer = fit(columns, chosen)
    return tokenizer, fit_grammar(tokenizer, [encode(tokenizer, columns).tokens])


@pytest.mark.parametrize("edition", [1, 2])
@pytest.mark.parametrize("width", [1, 5])
def test_bands_and_periods_begin_at_the_first_minute_at_which_the_encoder_says_them(width, edition):
    tokenizer = replace(scheme_of(width)[0], edition=edition)
    born = np.array([us("1950-03-01T06:30"), us("1952-02-29"), NEVER, us("1887-07-04T23:59:30")])
    at = np.array([us("2003-01-01T07:00:30"), us("1999-12-31"), us("2000-01-01"), us("2001-06-06")])
    begin = begin_minutes(tokenizer, born, at)
    bands = len(tokenizer.age_tokens)
    for row in (0, 1, 3):
        for band in range(1, bands):
            around = at[[row, row]] + (begin[row, band] + np.array([-1, 0])) * MINUTE
            assert (tokenizer.age_bands(born[[row, row]], around) >= band).tolist() == [False, True]
    assert (begin[2, :bands] == NEVER).all() and (begin[[0, 1, 3], 0] < -(10**12)).all()
    edge = us("2005-01-01")
    period = begin[:, bands + tokenizer.vocabulary.tokens.index("YEAR//2005-2009") - int(tokenizer.period_tokens[0])]
    assert (at + period * MINUTE >= edge).all() and (at + (period - 1) * MINUTE < edge).all()


def forced(tokenizer, grammar, at, clock, said, born="1950-03-01T06:30", mass=None):
    """The probabilities [V] of the next token of one row."""
    index = tokenizer.vocabulary.index
    begin = begin_minutes(tokenizer, np.array([NEVER if born is None else us(born)]), np.array([us(at)]))
    _, bits = grammar.states(Ragged.of([[index[name] for name in said]]))
    mass = np.random.default_rng(0).random(len(index)) if mass is None else mass
    before = torch.tensor(mass, dtype=torch.float32)[None]
    after = Calendar.of(tokenizer, grammar).force(
        before.clone(), torch.tensor([clock]), torch.from_numpy(begin), torch.from_numpy(bits)
    )
    return (before / before.sum())[0].numpy(), (after / after.sum())[0].numpy()


def test_what_is_due_is_certain_and_what_is_not_cannot_come_and_time_goes_on_as_likely_as_before():
    tokenizer, grammar = scheme_of()
    index, times = tokenizer.vocabulary.index, tokenizer.vocabulary.matching("TIME//")
    carried = np.concatenate([tokenizer.age_tokens, tokenizer.period_tokens])
    others = np.setdiff1d(np.arange(len(index)), [*times, *carried])
    said, at = ["AGE//50-54", "YEAR//2000-2004"], "2004-03-01T06:30"
    before, after = forced(tokenizer, grammar, at, 0, said)  # 54 years old
    np.testing.assert_allclose(after[times], before[times], rtol=1e-5)
    assert not after[carried].any()
    left = (1 - before[times].sum()) / before[others].sum()
    np.testing.assert_allclose(after[others], before[others] * left, rtol=1e-5)

    def due(clock, said, born="1950-03-01T06:30"):
        before, after = forced(tokenizer, grammar, at, clock, said, born)
        np.testing.assert_allclose(after[times], before[times], rtol=1e-5)
        rest = np.flatnonzero(after > 0)
        rest = rest[~np.isin(rest, times)]
        return tokenizer.vocabulary.tokens[rest[0]] if len(rest) == 1 else None

    birthday = 365 * DAY
    assert due(birthday - DAY, said) == "YEAR//2005-2009"
    assert due(birthday, said) == "AGE//55-59"  # first the age
    assert due(birthday, [*said, "AGE//55-59"]) == "YEAR//2005-2009"
    assert due(birthday, [*said, "AGE//55-59", "YEAR//2005-2009"]) is None
    assert due(6 * YEAR, said) == "AGE//60-64"  # none in between
    assert due(birthday, said[1:], born=None) == "YEAR//2005-2009"
    assert due(0, said[1:], born=None) is None


def test_where_only_a_wrong_band_is_left_something_comes_all_the_same():
    tokenizer, grammar = scheme_of()
    index = tokenizer.vocabulary.index
    mass = np.zeros(len(index))
    mass[index["AGE//70-74"]] = 1
    said = ["AGE//50-54", "YEAR//2000-2004"]
    assert forced(tokenizer, grammar, "2004-03-01", 0, said, mass=mass)[1][index["AGE//70-74"]] == 1
    mass[index["TIME//6mo"]] = 1e-6
    assert forced(tokenizer, grammar, "2004-03-01", 0, said, mass=mass)[1][index["TIME//6mo"]] == 1


def test_a_calendar_without_periods_or_time_is_still_one():
    tokenizer, grammar = scheme_of(calendar=0)
    assert begin_minutes(tokenizer, np.array([NEVER]), np.array([0])).shape == (1, len(tokenizer.age_tokens))
    _, after = forced(tokenizer, grammar, str(datetime(2004, 3, 1)), YEAR * 2, ["AGE//50-54"])
    assert after[tokenizer.vocabulary.index["AGE//55-59"]] > 0
    assert Calendar.of(tokenizer, grammar).key == Calendar.of(*scheme_of(calendar=0)).key
    assert Calendar.of(tokenizer, grammar).key != Calendar.of(*scheme_of()).key
    assert isinstance(tokenizer.intervals, Intervals)
