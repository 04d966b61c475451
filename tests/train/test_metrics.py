import json
import sys

import pytest

from sequela.record.errors import InputError
from sequela.train.metrics import POINTS, Curve, package, writer


def test_a_curve_has_a_bounded_number_of_points_whose_mean_is_that_of_the_steps():
    curve, steps = Curve(1_000_000), 25_000
    for step in range(steps):
        curve.add((step + 1) * 40, bits=40.0 * step, predicted=40)
    assert len(curve.tokens) == POINTS and curve.tokens[-1] == 1_000_000
    assert sum(curve.bits_per_token) / POINTS == pytest.approx((steps - 1) / 2)
    assert curve.last(0.5) == pytest.approx(0.75 * steps, rel=1e-3)


def test_a_curve_of_few_steps_has_them_all():
    curve = Curve(100)
    assert [curve.add(tokens, 30.0, 10) for tokens in (10, 25, 120)] == [3.0, 3.0, 3.0]


def test_a_curve_goes_on_from_its_state():
    whole, begun, later = Curve(5000), Curve(5000), Curve(5000)
    for step in range(1, 5001):
        whole.add(step, step, 1)
        begun.add(step, step, 1) if step <= 1203 else None
    later.go_on(json.loads(json.dumps(begun.state())))
    for step in range(1204, 5001):
        later.add(step, step, 1)
    assert later.state() == whole.state()


def test_no_log_writes_nothing(tmp_path):
    nothing = writer("none", tmp_path / "log", {})
    nothing.write(1, {"a": 2.0})
    nothing.close()
    assert not (tmp_path / "log").exists()


def test_tensorboard_reads_what_was_written(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for tokens in (10, 20):  # the second as a run that goes on
        events = writer("tensorboard", tmp_path / "log", {})
        events.write(tokens, {"train/bits_per_event": 1.5 * tokens})
        events.close()
    writer("tensorboard", tmp_path / "log", {}, anew=True).close()
    assert sorted(path.name for path in (tmp_path / "log").iterdir()) == ["run-1", "run-2"]
    read = EventAccumulator(str(tmp_path / "log/run-1")).Reload()
    assert [(one.step, one.value) for one in read.Scalars("train/bits_per_event")] == [(10, 15.0), (20, 30.0)]


def test_mlflow_reads_what_was_written(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    for tokens in (10, 20):
        store = writer("mlflow", tmp_path / "model-log", {"depth": 2})
        store.write(tokens, {"tuning/bits_per_event_of/lab": 1.5 * tokens})
        store.close()
    writer("mlflow", tmp_path / "model-log", {"depth": 3}, anew=True).close()
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "model-log").as_uri())
    new, run = client.search_runs([client.get_experiment_by_name("model-log").experiment_id])
    assert new.data.params["depth"] == "3" and not new.data.metrics
    history = client.get_metric_history(run.info.run_id, "tuning/bits_per_event_of/lab")
    assert [(one.step, one.value) for one in history] == [(10, 15.0), (20, 30.0)]
    assert run.data.params["depth"] == "2"


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(InputError, match=r"pip install 'sequela\[mlflow\]'"):
        package("mlflow")
