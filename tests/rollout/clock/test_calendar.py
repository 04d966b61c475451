"""Which ages and periods follow from the clock."""

from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
import torch

from sequela.record.duration import MINUTE
from sequela.record.events import NEVER, Events
from sequela.rollout.clock.calendar import Calendar, begin_minutes
from sequela.tokens.ehr.encode import encode
from sequela.tokens.ehr.fit import fit
from sequela.tokens.ehr.grammar.fit import fit_grammar
from sequela.tokens.ehr.settings import TokenSettings
from sequela.tokens.ragged import Ragged

DAY = 1440
YEAR = 525_960


def us(text):
    return int(np.datetime64(text, "us").astype(np.int64))


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
