import json
import math
import sys

import numpy as np
import pytest

from sequela.errors import InputError
from sequela.training.monitor import (
    POINTS,
    DivergenceAlarm,
    LossCurve,
    keep_batch,
    metrics_log,
    optional_package,
)


def test_a_curve_has_a_bounded_number_of_points_whose_mean_is_that_of_the_steps():
    curve, steps = LossCurve(1_000_000), 25_000
    for step in range(steps):
        curve.add((step + 1) * 40, total=40.0 * step, weight=40)
    assert len(curve.tokens) == POINTS and curve.tokens[-1] == 1_000_000
    assert sum(curve.losses) / POINTS == pytest.approx((steps - 1) / 2)
    assert curve.last(0.5) == pytest.approx(0.75 * steps, rel=1e-3)


def test_a_curve_of_few_steps_has_them_all():
    curve = LossCurve(100)
    assert [curve.add(tokens, 30.0, 10) for tokens in (10, 25, 120)] == [3.0, 3.0, 3.0]


def test_a_curve_goes_on_from_its_state():
    whole, begun, later = LossCurve(5000), LossCurve(5000), LossCurve(5000)
    for step in range(1, 5001):
        whole.add(step, step, 1)
        begun.add(step, step, 1) if step <= 1203 else None
    later.restore(json.loads(json.dumps(begun.state())))
    for step in range(1204, 5001):
        later.add(step, step, 1)
    assert later.state() == whole.state()


def test_no_log_writes_nothing(tmp_path):
    nothing = metrics_log("none", tmp_path / "log", {})
    nothing.write(1, {"a": 2.0})
    nothing.close()
    assert not (tmp_path / "log").exists()


def test_tensorboard_reads_what_was_written(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for tokens in (10, 20):  # the second as a run that goes on
        events = metrics_log("tensorboard", tmp_path / "log", {})
        events.write(tokens, {"train/bits_per_event": 1.5 * tokens})
        events.close()
    metrics_log("tensorboard", tmp_path / "log", {}, anew=True).close()
    assert sorted(path.name for path in (tmp_path / "log").iterdir()) == ["run-1", "run-2"]
    read = EventAccumulator(str(tmp_path / "log/run-1")).Reload()
    assert [(one.step, one.value) for one in read.Scalars("train/bits_per_event")] == [(10, 15.0), (20, 30.0)]


def test_mlflow_reads_what_was_written(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    for tokens in (10, 20):
        store = metrics_log("mlflow", tmp_path / "model-log", {"depth": 2})
        store.write(tokens, {"tuning/bits_per_event_of/lab": 1.5 * tokens})
        store.close()
    metrics_log("mlflow", tmp_path / "model-log", {"depth": 3}, anew=True).close()
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "model-log").as_uri())
    new, run = client.search_runs([client.get_experiment_by_name("model-log").experiment_id])
    assert new.data.params["depth"] == "3" and not new.data.metrics
    history = client.get_metric_history(run.info.run_id, "tuning/bits_per_event_of/lab")
    assert [(one.step, one.value) for one in history] == [(10, 15.0), (20, 30.0)]
    assert run.data.params["depth"] == "2"


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(InputError, match=r"pip install 'sequela\[mlflow\]'"):
        optional_package("mlflow")


def falling(steps=1000, noise=0.05, seed=0):
    """A loss that falls as a run's does, with the noise of its batches."""
    step = np.arange(steps)
    level = 2.5 + 4 * np.exp(-step / 60)
    return level * (1 + noise * np.random.default_rng(seed).standard_normal(steps))


def first_alarm(losses, gradients=None, watch=None):
    """The step at which a watch stops, and why; None where it never does."""
    watch = watch or DivergenceAlarm()
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


def test_a_step_is_not_compared_with_easier_ones_alone():
    """Every twentieth step holds other patients, three times as hard; the control is a run that never met them."""
    losses = np.where(np.arange(400) % 20 == 5, 3.0, 1.0) * falling(400, 0.01)
    assert first_alarm(losses) is None
    assert first_alarm([*falling(100, 0.01), *losses[100:]])[0] == 105


