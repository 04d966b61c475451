import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sequela.record.timeline import STATIC
from sequela.tokens.calendar import YEAR, age_band, age_names, period_edges, period_names, year_of

moment = st.integers(-2_000_000_000_000_000, 5_000_000_000_000_000)


@pytest.mark.parametrize("width", [1, 5, 7])
def test_every_age_has_a_band_that_holds_it(width):
    names = age_names(width)
    for years in (0, 4.99, 5, 63.5, 119.9, 150, -1):
        low, high = map(
            int, names[age_band(np.array([years * YEAR]), width)[0]].removeprefix("AGE//").split("-")
        )
        assert low <= min(max(int(years), 0), 119) <= high


@given(moment, moment, st.integers(1, 12), moment)
def test_every_moment_in_the_range_has_the_period_of_its_year(one, other, width, at):
    first, last = sorted((one, other))
    names = period_names(width, first, last)
    at = min(max(at, first), last)
    name = names[np.searchsorted(period_edges(names), at, side="right")]
    low, high = map(int, name.removeprefix("YEAR//").split("-"))
    assert low <= year_of(at) <= high and high - low == width - 1


def test_no_width_and_no_events_mean_no_periods():
    assert period_names(0, 0, 10) == [] and period_names(5, STATIC, STATIC) == []
