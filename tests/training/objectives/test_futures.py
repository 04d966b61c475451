"""Anchors and what comes after them, against a count by hand of every token."""

from dataclasses import replace

import numpy as np
import pytest

from sequela.tokens.packing import Windows
from sequela.tokens.ragged import Ragged, offsets_of
from sequela.training.objectives.anchors import Records, anchors_of
from sequela.training.objectives.futures import (
    FutureSampling,
    anything_ahead,
    chains_of,
    done_in,
    packed,
    pairs_of,
)

DAY = 24 * 60
MINUTES = np.array([0, 0, 10 * DAY, 100 * DAY, 0, 0, 0])  # pad, start, two times, three events
SAMPLING = FutureSampling(np.array([[0, 30], [30, 365]]) * DAY, share=100.0)


def records_of(rows, rest, context=1000):
    tokens = Ragged(np.concatenate(rows), offsets_of(np.array([len(row) for row in rows])))
    windows = Windows.of(tokens, np.array([1]), (), context)
    return Records(windows, MINUTES, np.array(rest))


@pytest.fixture
def rows():
    random = np.random.default_rng(0)
    return [np.concatenate([[1], random.choice([2, 2, 3, 4, 5, 6], 60), [4]]) for _ in range(30)]


def drawn(records, row, sampling=SAMPLING, most=50, seed=1):
    random = np.random.default_rng(seed)
    anchors = anchors_of(records, row, most, random)
    return anchors, pairs_of(records, row, anchors, sampling, random)


def naive(ids, anchor, low, high):
    """The tokens from the first to the last event in the horizon, one by one."""
    time, inside = 0, []
    for place, token in enumerate(ids):
        time += MINUTES[token]
        if MINUTES[token] == 0 and anchor + low < time <= anchor + high:
            inside.append(place)
    return ids[inside[0] : inside[-1] + 1] if inside else None


@pytest.mark.parametrize("context", [1000, 25])
def test_futures_are_what_comes_within_the_horizon(rows, context):
    records = records_of(rows, [400 * DAY] * 30, context)
    row = np.arange(len(records.windows))
    anchors, pairs = drawn(records, row)
    pair_of = {int(anchor): pair for pair, anchor in enumerate(pairs.anchor)}
    futures = {int(pair): pairs.futures[number] for number, pair in enumerate(pairs.pair)}
    number, idle = 0, 0
    for window, behind in zip(row, anchors.behind, strict=True):
        ids = rows[records.windows.patient[window]]
        for count in behind:
            place = records.windows.start[window] + count - records.windows.fronts.lengths[window] - 1
            assert records.windows[window][count - 1] == ids[place] and MINUTES[ids[place]] == 0
            now = MINUTES[ids[: place + 1]].sum()
            later = [n for n in range(place + 1, len(ids)) if MINUTES[ids[n]] == 0]
            following = MINUTES[ids[: later[0] + 1]].sum() if later else now + 400 * DAY
            assert 0 <= anchors.idle[number] < following - now  # the end of a moment, or before the next one
            idle += anchors.idle[number] > 0
            number += 1
            if number - 1 not in pair_of:
                assert MINUTES[ids].sum() + 400 * DAY - now - anchors.idle[number - 1] < 30 * DAY
                continue
            pair = pair_of[number - 1]
            low, high = SAMPLING.spans[pairs.horizon[pair]]
            expected = naive(ids, now + anchors.idle[number - 1], low, high)
            assert pairs.came[pair] == (expected is not None)
            if expected is not None:
                np.testing.assert_array_equal(futures.pop(pair), expected)
    assert number > 300 and len(pairs.anchor) > 0.9 * number and not futures
    assert 0.3 < idle / number < 0.7 and 0.1 < pairs.came.mean() < 1


def test_what_the_record_does_not_cover_is_not_asked(rows):
    places, cut = drawn(records_of(rows, [0] * 30), np.arange(30))
    for behind, row in zip(places.behind, rows, strict=True):
        left = [MINUTES[row[count:]].sum() for count in behind]
        assert min(left, default=DAY) > 0  # nothing is known of the last moment
    longest = SAMPLING.spans[1, 1]
    for anchor, horizon in zip(cut.anchor, cut.horizon, strict=True):
        row, last = rows[places.window[anchor]], places.last[anchor]
        left = MINUTES[row[last + 1 :]].sum() - places.idle[anchor]
        assert left >= SAMPLING.spans[horizon, 1]
    assert len(cut.anchor) < len(places.last) and longest in SAMPLING.spans[cut.horizon, 1]
    late, died = drawn(records_of(rows, [-1] * 30), np.arange(30))
    assert len(died.anchor) == len(late.last) > len(places.last)  # after death all is known
    assert any(len(row) in behind for behind, row in zip(late.behind, rows, strict=True))


