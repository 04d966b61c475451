"""Anchors are chosen by nothing that comes after them."""

import numpy as np
import pytest

from sequela.training.objectives.anchors import LONGEST, anchors_of
from tests.training.objectives.test_futures import DAY, MINUTES, records_of

SHORT, LONG, EVENT = 2, 3, 4  # 10 days, 100 days, and what happens then


@pytest.fixture(scope="module")
def drawn():
    """Of many records of an event and, after a short or a long gap, another one."""
    rows = [np.array([1, EVENT, gap, EVENT]) for gap in (SHORT, LONG) * 3000]
    records = records_of(rows, [-1] * len(rows))
    return anchors_of(records, np.arange(len(rows)), 9, np.random.default_rng(0))


def test_those_who_wait_are_followed_by_gaps_as_they_are(drawn):
    """At a time before either gap is over there are as many records of the one as of the other."""
    early = (drawn.last == 1) & (drawn.idle > 0) & (drawn.idle < MINUTES[SHORT])
    long = drawn.window[early] % 2
    assert early.sum() > 1500 and abs(long.mean() - 0.5) < 4 * 0.5 / np.sqrt(early.sum())
    gap = MINUTES[[SHORT, LONG] * 3000]
    shares = np.random.default_rng(1).random(6000) * gap  # negative control: times that look at the gap
    assert (gap[shares < MINUTES[SHORT]] == MINUTES[LONG]).mean() < 0.2
    at_the_end = (drawn.last == 1) & (drawn.idle == 0)
    assert abs(drawn.window[at_the_end].size / 3000 - 1) < 0.1


def test_times_are_spread_over_hours_and_years(drawn):
    later = drawn.idle[(drawn.idle > 0) & (drawn.window % 2 == 1)]
    assert later.max() < MINUTES[LONG] and np.exp(np.log(later).mean()) < 0.05 * MINUTES[LONG]
    hours = np.log(later.astype(float)) / np.log(LONGEST)
    assert abs(np.quantile(hours, 0.5) - 0.5 * np.log(MINUTES[LONG]) / np.log(LONGEST)) < 0.03


def test_long_records_have_fewer_anchors_that_stand_for_more():
    lengths = np.array([5, 40])
    rows = [np.concatenate([[1], np.tile([EVENT, SHORT], count), [EVENT]]) for count in lengths]
    records = records_of(rows * 300, [400 * DAY] * 600)
    found = anchors_of(records, np.arange(600), 8, np.random.default_rng(0), later_share=0.0)
    for number, count in enumerate(lengths):
        mine = found.window % 2 == number
        assert mine.sum() == 300 * min(8, count + 1)
        np.testing.assert_allclose(found.drawn_of[mine].sum(), 300 * (count + 1), rtol=1e-5)


def test_none_is_behind_death():
    found = anchors_of(records_of([np.array([1, EVENT])], [-1]), np.array([0]), 8, np.random.default_rng(0))
    assert found.idle.tolist() == [0] and found.last.tolist() == [1] and len(found.behind[0]) == 1
