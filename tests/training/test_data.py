import io
import tarfile
import threading
import time
import tracemalloc

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sequela.model.attention import Masked
from sequela.tokens.packing import Windows, collate
from sequela.tokens.ragged import Ragged, offsets_of
from sequela.training.data import AHEAD, ROWS_PER_STRETCH, Ends, Sampler, alone, feed, inputs, spread


def stream(lengths, **changed):
    lengths = np.asarray(lengths)
    chosen = {"row_tokens": 64, "rows_per_step": 3, "total_tokens": 2 * int(lengths.sum())} | changed
    return Sampler(lengths, **chosen)


def plain(steps):
    return [([row.tolist() for row in step.rows], step.tokens, step.after) for step in steps]


SHORT = st.lists(st.integers(1, 50), min_size=1, max_size=400)


@given(SHORT, st.integers(1, 5), st.integers(0, 99), st.integers(0, 60))
def test_stopping_anywhere_and_going_on_is_the_same_stream(lengths, rows_per_step, seed, stop):
    whole = plain(stream(lengths, rows_per_step=rows_per_step, seed=seed))
    first = stream(lengths, rows_per_step=rows_per_step, seed=seed)
    begun = [step for _, step in zip(range(min(stop, len(whole))), first, strict=False)]
    later = stream(lengths, rows_per_step=rows_per_step, seed=seed)
    later.start_at(begun[-1].after if begun else first.state())
    assert plain(begun) + plain(later) == whole


@given(SHORT, st.integers(1, 5), st.integers(0, 99))
def test_every_epoch_holds_every_window_once(lengths, rows_per_step, seed):
    steps = list(stream(lengths, rows_per_step=rows_per_step, seed=seed))
    rows = [row for step in steps for row in step.rows]
    assert all(sum(lengths[w] for w in row) <= 64 for row in rows)
    assert all(len(step.rows) == rows_per_step for step in steps[:-1])
    flat, number = [w for row in rows for w in row], len(lengths)
    assert sorted(flat[:number]) == sorted(flat[number:]) == list(range(number))
    assert [step.tokens for step in steps[1:]] == [step.after["tokens"] for step in steps[:-1]]
    assert steps[-1].after["tokens"] == 2 * sum(lengths)


def test_epochs_and_seeds_differ_in_their_order():
    lengths = np.full(300, 10)
    flat = [
        [w for step in stream(lengths, seed=seed) for row in step.rows for w in row] for seed in (0, 0, 1)
    ]
    assert flat[0] == flat[1] != flat[2]
    assert flat[0][:300] != flat[0][300:]


def test_the_run_ends_with_the_row_that_fills_it():
    lengths = np.full(100, 10)
    steps = list(stream(lengths, total_tokens=250))
    assert [len(step.rows) for step in steps] == [3, 2]
    assert steps[-1].after["tokens"] == 300


def test_a_window_that_fits_no_row_is_our_mistake():
    with pytest.raises(ValueError, match="1 to 64"):
        stream([10, 65])


def test_no_epoch_is_ever_held_as_objects():
    """A window costs the 8 bytes of its place in the order; as lists of numbers it would cost 40 and more."""
    lengths = np.full(2_000_000, 30)
    batches = stream(lengths, row_tokens=4096)
    next(batches)
    tracemalloc.start()
    again = stream(lengths, row_tokens=4096)
    next(again)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    stretch = ROWS_PER_STRETCH * 4096 / 30
    assert peak < 8 * len(lengths) + 500 * stretch < 20 * len(lengths)


def wasted(lengths, row_tokens):
    """Share of rows of `row_tokens` that no token fills, over one epoch."""
    steps = stream(lengths, row_tokens=row_tokens, rows_per_step=1, total_tokens=int(lengths.sum()))
    return 1 - lengths.sum() / (row_tokens * sum(len(step.rows) for step in steps))


def cut(lengths, context):
    """Tokens of the windows of patients with so many tokens."""
    ids = np.full(lengths.sum(), 5)
    starts = offsets_of(lengths)
    ids[starts[:-1]] = 1
    return Windows.of(Ragged(ids, starts), np.array([1]), (), context).lengths


def physionet(shared_data):
    """Tokens of each stay of PhysioNet 2012, set a, about: two for each measurement."""
    with tarfile.open(shared_data / "ehr/physionet2012/set-a.tar.xz") as archive:
        files = (archive.extractfile(member) for member in archive if member.name.endswith(".txt"))
        return 2 * np.array([io.BytesIO(file.read()).getvalue().count(b"\n") for file in files])


def mimic(shared_data):
    """Tokens of each patient of the MIMIC-IV demo, about: two for each event."""
    events = pl.scan_parquet(shared_data / "ehr/mimic4demo_meds_slim/events.parquet")
    return 2 * events.group_by("subject_id").len().sort("subject_id").collect()["len"].to_numpy().astype(int)


@pytest.mark.parametrize("source", [physionet, mimic])
@pytest.mark.parametrize(("context", "row_tokens"), [(1024, 4096), (512, 4096), (1024, 8192), (8192, 8192)])
def test_rows_of_real_patients_waste_less_than_two_percent(shared_data, source, context, row_tokens):
    assert wasted(cut(source(shared_data), context), row_tokens) < 0.02


