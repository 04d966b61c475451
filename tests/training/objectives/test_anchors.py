"""Times at which states are read: those of a walk over every token, chosen by nothing that comes after them."""

import numpy as np
import pytest

from sequela.tokens.packing import Windows
from sequela.tokens.ragged import Ragged, offsets_of
from sequela.training.objectives.anchors import LONGEST, Records, anchors_of
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


WALKED_MINUTES = np.array([0, 0, 10, 100, 0, 0])  # pad, start, two times, two events
ROWS = [
    np.array([1, 4, 2, 4, 5, 3, 5]),  # events at 0, 10, 10 and 110 minutes
    np.array([1, 2, 4, 4, 4]),  # one moment, at the end of the record
    np.array([1, 3, 2]),  # no event but the start
]


def walked(rest=None, context=100):
    tokens = Ragged(np.concatenate(ROWS), offsets_of(np.array([len(row) for row in ROWS])))
    windows = Windows.of(tokens, np.array([1]), (), context)
    return Records(windows, WALKED_MINUTES, None if rest is None else np.array(rest, np.int32))


def ends_of_moments(row, rest):
    """The last event of each moment after which time is known to pass: place, minutes of it and until the next."""
    times, events = np.cumsum(WALKED_MINUTES[row]), [n for n, token in enumerate(row) if WALKED_MINUTES[token] == 0]
    until = np.inf if rest < 0 else times[-1] + rest
    found = []
    for place, later in zip(events, [*events[1:], None], strict=True):
        gap = (until if later is None else times[later]) - times[place]
        if gap > 0:
            found.append((place, gap))
    return found


@pytest.mark.parametrize("rest", [[0, 0, 0], [30, 5, 1], [-1, -1, -1]])
def test_anchors_stand_at_ends_of_moments_and_before_what_comes_next(rest):
    records, row = walked(rest), np.arange(3)
    seen = set()
    for seed in range(30):
        anchors = anchors_of(records, row, 50, np.random.default_rng(seed), later_share=seed % 2 / 2)
        place = 0
        for number, behind in enumerate(anchors.behind):
            expected = ends_of_moments(ROWS[number], rest[number])
            assert set(behind) <= {last + 1 for last, _ in expected}
            assert len(behind) == len(expected) or seed % 2  # those who had waited longer than the gap are left out
            for last, gap in [pair for pair in expected if pair[0] + 1 in behind]:
                assert anchors.window[place] == number and anchors.last[place] == last
                assert 0 <= anchors.idle[place] < max(gap, 1) and (np.isfinite(gap) or anchors.idle[place] == 0)
                seen.add(int(anchors.idle[place]) > 0)
                place += 1
        assert place == len(anchors.idle)
    assert seen == {False, True}  # at the end of a moment, and later


def test_at_most_so_many_are_drawn_and_windows_have_their_own():
    records = walked([50, 50, 50])
    row = np.array([2, 0, 0])  # in any order, and again
    anchors = anchors_of(records, row, 1, np.random.default_rng(0), 0.0)
    assert [len(behind) for behind in anchors.behind] == [1, 1, 1] and anchors.window.tolist() == [0, 1, 2]
    both = anchors_of(records, row, 3, np.random.default_rng(0), 0.0)
    assert [len(behind) for behind in both.behind][1:] == [3, 3] and (np.diff(both.behind[1]) > 0).all()


def test_of_a_window_only_its_own_events_are_anchors():
    records = walked([0, 0, 0], context=4)
    windows = records.windows
    row = np.arange(len(windows))
    anchors = anchors_of(records, row, 50, np.random.default_rng(0))
    for number, behind in enumerate(anchors.behind):
        last = anchors.last[anchors.window == number]
        assert (last >= windows.start[number]).all() and (last < windows.stop[number]).all()
        assert (behind <= windows.lengths[number]).all()
        for place, token in zip(behind, last, strict=True):
            assert windows[number][place - 1] == ROWS[int(windows.patient[number])][token]


def test_a_record_is_known_until_it_ends_or_for_ever_after_death():
    assert walked([30, -1, 0]).timed(0).until == 140 and walked([30, -1, 0]).timed(1).until == np.inf
    silent = walked().timed(0)
    assert silent.until == 110 and silent.events.tolist() == [0, 1, 3, 4, 6]
    assert silent.minutes.tolist() == [0, 0, 10, 10, 10, 110, 110]
