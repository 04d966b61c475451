import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sequela.tokens.ehr.clock import (
    QUANTILES,
    YEARS,
    Intervals,
    age_band,
    age_names,
    bulk,
    period_edges,
    period_names,
    years_of,
)
from sequela.tokens.ehr.settings import COMET_EDGES

DAY = 1440
gaps = st.lists(st.integers(0, 5_000_000), min_size=1, max_size=50).map(np.array)


def fitted(edges, minutes):
    intervals = Intervals.guess(edges)
    return intervals.timed(intervals.count(minutes, np.zeros(0, np.int64)))


@given(gaps)
def test_a_gap_decodes_into_its_own_interval(minutes):
    intervals = fitted(COMET_EDGES, minutes)
    repeats, kind = intervals.encode(minutes)
    back = repeats * intervals.edges[-1] + np.where(kind >= 0, intervals.means[kind], 0)
    again = intervals.encode(back)
    assert (again[0] == repeats).all() and (again[1] == kind).all()


def test_the_mean_of_the_training_gaps_stands_for_a_class():
    intervals = fitted((1, 100, 1000), np.array([100, 300, 1100, 2500]))
    # remainders in [100, 1000): 100, 300, 100, 500
    assert intervals.means.tolist() == [50, 250, 1000]


@given(gaps)
def test_every_quantile_of_a_class_lies_in_it_and_the_longest_is_its_edge(minutes):
    intervals = fitted(COMET_EDGES, minutes)
    upper = np.append(intervals.edges[1:], intervals.edges[-1] + 1)
    assert (np.diff(intervals.quantiles) >= 0).all()
    assert (intervals.quantiles >= intervals.edges[:, None]).all()
    assert (intervals.quantiles < upper[:, None]).all()


def test_drawn_gaps_are_as_long_as_training_gaps_and_so_is_their_survival():
    """Gaps of whole days, as registers have them, with a peak on one of them."""
    random = np.random.default_rng(0)
    days = np.append(np.floor(30 + 150 * random.beta(1, 3, 20_000)), np.full(5_000, 91))
    intervals, minutes = fitted(COMET_EDGES, (days * DAY).astype(int)), days * DAY
    row = intervals.names.index("TIME//1mo-6mo")
    drawn = intervals.minutes(np.full(200_000, row), random.random(200_000), np.zeros(200_000, np.int64))
    assert np.isin(drawn / DAY, days).all()  # nothing in between
    mean = np.full(len(drawn), intervals.means[row])
    for day in (30, 45, 60, 90, 91, 120, 150, 179):
        true = (minutes > day * DAY).mean()
        assert abs((drawn > day * DAY).mean() - true) < 0.006
        assert abs(intervals.survival(np.array([day * DAY]))[0, row] - true) < 0.004
    assert max(abs((mean > day * DAY).mean() - (minutes > day * DAY).mean()) for day in (60, 90)) > 0.3  # planted


def test_a_gap_is_drawn_given_that_it_is_longer():
    random = np.random.default_rng(0)
    days = np.floor(30 + 150 * random.beta(1, 3, 20_000))
    intervals = fitted(COMET_EDGES, (days * DAY).astype(int))
    row = np.full(100_000, intervals.names.index("TIME//1mo-6mo"))
    rest = np.repeat([0, 60 * DAY], len(row) // 2)
    drawn = intervals.minutes(row, random.random(len(row)), rest)
    assert (drawn > rest).all()
    for number, after in enumerate((0, 60)):
        chosen = drawn[number * len(row) // 2 :][: len(row) // 2]
        assert abs((chosen > 90 * DAY).mean() - (days[days > after] > 90).mean()) < 0.015
    beyond = intervals.minutes(row[:1], np.array([0.5]), np.array([179 * DAY]))  # no training gap is so long
    assert beyond.tolist() == [intervals.quantiles[row[0], -1]]


def test_gaps_that_follow_up_cuts_off_count_and_the_mean_is_that_of_the_completed():
    intervals = Intervals.guess((10, 100, 1000))
    gaps, cut = np.array([20, 80, 2030]), np.array([50, 50, 3000])
    timed = intervals.timed(intervals.count(gaps, cut))
    # Of the 8 known to last for 50 minutes, 2 are cut off then: the gap of 80 stands for 1 + 2 / 6 of them
    below = QUANTILES / (2 + 1 + 2 / 6)
    assert abs((timed.quantiles[0] == 20).sum() - below) <= 1 and abs((timed.quantiles[0] == 30).sum() - below) <= 1
    assert timed.means[0] == round((20 + 80 + 30) / 3)


def test_classes_without_training_gaps_are_evenly_filled_and_few_gaps_make_a_whole_table():
    intervals = fitted((10, 100, 1000), np.array([20, 30]))
    assert intervals.quantiles.shape == (3, QUANTILES)
    assert np.unique(intervals.quantiles[0], return_counts=True)[1].tolist() == [QUANTILES / 2] * 2
    assert np.abs(intervals.quantiles[1] - np.linspace(100, 1000, QUANTILES)).max() < 4
    assert (intervals.quantiles[2] == 1000).all()
    assert intervals.survival(np.array([0, 999, 1000]))[:, 2].tolist() == [1, 1, 0]


def test_names_speak_of_both_edges():
    assert Intervals.guess((1, 60, 1440)).names == ["TIME//1min-1h", "TIME//1h-1d", "TIME//1d"]


moment = st.integers(-2_000_000_000_000_000, 5_000_000_000_000_000)


@pytest.mark.parametrize("width", [1, 5, 7])
def test_every_age_has_a_band_that_holds_it(width):
    names = age_names(width)
    for years in (0, 4, 5, 63, 119, 150, -1):
        low, high = map(int, names[age_band(np.array([years]), width)[0]].removeprefix("AGE//").split("-"))
        assert low <= min(max(years, 0), 119) <= high


@given(moment, moment, st.integers(1, 12), moment)
def test_every_moment_in_the_range_has_the_period_of_its_year(one, other, width, at):
    first, last = sorted((one, other))
    first_year, last_year = years_of(np.array([first, last])).tolist()
    names = period_names(width, (first_year, last_year))
    if last_year // width * width > 2100:
        assert names == []
        return
    at = min(max(at, first), last)
    name = names[np.searchsorted(period_edges(names), at, side="right")]
    low, high = map(int, name.removeprefix("YEAR//").split("-"))
    assert low <= years_of(np.array([at]))[0] <= high and high - low == width - 1


def test_no_width_and_no_events_mean_no_periods():
    assert period_names(0, (1990, 2010)) == [] and period_names(5, None) == []


def counted(**years):
    patients = np.zeros(YEARS + 1, np.int64)
    for year, number in years.items():
        patients[int(year.removeprefix("y"))] = number
    return patients


@pytest.mark.parametrize(
    ("patients", "years"),
    [
        (counted(y1995=30, y2004=400, y2020=20, y2099=150, y9999=100, y1900=90), (1995, 2020)),
        (counted(y1995=9, y2004=400, y2023=9), (2004, 2004)),  # too few patients
        (counted(y2112=30, y2130=50, y2149=20, y9999=2), (2112, 2149)),  # shifted
        (counted(y1971=300, y1998=200, y9999=100), (1971, 1998)),  # a survey, and what became of its people
        (counted(y2004=300, y9999=300), (2004, 2004)),  # a date that everybody has, of no calendar
        (counted(y4100=30, y4120=20), (4100, 4100)),
        (counted(y2004=5), None),
        (counted(), None),
    ],
)
def test_the_years_of_the_data_are_those_of_most_patients(patients, years):
    assert bulk(patients, 1, 10) == years
