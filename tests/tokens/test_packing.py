import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sequela.tokens.packing import Windows, best_fit, collate, newest
from sequela.tokens.ragged import Ragged
from sequela.tokens.vocabulary import PAD

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


@pytest.mark.parametrize("multiple", [1, 8])
@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_places_aside_stand_behind_tokens_and_leave_these_as_they_are(multiple, rotary, seed):
    """The loop over tokens is the oracle."""
    random = np.random.default_rng(seed)
    sizes = random.integers(3, 40, 1 + 3 * seed)
    clock = Ragged.of([np.arange(size) * 45 for size in sizes]) if rotary else None
    windows = Windows.of(Ragged.of([patient(size) for size in sizes]), HEAD, AGES, 12, clock)
    row = random.permutation(len(windows))
    behind = [np.sort(random.integers(1, windows.lengths[w] + 1, random.integers(0, 5))) for w in row]
    batch = collate(windows, row, multiple, behind)
    expected = []  # id, position, segment, target, aside
    for number, (window, after) in enumerate(zip(row, behind, strict=True)):
        ids, positions = windows[window], windows.positions(window)
        for at in range(len(ids)):
            target = ids[at + 1] if at + 1 < len(ids) else -1
            expected.append((ids[at], positions[at], number, target, False))
            expected += [(PAD, positions[at] + 1, number, -1, True)] * (after == at + 1).sum()
    expected += [(PAD, 0, -1, -1, False)] * (-len(expected) % multiple)
    made = (batch.ids, batch.positions, batch.segments, batch.targets, batch.aside)
    for array, values in zip(made, zip(*expected, strict=True), strict=True):
        assert array.tolist() == [list(values)]
    assert all(array.dtype == np.int64 for array in made[:4])
    plain = collate(windows, row, multiple)
    for name in ("ids", "positions", "segments", "targets"):
        kept = getattr(batch, name)[(batch.segments >= 0) & ~batch.aside]
        assert kept.tolist() == getattr(plain, name)[plain.segments >= 0].tolist()


def test_a_row_may_have_no_places_aside():
    windows = Windows.of(Ragged.of([patient(9)]), HEAD, AGES, 12)
    assert collate(windows, [0]).aside is None
    none = collate(windows, [0], behind=[np.zeros(0, np.int64)])
    assert none.aside.shape == (1, 16) and not none.aside.any()


@pytest.mark.parametrize(
    "behind, what",
    [
        ([[0], []], "1 to all"),
        ([[5], [10]], "1 to all"),
        ([[5]], "every window"),
        ([[5, 4], []], "ascending"),
    ],
)
def test_places_aside_that_no_window_has_are_our_mistake(behind, what):
    windows = Windows.of(Ragged.of([patient(5), patient(9)]), HEAD, AGES, 12)
    with pytest.raises(ValueError, match=what):
        collate(windows, [0, 1], behind=[np.array(places, np.int64) for places in behind])


@given(st.integers(4, 60), st.integers(5, 40))
def test_newest_is_never_longer_than_asked(size, length):
    row = newest(np.array(patient(size)), HEAD, AGES, length)
    assert len(row) <= length and row[-1] == patient(size)[-1] and row[:2].tolist() == [1, 2]