def test_a_first_step_is_the_measure_of_the_next_ones():
    assert first_alarm([6.5, 12.0, 18.0]) is None
    assert first_alarm([6.5, 12.0, 20.0])[0] == 2


def test_a_slow_rise_stops_the_run():
    """No step jumps, each is 1 % above the last."""
    losses = np.concatenate([falling(300, 0.01), 2.5 * 1.01 ** np.arange(200)])
    step, why = first_alarm(losses)
    assert 300 < step < 400 and "rose to" in why


@pytest.mark.parametrize(
    "losses",
    [
        [0.0] * 50,
        [0.0] * 40 + [6e-8, 0.0, 2e-7] * 20,  # nothing can be learned, such as of one token; rounding
        [5.8, *np.geomspace(5.0, 1e-6, 60), *[0.0] * 40, 1e-7, 0.0, 3e-7, *[0.0] * 40],  # all is predicted
        [5.8, *np.geomspace(5.0, 1e-2, 60), *[1e-2, 4e-2, 1e-3] * 40],  # nearly all
        [2.0] * 200,
        [0.0] + [5.8] * 60,  # a first step in which nothing was predicted
        [5.8, *np.geomspace(5.0, 0.5, 60), 1.2, *([0.5] * 20 + [1.6]) * 10],  # now and then other patients
    ],
)  # fmt: skip
def test_a_loss_that_is_nothing_or_constant_or_of_two_kinds_stops_no_run(losses):
    assert first_alarm(losses) is None


@pytest.mark.parametrize("before", [[0.0] * 50, [2.0] * 50, [5.8, *np.geomspace(5.0, 1e-6, 60)]])
@pytest.mark.parametrize(("wrong", "what"), [(math.nan, "became nan"), (math.inf, "became inf"), (9.0, "jumped")])
def test_after_a_loss_that_is_nothing_or_constant_the_alarm_still_rings(before, wrong, what):
    step, why = first_alarm([*before, wrong])
    assert step == len(before) and what in why


def test_a_step_of_few_tokens_is_judged_with_the_next():
    """The rest of an epoch may be a row of a few tokens, whose mean says little."""
    found = [DivergenceAlarm() for _ in range(2)]
    for alarm in found:
        for _ in range(40):
            assert alarm.check(2.0, 1.0, 1000.0) is None
    assert found[0].check(9.0, 1.0, 20.0) is None and found[0].check(2.0, 1.0, 1000.0) is None
    assert "jumped" in found[1].check(9.0, 1.0, 900.0)  # the control
    assert found[0].check(math.nan, 1.0, 1.0) == "the loss became nan"


def test_a_watch_goes_on_from_its_state():
    losses = falling()
    losses[700] *= 3
    for stop in (0, 1, 20, 500):
        before, after = DivergenceAlarm(), DivergenceAlarm()
        assert first_alarm(losses[:stop], watch=before) is None
        after.restore(json.loads(json.dumps(before.state())))
        assert first_alarm(losses[stop:], watch=after) == (700 - stop, first_alarm(losses)[1])


def test_the_batch_is_kept_without_a_pickle(tmp_path):
    rows = [[np.array([1, 5, 6]), np.array([1, 7])], [np.array([1, 8, 9, 9], np.uint16)]]
    keep_batch(tmp_path / "kept", rows, [np.array([11, 12]), np.array([13])], {"why": "a test"})
    tokens, offsets, patients, row = (
        np.load(tmp_path / "kept" / f"{name}.npy", allow_pickle=False)
        for name in ("tokens", "offsets", "patients", "rows")
    )
    assert np.split(tokens, offsets[1:-1])[1].tolist() == [1, 7]
    assert patients.tolist() == [11, 12, 13] and row.tolist() == [0, 0, 1]
    assert json.loads((tmp_path / "kept" / "step.json").read_text()) == {"why": "a test"}
