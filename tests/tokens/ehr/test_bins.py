import numpy as np

from sequela.tokens.ehr.bins import Bins
from sequela.tokens.ehr.values import Values


def fit(quantiles, **values):
    code = np.repeat(np.arange(len(values)), [len(x) for x in values.values()])
    counted = Values.of(
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
        centre = bins.centres[row, which].astype(np.float32)
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
