import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sequela.tokens.ehr import bins as module
from sequela.tokens.ehr.bins import Bins, ValueCounts


def fit(quantiles, **values):
    code = np.repeat(np.arange(len(values)), [len(x) for x in values.values()])
    counted = ValueCounts.of(
        code.astype(np.int32), np.concatenate(list(values.values())).astype(np.float32), len(values)
    )
    return Bins.fit(tuple(values), counted, quantiles)


def test_ten_bins_hold_a_tenth_each():
    x = np.random.default_rng(0).lognormal(size=4000).astype(np.float32)
    bins = fit(10, A=x)
    which = bins.encode(np.zeros(4000, int), x)
    assert np.bincount(which).tolist() == [400] * 10


def test_a_centre_falls_into_its_own_bin_also_with_ties():
    x = np.repeat(np.array([0.1, 1.0, 1.7], np.float32), [70, 20, 10])
    bins = fit(10, A=x, B=np.full(9, 0.3))
    for row, values in ((0, np.unique(x)), (1, np.array([0.3], np.float32))):
        which = bins.encode(np.full(len(values), row), values)
        centre = bins.centers[row, which].astype(np.float32)
        assert (bins.encode(np.full(len(values), row), centre) == which).all()
        assert np.allclose(centre, values)  # fewer than ten distinct values: nothing is lost


def test_no_value_and_unknown_codes_have_no_bin():
    bins = fit(10, A=np.arange(10))
    assert bins.encode(np.array([0, -1]), np.array([np.nan, 3.0])).tolist() == [-1, -1]


def test_cut_points_are_the_quantiles_of_the_values():
    x = np.random.default_rng(1).normal(size=3001).astype(np.float32)
    bins = fit(10, A=x, B=np.round(x, 1))
    for row, values in enumerate((x, np.round(x, 1))):
        assert np.allclose(
            bins.cuts[row], np.quantile(values.astype(float), np.arange(1, 10) / 10), rtol=1e-12
        )


def test_a_value_on_a_cut_belongs_below_it_as_in_the_comparison_of_doubles():
    x = np.round(np.random.default_rng(2).normal(size=997), 1).astype(np.float32)
    bins = fit(7, A=x)
    naive = (bins.cuts[0] < x[:, None].astype(float)).sum(1)
    assert (bins.encode(np.zeros(997, int), x) == naive).all()
    assert not (bins.encode(np.zeros(997, int), np.nextafter(x, np.float32(9))) == naive).all()  # ties matter


number = st.floats(allow_nan=False, allow_infinity=False, width=32)
counted = st.lists(st.tuples(st.integers(0, 2), number), max_size=60)


def of(pairs):
    code, x = zip(*pairs, strict=True) if pairs else ((), ())
    return ValueCounts.of(np.array(code, np.int32), np.array(x, np.float32), 3)


def same(one, other):
    return all(
        getattr(one, name).tolist() == getattr(other, name).tolist()
        for name in ("code", "cell", "count", "level")
    )


@given(counted)
def test_few_values_are_counted_exactly(pairs):
    got = of(pairs)
    assert sorted(zip(got.code.tolist(), got.numbers().tolist(), got.count.tolist(), strict=True)) == sorted(
        (code, x, sum(pair == (code, x) for pair in pairs)) for code, x in set(pairs)
    )


@settings(max_examples=200, deadline=None)
@given(st.lists(counted, min_size=1, max_size=4), st.integers(1, 20))
def test_shards_merge_to_the_same_counts_in_any_order_and_grouping(shards, cells):
    before, module.CELLS = module.CELLS, cells
    try:
        rows = [np.arange(3)] * len(shards)
        parts = [of(shard) for shard in shards]
        whole = of([pair for shard in shards for pair in shard])
        assert same(ValueCounts.merge(parts, rows, 3), whole)
        assert same(ValueCounts.merge(parts[::-1], rows, 3), whole)
        left = parts[0]
        for part in parts[1:]:
            left = ValueCounts.merge([left, part], rows[:2], 3)
        assert same(left, whole)
        assert np.bincount(whole.code, minlength=3).max() <= cells
    finally:
        module.CELLS = before


def test_many_values_keep_their_quantiles_within_the_cell():
    x = np.random.default_rng(0).lognormal(3, 1, 200_000).astype(np.float32)
    got = ValueCounts.of(np.zeros(len(x), np.int32), x, 1)
    assert len(got.cell) <= module.CELLS and got.count.sum() == len(x) and got.level[0] > 0
    upto = np.cumsum(got.count) / len(x)
    for share in (0.1, 0.5, 0.9):
        estimate = got.numbers()[np.searchsorted(upto, share)]
        assert abs(estimate / np.quantile(x, share) - 1) < 2.0 ** (int(got.level[0]) - 22)


def test_zero_has_one_cell_and_order_is_that_of_the_numbers():
    got = of([(0, 0.0), (0, -0.0), (0, -2.5), (0, 3.0), (0, -1e-30)])
    assert got.numbers().tolist() == [-2.5, np.float32(-1e-30), 0.0, 3.0] and got.count.tolist() == [
        1,
        1,
        2,
        1,
    ]
