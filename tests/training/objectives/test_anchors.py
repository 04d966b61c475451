"""Times at which states are read, against a walk over every token."""

import numpy as np
import pytest

from sequela.tokens.packing import Windows
from sequela.tokens.ragged import Ragged, offsets_of
from sequela.training.objectives.anchors import Records, anchors_of

MINUTES = np.array([0, 0, 10, 100, 0, 0])  # pad, start, two times, two events
ROWS = [
    np.array([1, 4, 2, 4, 5, 3, 5]),  # events at 0, 10, 10 and 110 minutes
    np.array([1, 2, 4, 4, 4]),  # one moment, at the end of the record
    np.array([1, 3, 2]),  # no event but the start
]


def records_of(rest=None, context=100):
    tokens = Ragged(np.concatenate(ROWS), offsets_of(np.array([len(row) for row in ROWS])))
    windows = Windows.of(tokens, np.array([1]), (), context)
    return Records(windows, MINUTES, None if rest is None else np.array(rest, np.int32))


def ends_of_moments(row, rest):
    """The last event of each moment after which time is known to pass: place, minutes of it and until the next."""
    times, events = np.cumsum(MINUTES[row]), [n for n, token in enumerate(row) if MINUTES[token] == 0]
    until = np.inf if rest < 0 else times[-1] + rest
    found = []
    for place, later in zip(events, [*events[1:], None], strict=True):
        gap = (until if later is None else times[later]) - times[place]
        if gap > 0:
            found.append((place, gap))
    return found


@pytest.mark.parametrize("rest", [[0, 0, 0], [30, 5, 1], [-1, -1, -1]])
def test_anchors_stand_at_ends_of_moments_and_before_what_comes_next(rest):
    records, row = records_of(rest), np.arange(3)
    seen = set()
    for seed in range(30):
        anchors = anchors_of(records, row, 50, np.random.default_rng(seed))
        place = 0
        for number, behind in enumerate(anchors.behind):
            expected = ends_of_moments(ROWS[number], rest[number])
            assert behind.tolist() == [last + 1 for last, _ in expected]
            for last, gap in expected:
                assert anchors.window[place] == number and anchors.last[place] == last
                assert 0 <= anchors.idle[place] < max(gap, 1) and (np.isfinite(gap) or anchors.idle[place] == 0)
                seen.add(int(anchors.idle[place]) > 0)
                place += 1
        assert place == len(anchors.idle)
    assert seen == {False, True}  # at the end of a moment, and later


def test_at_most_so_many_are_drawn_and_windows_have_their_own():
    records = records_of([50, 50, 50])
    row = np.array([2, 0, 0])  # in any order, and again
    anchors = anchors_of(records, row, 1, np.random.default_rng(0))
    assert [len(behind) for behind in anchors.behind] == [1, 1, 1] and anchors.window.tolist() == [0, 1, 2]
    both = anchors_of(records, row, 3, np.random.default_rng(0))
    assert [len(behind) for behind in both.behind][1:] == [3, 3] and (np.diff(both.behind[1]) > 0).all()


def test_of_a_window_only_its_own_events_are_anchors():
    records = records_of([0, 0, 0], context=4)
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
    assert records_of([30, -1, 0]).timed(0).until == 140 and records_of([30, -1, 0]).timed(1).until == np.inf
    silent = records_of().timed(0)
    assert silent.until == 110 and silent.events.tolist() == [0, 1, 3, 4, 6]
    assert silent.minutes.tolist() == [0, 0, 10, 10, 10, 110, 110]
