from fractions import Fraction
from itertools import chain

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import sequela.tokens.ehr.bins as bins
from sequela.tokens.ehr.clock import Intervals
from sequela.tokens.ehr.gaps import PARTS, GapCounts

pairs = st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 5000)), max_size=30)
shard = st.tuples(pairs, pairs, st.integers(0, 5))


def of(part):
    completed, cut, longest = part
    return GapCounts.of(*(np.array(kind, np.int64).reshape(-1, 2).T for kind in (completed, cut)), longest, 3)


def together(shards):
    completed, cut, longest = zip(*shards, strict=True)
    return [*chain(*completed)], [*chain(*cut)], sum(longest)


def same(one, other):
    assert one.total.tolist() == other.total.tolist() and one.number.tolist() == other.number.tolist()
    assert one.longest == other.longest
    for mine, theirs in ((one.rests, other.rests), (one.cut, other.cut)):
        assert all(getattr(mine, name).tolist() == getattr(theirs, name).tolist() for name in PARTS)
    at = np.linspace(0.01, 0.99, 50)
    np.testing.assert_array_equal(one.quantiles(at), other.quantiles(at))


@given(st.lists(shard, min_size=1, max_size=4), st.integers(1, 20))
def test_shards_merge_to_the_same_counts_in_any_order_and_grouping(shards, cells):
    before, bins.CELLS = bins.CELLS, cells
    try:
        parts, whole = [of(part) for part in shards], of(together(shards))
        same(GapCounts.merge(parts), whole)
        same(GapCounts.merge([GapCounts.merge(parts[1:][::-1] or parts), *parts[:1]][: len(parts)]), whole)
        assert max(len(whole.rests.cell), len(whole.cut.cell)) <= 3 * cells
    finally:
        bins.CELLS = before


def test_what_is_saved_is_what_is_loaded(tmp_path):
    counts = of(([(0, 3), (0, 3), (2, 40), (-1, 0)], [(0, 2), (1, 9)], 7))
    counts.save(tmp_path / "gaps.npz")
    same(GapCounts.load(tmp_path / "gaps.npz"), counts)
    assert counts.total.tolist() == [6, 0, 40] and counts.number.tolist() == [2, 0, 1]


def test_quantiles_are_those_of_the_gaps_also_of_more_than_are_kept_apart():
    rest = np.random.default_rng(0).integers(43_200, 259_200, 100_000)
    none = np.zeros(0, np.int64), np.zeros(0, np.int64)
    counts = GapCounts.of((np.zeros(len(rest), np.int64), rest), none, 0, 1)
    assert len(counts.rests.cell) <= bins.CELLS
    at = np.array([0.1, 0.5, 0.9])
    assert np.abs(counts.quantiles(at)[0] / np.quantile(rest, at) - 1).max() < 0.003


def kaplan_meier(gaps, cut, lower, upper, at):
    """The quantiles of gaps in [lower, upper), straight from the definition."""
    longest = 1000
    ends = [gap % longest for gap in gaps]
    censored = [gap % longest for gap in cut] + [longest] * (sum(gap // longest for gap in gaps + cut))
    survival, steps = Fraction(1), []
    for minute in sorted(set(ends)):
        risk = sum(end >= minute for end in ends + censored)
        before, survival = survival, survival * (1 - Fraction(ends.count(minute), risk))
        if lower <= minute < upper:
            steps.append((minute, before, survival))
    if not steps:
        return [np.nan] * len(at)
    start, end = steps[0][1], steps[-1][2]
    return [next(minute for minute, _, left in steps if (start - left) / (start - end) >= share) for share in at]


minutes = st.lists(st.integers(0, 2500) | st.sampled_from([20, 30, 200, 1020]), max_size=40)


@given(minutes, minutes)
def test_quantiles_are_those_of_kaplan_meier_within_each_class(gaps, cut):
    intervals, at = Intervals.guess((10, 100, 1000)), np.array([0.0471, 0.2187, 0.5113, 0.7771, 0.9719])
    counts = intervals.count(np.array(gaps, np.int64), np.array(cut, np.int64))
    for row, (lower, upper) in enumerate(((10, 100), (100, 1000))):
        np.testing.assert_array_equal(counts.quantiles(at)[row], kaplan_meier(gaps, cut, lower, upper, at))


@given(st.lists(st.integers(10, 99), min_size=1, max_size=600), st.lists(st.integers(0, 9), max_size=5))
def test_without_a_gap_cut_off_in_the_class_they_are_those_of_the_completed_gaps(gaps, before):
    """To the bit: also where a quantile falls on the boundary of two gaps."""
    counts = Intervals.guess((10, 100, 1000)).count(np.array(gaps), np.array(before, np.int64))
    at = np.append((np.arange(256) + 0.5) / 256, [0.25, 0.5, 0.75])
    upto = np.arange(1, len(gaps) + 1)
    assert counts.quantiles(at)[0].tolist() == np.sort(gaps)[np.searchsorted(upto, at * len(gaps))].tolist()
