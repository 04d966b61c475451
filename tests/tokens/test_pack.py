import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sequela.tokens.pack import Windows, best_fit, collate, epoch, newest
from sequela.tokens.ragged import Ragged

HEAD, AGES = np.array([1, 2]), (np.array([10, 11, 12]),)


def patient(length):
    """BOS, sex, age 10, then events 20, 21, ..; ages 11 and 12 on the way."""
    ids = [1, 2, 10, *range(20, 20 + length - 3)]
    for place, age in ((8, 11), (15, 12)):
        if place < length:
            ids[place] = age
    return ids


def test_every_window_of_a_long_patient_opens_with_demographics_and_the_age_by_then():
    ids = patient(30)
    rows = Windows.of(Ragged.of([ids, patient(5)]), HEAD, AGES, 12)
    assert rows.lengths.tolist() == [len(rows[row]) for row in range(len(rows))]
    assert [row.tolist() for row in map(rows.__getitem__, range(len(rows)))] == [
        ids[:12],
        [1, 2, 11, *ids[12:21]],
        [1, 2, 12, *ids[21:30]],
        patient(5),
    ]


def test_newest_keeps_the_last_events_behind_the_demographics():
    ids = np.array(patient(30))
    assert newest(ids, HEAD, AGES, 10).tolist() == [1, 2, 12, *ids[23:].tolist()]
    assert newest(ids, HEAD, AGES, 30).tolist() == ids.tolist()


@given(st.lists(st.integers(1, 50), min_size=1, max_size=300))
def test_best_fit_places_everyone_once_and_never_overfills(lengths):
    bins = best_fit(np.array(lengths), 50)
    assert sorted(i for one in bins for i in one) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in one) <= 50 for one in bins)


def test_packing_wastes_under_two_percent():
    lengths = np.random.default_rng(0).integers(20, 200, 5000)
    assert lengths.sum() / (len(best_fit(lengths, 1024)) * 1024) > 0.98


def test_an_epoch_has_every_patient_once_in_an_order_of_its_seed():
    tokens = Ragged.of([patient(n) for n in range(4, 40)])
    orders = [epoch(tokens, 64, 2, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    flat = [[p for batch in one for row in batch for p in row] for one in orders]
    assert sorted(flat[0]) == list(range(36))
    assert flat[0] == flat[1] != flat[2]


def test_targets_are_the_next_token_of_the_same_patient():
    tokens = Windows.of(Ragged.of([[1, 5, 6], [1, 7]]), HEAD, AGES, 6)
    batch = collate(tokens, [[0, 1], [1]], 6)
    assert batch.ids.tolist() == [[1, 5, 6, 1, 7, 0], [1, 7, 0, 0, 0, 0]]
    assert batch.targets.tolist() == [[5, 6, -1, 7, -1, -1], [7, -1, -1, -1, -1, -1]]
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1, 0], [0, 1, 0, 0, 0, 0]]
    assert batch.segments.tolist() == [[0, 0, 0, 1, 1, -1], [0, 0, -1, -1, -1, -1]]


@given(st.integers(4, 60), st.integers(5, 40))
def test_newest_is_never_longer_than_asked(size, length):
    row = newest(np.array(patient(size)), HEAD, AGES, length)
    assert len(row) <= length and row[-1] == patient(size)[-1] and row[:2].tolist() == [1, 2]