def test_the_budget_holds_and_the_same_seed_draws_the_same(rows):
    records, row = records_of(rows, [400 * DAY] * 30), np.arange(30)
    small = replace(SAMPLING, longest=8, share=0.1)
    (places, one), (_, two) = (drawn(records, row, small, 3, 3) for _ in range(2))
    assert len(one.futures.flat) <= 0.1 * records.windows.lengths.sum() and one.futures.lengths.max() <= 8
    assert all(len(behind) <= 3 for behind in places.behind)
    np.testing.assert_array_equal(one.futures.flat, two.futures.flat)
    _, other = drawn(records, row, small, 3, 4)
    assert not np.array_equal(one.futures.flat, other.futures.flat)  # negative control


def test_futures_stand_side_by_side():
    batch = packed(Ragged(np.array([4, 5, 6]), np.array([0, 2, 3])), 8)
    assert batch.ids.tolist() == [[4, 5, 6, 0, 0, 0, 0, 0]]
    assert batch.positions[0, :3].tolist() == [0, 1, 0]
    assert batch.segments.tolist() == [[0, 0, 1, -1, -1, -1, -1, -1]]


def naive_windows(ids, now, spans):
    return [naive(ids, now, low, high) for low, high in spans]


def test_windows_in_a_row_are_each_what_comes_within_it(rows):
    records, row = records_of(rows, [400 * DAY] * 30), np.arange(30)
    anchors = anchors_of(records, row, 9, np.random.default_rng(1))
    spans = np.array([[-30, 0], [0, 30], [30, 60]]) * DAY
    chains = chains_of(records, row, anchors, FutureSampling(spans, share=100.0), np.random.default_rng(2))
    places = zip(chains.chain.tolist(), chains.window.tolist(), strict=True)
    found = {place: chains.futures[number] for number, place in enumerate(places)}
    assert len(chains.anchor) > 100 and {window for _, window in found} == {0, 1, 2}
    for chain, number in enumerate(chains.anchor):
        ids, last = rows[anchors.window[number]], anchors.last[number]
        now = MINUTES[ids[: last + 1]].sum() + anchors.idle[number]
        assert now + 60 * DAY <= MINUTES[ids].sum() + 400 * DAY
        for window, expected in enumerate(naive_windows(ids, now, spans)):
            assert ((chain, window) in found) == (expected is not None)
            if expected is not None:
                np.testing.assert_array_equal(found[chain, window], expected)
    few = chains_of(records, row, anchors, FutureSampling(spans, share=0.2), np.random.default_rng(2))
    assert 0 < len(few.futures.flat) <= 0.2 * records.windows.lengths.sum() and len(few.anchor) < len(chains.anchor)
    lost = chains_of(records_of(rows, [0] * 30), row, anchors, FutureSampling(spans), np.random.default_rng(2))
    assert len(lost.anchor) < len(chains.anchor)  # what the record does not cover is not asked


def test_what_is_done_within_a_window_and_nothing_else(rows):
    records, row = records_of(rows, [400 * DAY] * 30), np.arange(30)
    anchors = anchors_of(records, row, 9, np.random.default_rng(1))
    number = np.arange(len(anchors.last))
    spans = np.broadcast_to(np.array([0, 30 * DAY]), (len(number), 2))
    action = np.isin(np.arange(len(MINUTES)), [5, 6])
    done = done_in(records, row, anchors, (number, spans), action)
    for each in number:
        ids = rows[anchors.window[each]]
        now = MINUTES[ids[: anchors.last[each] + 1]].sum() + anchors.idle[each]
        inside = naive(ids, now, 0, 30 * DAY)
        expected = [] if inside is None else [token for token in inside if token in (5, 6)]
        assert done[each].tolist() == expected
    assert 0.2 < (done.lengths > 0).mean() < 1


def test_whether_anything_lies_ahead_is_known_exactly():
    """Against every minute of small records."""
    random, minutes = np.random.default_rng(0), np.array([0, 0, 3, 10, 0])
    outcomes = []
    for _ in range(60):
        ids = np.concatenate([[1], random.choice([2, 3, 4], random.integers(1, 6))])
        rest = int(random.choice([-1, 0, 2, 15]))
        low, high = sorted(random.choice(12, 2, replace=False))
        tokens = Ragged(ids, np.array([0, len(ids)]))
        records = Records(Windows.of(tokens, np.array([1]), (), 99), minutes, np.array([rest]))
        time = np.cumsum(minutes[ids])
        until = np.inf if rest < 0 else time[-1] + rest
        events = time[minutes[ids] == 0]
        expected = any(
            now + high <= until and ((events > now + low) & (events <= now + high)).any()
            for now in range(events[0], events[-1])
        )
        assert anything_ahead(records, np.array([[low, high]])) == expected
        outcomes.append(expected)
    assert 0.2 < np.mean(outcomes) < 0.8
