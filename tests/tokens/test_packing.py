import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sequela.tokens.packing import Windows, best_fit, collate, newest
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
    assert rows.patient.tolist() == [0, 0, 0, 1]
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


@given(st.lists(st.integers(3, 40), min_size=1, max_size=12), st.sampled_from([1, 8]), st.booleans())
def test_a_row_is_its_windows_one_after_another(sizes, multiple, rotary):
    """The loop over tokens is the oracle."""
    rows = Ragged.of([patient(size) for size in sizes])
    clock = Ragged.of([np.arange(size) * 45 for size in sizes]) if rotary else None
    windows = Windows.of(rows, HEAD, AGES, 12, clock)
    row = np.random.default_rng(0).permutation(len(windows))
    batch = collate(windows, row, multiple)
    ids, positions, segments, targets = [], [], [], []
    for number, window in enumerate(row):
        one, places = windows[window], windows.positions(window)
        for at in range(len(one)):
            ids.append(one[at])
            positions.append(places[at])
            segments.append(number)
            targets.append(one[at + 1] if at + 1 < len(one) else -1)
    padding = -len(ids) % multiple
    assert batch.ids.tolist() == [ids + [0] * padding]
    assert batch.positions.tolist() == [positions + [0] * padding]
    assert batch.segments.tolist() == [segments + [-1] * padding]
    assert batch.targets.tolist() == [targets + [-1] * padding]


@given(st.integers(4, 60), st.integers(5, 40))
def test_newest_is_never_longer_than_asked(size, length):
    row = newest(np.array(patient(size)), HEAD, AGES, length)
    assert len(row) <= length and row[-1] == patient(size)[-1] and row[:2].tolist() == [1, 2]