def test_rows_as_long_as_the_context_would_waste_more(shared_data):
    """The control: stays of 860 tokens do not fill rows of 1,024."""
    assert wasted(cut(physionet(shared_data), 1024), 1024) > 0.05


def test_rows_are_alike():
    """Rows of windows of one length would be batches that differ more than chance makes them."""
    lengths = np.random.default_rng(0).lognormal(np.log(60), 0.7, 20_000).astype(int) + 5
    rows = [row for step in stream(lengths, row_tokens=4096) for row in step.rows]
    by_length = np.array_split(np.argsort(lengths), len(rows))

    def spread(rows):
        means = [lengths[row].mean() for row in rows]
        return np.std(means) / np.mean(means)

    assert spread(rows) < 0.15 < 0.5 < spread(by_length)


@pytest.mark.parametrize("row_tokens", [4096, 16384])
@pytest.mark.parametrize("spread", [0.5, 1.0, 2.0])
def test_rows_of_a_long_tail_waste_less_than_two_percent(row_tokens, spread):
    lengths = np.random.default_rng(0).lognormal(np.log(100), spread, 60_000).astype(int) + 5
    assert wasted(cut(lengths, 1024), row_tokens) < 0.02


PATIENTS = st.lists(st.integers(1, 9), min_size=1, max_size=60)  # windows of each


@settings(max_examples=40)
@given(PATIENTS, st.integers(1, 5), st.integers(0, 99), st.integers(0, 60))
def test_cut_patients_go_on_exactly_and_come_once_an_epoch(counts, rows_per_step, seed, stop):
    lengths = np.random.default_rng(seed).integers(1, 60, sum(counts))
    chosen = {"rows_per_step": rows_per_step, "seed": seed, "patient": np.repeat(np.arange(len(counts)), counts)}
    whole = plain(stream(lengths, **chosen))
    first, later = stream(lengths, **chosen), stream(lengths, **chosen)
    begun = [step for _, step in zip(range(min(stop, len(whole))), first, strict=False)]
    later.start_at(begun[-1].after if begun else first.state())
    assert plain(begun) + plain(later) == whole
    flat = [window for rows, _, _ in whole for row in rows for window in row]
    assert sorted(flat[: len(lengths)]) == sorted(flat[len(lengths) :]) == list(range(len(lengths)))
    assert all(lengths[row].sum() <= 64 for rows, _, _ in whole for row in rows)


def test_windows_of_a_patient_are_equally_far_from_each_other():
    patient = np.repeat(np.arange(500), np.where(np.arange(500) % 50 == 0, 50, 1))
    order = np.random.default_rng(0).permutation(len(patient))
    kept = spread(order, patient)
    assert sorted(kept) == list(range(len(patient)))
    gap, before = (np.diff(np.flatnonzero(patient[of] == 0)).max() for of in (kept, order))
    assert gap <= 1.5 * len(patient) / 50 < 3 * len(patient) / 50 < before


