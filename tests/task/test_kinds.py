"""A kind is one value. The proof: a fifth one, made in this file alone, goes all the way."""

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from sequela.record.dataset import read_events
from sequela.record.duration import DAY
from sequela.record.timeline import timelines
from sequela.rollout.folder import SimulatedFolder
from sequela.serve.pages.futures import examples
from sequela.serve.pages.report import write_report
from sequela.serve.pages.terminal import print_summary
from sequela.task.answers.contrast import contrast, summary
from sequela.task.answers.estimate import estimate
from sequela.task.answers.predict import predict
from sequela.task.answers.prediction import read_predictions
from sequela.task.answers.statistic import MEAN
from sequela.task.catalog import load_task
from sequela.task.kinds import COUNT, KINDS, Kind, ValidRange, Words
from sequela.task.label import labels
from sequela.task.rules import HOW_OFTEN
from sequela.task.scoring.evaluate import evaluate
from sequela.task.scoring.metric import MAE, Metric, averaged
from tests.task.answers.test_estimate import rollout, write_simulated
from tests.task.conftest import make_task

RMSE = Metric("rmse", averaged(lambda outcome, prediction: (prediction - outcome) ** 2, np.sqrt), "RMSE")
BURDEN = Kind(
    name="burden",
    numeric=True,
    needs_horizon=True,
    has_hazard=False,
    labels=replace(
        HOW_OFTEN,
        label=lambda reading: math.log1p(len(reading.times)) if reading.settled else None,
        value=HOW_OFTEN.value.log1p(),
    ),
    score=pl.col("label"),
    known=pl.col("label").is_not_null(),
    answer=MEAN,
    metrics=(RMSE, MAE),
    headline=RMSE,
    summary=(RMSE,),
    baselines={"mean": "mean", "middle": "median"},
    valid=ValidRange(0.0, float("inf"), "a burden, 0 or more"),
    words=Words(
        asks="how heavy, on a logarithm?",
        unit="nats",
        heading="nats",
        without="without a burden",
        reaches="a root mean squared error of",
        digits=2,
        score=lambda rmse: f"simulated burdens are off by {rmse:.2f} nats.",
        example=lambda predicted, observed, _: f"a burden of {predicted:.2f}, observed {observed:.2f}",
    ),
)


@pytest.fixture
def burden(monkeypatch):
    monkeypatch.setitem(KINDS, "burden", BURDEN)
    return make_task(name="strokes", kind="burden")


@pytest.fixture
def simulated(tmp_path, cohort_folder, burden):
    asked = burden.prediction_times(read_events(cohort_folder, "held_out"))["subject_id"].to_list()
    rows = [rollout(patient, number) for patient in asked for number in range(4)]
    events = [(patient, 0, 2.5, "STROKE") for patient in asked[::2]] + [(asked[0], 0, 3, "STROKE")]
    return write_simulated(tmp_path / "s", rows, events)


def test_a_fifth_kind_is_labelled_by_its_rule(cohort_folder, burden):
    events = read_events(cohort_folder, "held_out")
    asked = burden.prediction_times(events)
    by_patient = {timeline.patient: timeline for timeline in timelines(events)}
    oracle = [
        burden.label(by_patient[patient], at)
        for patient, at in asked.with_columns(pl.col("prediction_time").to_physical()).iter_rows()
    ]
    assert labels(burden, events, asked)["label"].to_list() == oracle
    assert set(oracle) == {None, 0.0, math.log(2)}


def test_a_fifth_kind_is_answered_written_read_scored_and_shown(
    tmp_path, cohort_folder, burden, simulated, capsys
):
    out = tmp_path / "predictions"
    report = predict(simulated, cohort_folder, out, [burden])["strokes"]
    assert (report["estimator"], report["models"]) == ("mean", ["sequela", "mean", "middle", "strong"])
    kind, frame = read_predictions(out / "strokes" / "sequela.parquet")
    assert kind == "burden"
    assert frame["prediction"][:2].to_list() == pytest.approx([math.log(3) / 4, 0])
    metrics = evaluate(out, tmp_path / "scores", resample_count=20)
    scores = metrics["tasks"]["strokes"]
    assert (scores["kind"], scores["positives"]) == ("burden", None)
    assert list(scores["models"]["middle"]) == ["rmse", "mae"]
    assert "Simulation reaches a root mean squared error of 0." in scores["verdict"]
    print_summary(metrics)
    shown = capsys.readouterr().out
    assert "RMSE" in shown and scores["verdict"] in " ".join(shown.split())
    write_report(metrics, [out], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "simulated burdens are off by 0." in page and "mean error, nats" in page
    pictures, _ = examples(simulated, cohort_folder, out, [burden])
    assert all(": a burden of 0." in picture.words for picture in pictures)


def test_a_fifth_kind_is_compared_in_a_what_if(burden, simulated):
    folder = SimulatedFolder(simulated)
    times = estimate(burden, folder, folder.rollouts(), "scope").select("subject_id", "prediction_time")
    same = summary(contrast(burden, times, simulated, simulated), "burden", everyone=True)
    assert (same["unit"], same["difference"]["value"]) == ("nats", 0)


def test_a_fifth_kind_is_a_kind_in_task_files(tmp_path, burden):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\ntitle: Mine\ndataset: made\nkind: burden\nhorizon: 1 year\noutcome: [STROKE]\n"
        'at: {after: "ENTRY", offset: 1 day}\n'
    )
    task = load_task(path)
    assert task.asks is BURDEN and task.counted == "all" and task.as_dict()["kind"] == "burden"


def test_what_tells_the_kinds_apart():
    """The control: the rules of two kinds are not the same, nor is what follows from them."""
    counting, burdened = COUNT.labels, BURDEN.labels
    assert counting.label is not burdened.label and COUNT.headline is not BURDEN.headline
    assert "burden" not in KINDS


def test_every_kind_is_complete():
    for name, kind in KINDS.items():
        assert kind.name == name and kind.headline in kind.metrics and set(kind.summary) <= set(kind.metrics)
        assert kind.labels.counted in ("first", "all", "none") and kind.valid.low < kind.valid.high
        assert kind.unmarked == (name == "binary")
    assert make_task(horizon=DAY).asks is KINDS["binary"]
