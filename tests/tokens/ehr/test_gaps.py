import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import sequela.tokens.ehr.bins as bins
from sequela.tokens.ehr.gaps import GapCounts

shard = st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 5000)), max_size=30)


def of(pairs):
    interval, rest = np.array(pairs, np.int64).reshape(-1, 2).T
    return GapCounts.of(interval, rest, 3)


def same(one, other):
    arrays = ("code", "cell", "count", "level")
    assert one.total.tolist() == other.total.tolist() and one.number.tolist() == other.number.tolist()
    assert all(getattr(one.rests, name).tolist() == getattr(other.rests, name).tolist() for name in arrays)


@given(st.lists(shard, min_size=1, max_size=4), st.integers(1, 20))
def test_shards_merge_to_the_same_counts_in_any_order_and_grouping(shards, cells):
    before, bins.CELLS = bins.CELLS, cells
    try:
        parts, whole = [of(pairs) for pairs in shards], of([pair for pairs in shards for pair in pairs])
        same(GapCounts.merge(parts), whole)
        same(GapCounts.merge([GapCounts.merge(parts[1:][::-1] or parts), *parts[:1]][: len(parts)]), whole)
        assert len(whole.rests.cell) <= 3 * cells
    finally:
        bins.CELLS = before


def test_what_is_saved_is_what_is_loaded(tmp_path):
    counts = of([(0, 3), (0, 3), (2, 40), (-1, 0)])
    counts.save(tmp_path / "gaps.npz")
    same(GapCounts.load(tmp_path / "gaps.npz"), counts)
    assert counts.total.tolist() == [6, 0, 40] and counts.number.tolist() == [2, 0, 1]


def test_quantiles_are_those_of_the_gaps_also_of_more_than_are_kept_apart():
    rest = np.random.default_rng(0).integers(43_200, 259_200, 100_000)
    counts = GapCounts.of(np.zeros(len(rest), np.int64), rest, 1)
    assert len(counts.rests.cell) <= bins.CELLS
    at = np.array([0.1, 0.5, 0.9])
    assert np.abs(counts.quantiles(at)[0] / np.quantile(rest, at) - 1).max() < 0.003