def test_patients_of_one_window_keep_their_order():
    lengths = np.random.default_rng(0).integers(1, 60, 300)
    alone = [plain(stream(lengths, seed=2, patient=patient)) for patient in (None, np.arange(300))]
    assert alone[0] == alone[1]
    assert alone[0] != plain(stream(lengths, seed=2, patient=np.arange(300) // 2))  # the control


LONG_AMONG_SHORT = np.r_[np.full(89, 1024), np.random.default_rng(0).integers(20, 110, 900)]


def longest_streak(**changed):
    """Steps in a row, over four epochs, that hold nothing but the windows of the one long patient."""
    total = 4 * int(LONG_AMONG_SHORT.sum())
    chosen = {"row_tokens": 2048, "rows_per_step": 1, "total_tokens": total} | changed
    only = [all((row < 89).all() for row in step.rows) for step in stream(LONG_AMONG_SHORT, **chosen)]
    return max((len(streak) for streak in "".join("x" if one else " " for one in only).split()), default=0)


@pytest.mark.parametrize("row_tokens", [1024, 2048])
@pytest.mark.parametrize("seed", range(3))
def test_a_patient_as_long_as_all_others_together_is_not_alone_for_long(row_tokens, seed):
    """In many steps with one patient alone, a model forgets the others."""
    patient = np.r_[np.zeros(89, np.int64), np.arange(1, 901)]
    assert longest_streak(row_tokens=row_tokens, seed=seed, patient=patient) <= 3
    assert longest_streak(row_tokens=row_tokens, seed=seed) > 6  # the control: as it would be shuffled


def test_a_place_behind_the_last_row_of_a_stretch_is_the_next_stretch():
    """Where another version packed the stretch into more rows."""
    found = stream(np.full(300, 10))
    found.start_at({"epoch": 0, "stretch": 0, "row": 10**6, "tokens": 0})
    assert next(found).after["epoch"] == 1


def test_rows_of_a_step_are_shared_out_as_evenly_with_a_long_patient():
    patient = np.r_[np.zeros(89, np.int64), np.arange(1, 901)]
    steps = list(stream(LONG_AMONG_SHORT, row_tokens=2048, rows_per_step=2, patient=patient))
    assert all(len(step.rows) == 2 for step in steps[:-1])


@pytest.mark.parametrize("source", [physionet, mimic])
def test_rows_of_cut_patients_in_order_waste_hardly_more(shared_data, source):
    tokens = source(shared_data)
    count = -(-tokens // 1024)
    lengths = cut(tokens, 1024)
    assert len(lengths) == count.sum()
    steps = stream(
        lengths, row_tokens=4096, rows_per_step=1, total_tokens=int(lengths.sum()),
        patient=np.repeat(np.arange(len(tokens)), count),
    )  # fmt: skip
    assert 1 - lengths.sum() / (4096 * len(list(steps))) < 0.02


WINDOWS = Windows.of(Ragged.of([list(range(1, 3 + i % 7)) for i in range(40)]), np.array([0]), (), 16)


def collated(row, multiple=8):
    return inputs(collate(WINDOWS, row, multiple))


def steps(total=500):
    return Sampler(WINDOWS.lengths, 16, 2, total, seed=3)


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "feed"]


def test_it_gives_every_step_in_order_with_its_rows_as_inputs():
    given = list(feed(steps(), collated))
    expected = list(steps())
    assert [step.after for step, _ in given] == [step.after for step in expected]
    for (_, passes), step in zip(given, expected, strict=True):
        for (made, weight), row in zip(passes, step.rows, strict=True):
            assert weight == 1.0
            assert made.ids.tolist() == collate(WINDOWS, row).ids.tolist()


def test_inputs_say_what_is_predicted_where_and_who_sees_whom():
    batch = collate(WINDOWS, [5, 6])
    made = inputs(batch)
    assert made.ids.flatten()[made.places + 1].tolist() == made.targets.tolist()
    assert len(made.targets) == len(WINDOWS[5]) + len(WINDOWS[6]) - 2
    q, k, v = (torch.randn(1, 1, batch.ids.shape[1], 4) for _ in range(3))
    real = torch.from_numpy(batch.segments[0] >= 0)
    dense = Masked.packed(batch.segments)(0, q, k, v)
    assert torch.allclose(made.attention(0, q, k, v)[0, 0, real], dense[0, 0, real], atol=1e-6)


def test_inputs_say_where_places_aside_are_and_hide_them():
    behind = [np.array([1, 4, 4]), np.array([8])]
    plain, batch = collate(WINDOWS, [5, 6]), collate(WINDOWS, [5, 6], behind=behind)
    ends = Ends(np.array([6, 14]), np.ones((2, 3), np.float32))  # the last token of each window
    made, without = inputs(batch, ends=ends), inputs(plain, ends=ends)
    assert made.aside.tolist() == [1, 5, 6, 18] and made.aside.dtype == torch.int64
    assert without.aside.tolist() == [] and without.aside.dtype == torch.int64
    # what is predicted is the same, behind the same tokens
    assert made.targets.tolist() == without.targets.tolist() and made.weight == without.weight
    for mine, his in ((made.places, without.places), (made.ended, without.ended)):
        assert made.ids.flatten()[mine].tolist() == without.ids.flatten()[his].tolist()
    assert without.ended.tolist() == [6, 14] and made.ended.tolist() == [9, 17]
    q, k, v = (torch.randn(1, 1, batch.ids.shape[1], 4) for _ in range(3))
    real = torch.from_numpy(batch.segments[0] >= 0)
    dense = Masked.packed(batch.segments, batch.aside)(0, q, k, v)
    assert torch.allclose(made.attention(0, q, k, v)[0, 0, real], dense[0, 0, real], atol=1e-6)


def test_rows_are_padded_to_one_length_where_that_is_asked_for():
    lengths = {made.ids.shape[1] for _, passes in feed(steps(), lambda row: collated(row, 16)) for made, _ in passes}
    assert lengths == {16}


def test_a_process_gets_its_own_rows():
    def second(rows):
        return [(row, 0.5) for row in rows[1::2]]

    (step, passes), *_ = feed(steps(), collated, share=second)
    assert len(passes) == 1 and passes[0][1] == 0.5
    assert passes[0][0].ids.tolist() == collate(WINDOWS, step.rows[1]).ids.tolist()
    assert [weight for _, weight in alone(step.rows)] == [1.0, 1.0]


def test_it_works_no_more_than_so_many_steps_ahead_and_ends_with_its_reader():
    taken = []

    def counted():
        for step in steps(10_000):
            taken.append(step)
            yield step

    reader = feed(counted(), collated)
    next(reader)
    time.sleep(0.3)
    assert len(taken) <= AHEAD + 3 and threads()
    reader.close()
    assert not threads()


def test_what_goes_wrong_in_the_thread_is_raised_at_the_reader():
    def broken():
        yield next(steps())
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="the disk is gone"):
        list(feed(broken(), collated))
    assert not threads()
