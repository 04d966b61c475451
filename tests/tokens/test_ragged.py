import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sequela.tokens.ragged import Ragged, StackedRows, TokenColumn, interleave, within

rows = st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=3, max_size=3)


def times(cells):
    """Every row, the row's number as its token, as often as the row has cells."""
    return TokenColumn(np.arange(3), np.arange(3), np.array([len(row) for row in cells]))


@given(st.lists(rows, min_size=1, max_size=4), st.sets(st.integers(0, 2)))
def test_interleave_joins_row_by_row(columns, some):
    chosen = np.array(sorted(some), int)
    joined = interleave([*map(times, columns), TokenColumn(np.array([7, 8, 9])), TokenColumn(5, chosen)], 3)
    for r in range(3):
        repeated = [r for column in columns for _ in column[r]]
        assert joined[r].tolist() == [*repeated, 7 + r, *([5] if r in some else [])]


@given(rows, st.lists(st.integers(0, 2), max_size=6))
def test_take_repeats_and_reorders_rows(items, chosen):
    taken = Ragged.of(items).take(np.array(chosen, int))
    assert [taken[i].tolist() for i in range(len(chosen))] == [items[c] for c in chosen]


@given(st.lists(st.lists(st.lists(st.integers(0, 9), max_size=3), max_size=3), max_size=4))
def test_stacked_rows_are_those_of_the_parts_one_after_another(parts):
    stacked = StackedRows(tuple(Ragged.of(part) for part in parts))
    every = [row for part in parts for row in part]
    assert [stacked[row].tolist() for row in range(len(stacked))] == every
    assert stacked.lengths.tolist() == [len(row) for row in every]


def test_within_counts_each_row_from_zero():
    assert within(np.array([1, 3, 0, 2])).tolist() == [0, 0, 1, 2, 0, 1]
