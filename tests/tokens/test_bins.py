import numpy as np
import polars as pl

from sequela.tokens.bins import Bins


def frame(**values):
    return pl.DataFrame({
        "code": [code for code, x in values.items() for _ in x],
        "numeric_value": pl.Series(np.concatenate(list(values.values())), dtype=pl.Float32),
    })  # fmt: skip


def test_ten_bins_hold_a_tenth_each():
    x = np.random.default_rng(0).lognormal(size=5000).astype(np.float32)
    bins = Bins.fit(frame(A=x), 10)
    which = bins.encode(np.zeros(5000, int), x)
    assert np.bincount(which).tolist() == [500] * 10


def test_a_centre_falls_into_its_own_bin_also_with_ties():
    x = np.repeat(np.array([0.1, 1.0, 1.7], np.float32), [70, 20, 10])
    bins = Bins.fit(frame(A=x, B=np.full(9, 0.3)), 10)
    for row, values in ((0, np.unique(x)), (1, np.array([0.3], np.float32))):
        which = bins.encode(np.full(len(values), row), values)
        centre = bins.centres[row, which].astype(np.float32)
        assert (bins.encode(np.full(len(values), row), centre) == which).all()
        assert np.allclose(centre, values)  # fewer than ten distinct values: nothing is lost


def test_no_value_and_unknown_codes_have_no_bin():
    bins = Bins.fit(frame(A=np.arange(10)), 10)
    assert bins.encode(np.array([0, -1]), np.array([np.nan, 3.0])).tolist() == [-1, -1]
