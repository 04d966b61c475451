import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sequela.tokens.ehr.clock import (
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

gaps = st.lists(st.integers(0, 5_000_000), min_size=1, max_size=50).map(np.array)


def fitted(edges, minutes):
    intervals = Intervals.guess(edges)
    _, kind = intervals.encode(minutes)
    return intervals.timed(intervals.counted(kind, minutes % edges[-1]))


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


@pytest.mark.parametrize(
    ("minutes", "tokens"), [(0, 0), (129_599, 0), (129_600, 1), (259_200, 1), (388_800, 2)]
)
def test_censored_time_is_rounded_to_the_nearest_longest_interval(minutes, tokens):
    intervals = Intervals.guess(COMET_EDGES)
    assert intervals.tail(np.array([minutes])).tolist() == [tokens]


def test_rounding_the_censored_tail_keeps_the_hazard_and_rounding_down_inflates_it():
    """Constant hazard, uniform censoring: events per interval at risk must be the true probability per interval."""
    random = np.random.default_rng(0)
    block, per_block = 259_200, 0.1
    event = random.exponential(block / -np.log1p(-per_block), 200_000)
    censored = random.uniform(0, 8 * block, 200_000)
    happened = event < censored
    whole = (np.minimum(event, censored) // block).astype(int)
    survived = {
        "nearest": np.where(happened, whole, Intervals.guess(COMET_EDGES).tail(censored)),
        "down": whole,
    }
    rate = {how: happened.sum() / (n.sum() + happened.sum()) for how, n in survived.items()}
    assert abs(rate["nearest"] - per_block) < 0.001
    assert rate["down"] > per_block + 0.005  # negative control


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
