import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sequela.tokens.ragged import Ragged, interleave, optional, within

rows = st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=3, max_size=3)


@given(st.lists(rows, min_size=1, max_size=4))
def test_interleave_joins_row_by_row(columns):
    joined = interleave([Ragged.of(column) for column in columns])
    for r in range(3):
        assert joined[r].tolist() == [x for column in columns for x in column[r]]


@given(rows, st.lists(st.integers(0, 2), max_size=6))
def test_take_repeats_and_reorders_rows(items, chosen):
    taken = Ragged.of(items).take(np.array(chosen, int))
    assert [taken[i].tolist() for i in range(len(chosen))] == [items[c] for c in chosen]


def test_optional_drops_negative_values():
    assert [row.tolist() for row in map(optional(np.array([5, -1, 0])).__getitem__, range(3))] == [
        [5],
        [],
        [0],
    ]


def test_within_counts_each_row_from_zero():
    assert within(np.array([1, 3, 0, 2])).tolist() == [0, 0, 1, 2, 0, 1]
