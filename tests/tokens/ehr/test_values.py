import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sequela.tokens.ehr import values
from sequela.tokens.ehr.values import Values

number = st.floats(allow_nan=False, allow_infinity=False, width=32)
counted = st.lists(st.tuples(st.integers(0, 2), number), max_size=60)


def of(pairs):
    code, x = zip(*pairs, strict=True) if pairs else ((), ())
    return Values.of(np.array(code, np.int32), np.array(x, np.float32), 3)


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


@settings(max_examples=200)
@given(st.lists(counted, min_size=1, max_size=4), st.integers(1, 20))
def test_shards_merge_to_the_same_counts_in_any_order_and_grouping(shards, cells):
    before, values.CELLS = values.CELLS, cells
    try:
        rows = [np.arange(3)] * len(shards)
        parts = [of(shard) for shard in shards]
        whole = of([pair for shard in shards for pair in shard])
        assert same(Values.merge(parts, rows, 3), whole)
        assert same(Values.merge(parts[::-1], rows, 3), whole)
        left = parts[0]
        for part in parts[1:]:
            left = Values.merge([left, part], rows[:2], 3)
        assert same(left, whole)
        assert np.bincount(whole.code, minlength=3).max() <= cells
    finally:
        values.CELLS = before


def test_many_values_keep_their_quantiles_within_the_cell():
    x = np.random.default_rng(0).lognormal(3, 1, 200_000).astype(np.float32)
    got = Values.of(np.zeros(len(x), np.int32), x, 1)
    assert len(got.cell) <= values.CELLS and got.count.sum() == len(x) and got.level[0] > 0
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
