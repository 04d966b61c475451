import json
import math

import numpy as np
import pytest

from sequela.train.watch import Watch, keep


def falling(steps=1000, noise=0.05, seed=0):
    """A loss that falls as a run's does, with the noise of its batches."""
    step = np.arange(steps)
    level = 2.5 + 4 * np.exp(-step / 60)
    return level * (1 + noise * np.random.default_rng(seed).standard_normal(steps))


def first_alarm(losses, gradients=None, watch=None):
    """The step at which a watch stops, and why; None where it never does."""
    watch = watch or Watch()
    for step, bits in enumerate(losses):
        why = watch.check(float(bits), 1.0 if gradients is None else gradients[step])
        if why:
            return step, why
    return None


@pytest.mark.parametrize("seed", range(20))
def test_the_noise_of_batches_stops_no_run(seed):
    assert first_alarm(falling(seed=seed)) is None


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_is_no_number_stops_the_run_at_once(wrong):
    assert first_alarm([5.0, wrong]) == (1, f"the loss became {wrong}")
    assert first_alarm([5.0, 5.0], [1.0, wrong]) == (1, f"the gradient became {wrong}")


@pytest.mark.parametrize("at", [40, 200, 900])
def test_a_jump_stops_the_run_where_it_is(at):
    losses = falling()
    losses[at] *= 2.2
    step, why = first_alarm(losses)
    assert step == at and "jumped to" in why


def test_a_first_step_is_the_measure_of_the_next_ones():
    assert first_alarm([6.5, 12.0, 18.0]) is None
    assert first_alarm([6.5, 12.0, 20.0])[0] == 2


def test_a_slow_rise_stops_the_run():
    """No step jumps, each is 1 % above the last."""
    losses = np.concatenate([falling(300, 0.01), 2.5 * 1.01 ** np.arange(200)])
    step, why = first_alarm(losses)
    assert 300 < step < 400 and "rose to" in why


def test_a_watch_goes_on_from_its_state():
    losses = falling()
    losses[700] *= 3
    for stop in (0, 1, 20, 500):
        before, after = Watch(), Watch()
        assert first_alarm(losses[:stop], watch=before) is None
        after.go_on(json.loads(json.dumps(before.state())))
        assert first_alarm(losses[stop:], watch=after) == (700 - stop, first_alarm(losses)[1])


def test_the_batch_is_kept_without_a_pickle(tmp_path):
    rows = [[np.array([1, 5, 6]), np.array([1, 7])], [np.array([1, 8, 9, 9], np.uint16)]]
    keep(tmp_path / "kept", rows, [np.array([11, 12]), np.array([13])], {"why": "a test"})
    tokens, offsets, patients, row = (
        np.load(tmp_path / "kept" / f"{name}.npy", allow_pickle=False)
        for name in ("tokens", "offsets", "patients", "rows")
    )
    assert np.split(tokens, offsets[1:-1])[1].tolist() == [1, 7]
    assert patients.tolist() == [11, 12, 13] and row.tolist() == [0, 0, 1]
    assert json.loads((tmp_path / "kept" / "step.json").read_text()) == {"why": "a test"}
