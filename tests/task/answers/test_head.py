"""Answers of a value head against its rates, and where they stand beside those of a simulation."""

import numpy as np
import polars as pl
import pytest
import torch

from sequela.errors import InputError
from sequela.record.dataset import read_events
from sequela.record.duration import DAY
from sequela.rollout.settings import SimulateSettings
from sequela.rollout.values.head import ValueHead
from sequela.task.answers.forecaster import Forecaster
from sequela.task.answers.head import ReadStates
from sequela.task.answers.predict import PredictSettings, predict, predict_by_head
from sequela.task.answers.prediction import BY_HEAD, read_predictions
from sequela.task.requests import requests
from tests.rollout.values.conftest import headed  # noqa: F401
from tests.task.conftest import make_task

DEATH = make_task(name="death", after="COHORT//ENTRY", outcome=("MEDS_DEATH",), ends=(), horizon=7 * DAY)
WHEN = make_task(name="when", kind="time", after="COHORT//ENTRY", outcome=("MEDS_DEATH",), ends=(), horizon=9 * DAY)
OFTEN = make_task(name="often", kind="count", after="COHORT//ENTRY", outcome=("LAB//*",), ends=())


@pytest.fixture(scope="module")
def read(headed, world_meds):  # noqa: F811
    events = read_events(world_meds, "held_out")
    return ReadStates.of(ValueHead.load(headed), events, DEATH.prediction_times(events))


def test_a_risk_is_the_incidence_and_costs_no_rollout(read):
    answers = read.answers(DEATH, read.known[3:40], 0.95)
    assert answers.select("subject_id", "prediction_time").equals(read.known[3:40])
    with torch.no_grad():
        alone = read.head.hazards.risk(torch.from_numpy(read.states[3:40]), 7.0)[:, 0].numpy()
    np.testing.assert_allclose(answers["prediction"], alone, rtol=1e-5)
    assert answers.select("rollouts", "undecidable_rollouts", "tokens").sum().row(0) == (0, 0, 0)
    assert answers["standard_error"].sum() == 0 and answers["low"].null_count() == answers.height
    assert answers["estimator"].unique().to_list() == ["head"]


def test_a_time_is_the_median_of_who_reaches_it(read):
    answers = read.answers(WHEN, read.known, 0.5)
    state = torch.from_numpy(read.states)
    with torch.no_grad():
        reached = read.head.hazards.risk(state, 9.0)[:, 0]
        for column, share in (("low", 0.25), ("prediction", 0.5), ("high", 0.75)):
            by_then = [
                float(read.head.hazards.risk(one[None], float(day))[0, 0])
                for one, day in zip(state, answers[column], strict=True)
            ]
            np.testing.assert_allclose(by_then, share * reached.numpy(), rtol=1e-4)
    np.testing.assert_allclose(answers["reached"], reached, rtol=1e-5)


def test_other_answers_are_refused(read):
    for task in (OFTEN, make_task(name="lab", kind="value", outcome=("LAB//*",), ends=())):
        with pytest.raises(InputError, match=f"Task {task.name}: the value head tells whether and when an outcome"):
            read.answers(task, read.known, 0.95)
    twice = make_task(name="twice", at_least=2, outcome=("LAB//*",), ends=())
    with pytest.raises(InputError, match="Task twice: the value head tells when something first comes, not how often"):
        read.answers(twice, read.known, 0.95)


def test_states_are_read_in_parts_as_all_at_once(read, world_meds, monkeypatch):
    events = read_events(world_meds, "held_out")
    monkeypatch.setattr("sequela.task.answers.head.PATIENTS", 7)
    parts = ReadStates.of(read.head, events, read.known)
    assert parts.known.equals(read.known)
    np.testing.assert_allclose(parts.states, read.states, atol=1e-4)
    with pytest.raises(InputError, match="there are no questions"):
        ReadStates.of(read.head, events, read.known[:0])


def test_predictions_of_heads_and_their_mean(headed, world_meds, tmp_path):  # noqa: F811
    asked = requests([DEATH, WHEN], world_meds, patients=20)
    settings = PredictSettings("head", baselines=False, model=headed)
    report = predict_by_head([headed], world_meds, tmp_path / "one", [DEATH, WHEN], asked, settings)
    assert report["death"]["models"] == ["sequela"] and report["death"]["estimator"] == "head"
    assert (report["death"]["patients"], report["death"]["rollouts"], report["death"]["unpredicted"]) == (20, 0, 0)
    kind, one = read_predictions(tmp_path / "one" / "death" / "sequela.parquet")
    assert kind == "binary" and one["prediction"].is_between(0, 1).all() and one["tokens"].sum() == 0
    assert read_predictions(tmp_path / "one" / "when" / "sequela.parquet")[0] == "time"
    predict_by_head([headed, headed], world_meds, tmp_path / "two", [DEATH], asked[:1], settings)
    _, two = read_predictions(tmp_path / "two" / "death" / "sequela.parquet")
    np.testing.assert_allclose(two["prediction"], one["prediction"], rtol=1e-6)
    assert two["seeds"].unique().to_list() == [2] and two["between_seeds"].sum() == 0


def test_the_forecaster_answers_by_the_head(headed, world_meds, read):  # noqa: F811
    events = read_events(world_meds, "held_out")
    with Forecaster.load(headed, estimator="head") as forecaster:
        found = forecaster.risk(events, read.known[:5], DEATH)
        np.testing.assert_allclose(found["risk"], read.answers(DEATH, read.known[:5], 0.95)["prediction"], rtol=1e-4)
        assert found["tokens"].sum() == 0
        few = forecaster.risk(events, read.known[:5], DEATH, estimator="cv", rollouts=4, limit=30)
        assert few["estimator"].unique().to_list() == ["cv"] and few["tokens"].min() > 0
        with pytest.raises(InputError, match="the estimator head reads risks off the history, without futures"):
            forecaster.forecast(events, read.known[:5], DEATH)
        long_ago = pl.datetime(1850, 1, 1).cast(pl.Datetime("us"))
        before_birth = read.known[:1].with_columns(prediction_time=long_ago)
        assert forecaster.risk(events, before_birth, DEATH)["risk"].to_list() == [None]


def test_beside_a_simulation_stands_the_head_of_its_model(headed, world_meds, tmp_path):  # noqa: F811
    from sequela.rollout.parts import simulate

    asked = requests([DEATH, OFTEN], world_meds, patients=6)
    settings = SimulateSettings(estimator="cv", rollouts=2, limit=20)
    (tmp_path / "simulated").mkdir()
    simulate(headed, world_meds, tmp_path / "simulated", asked, settings)
    heard = []
    chosen = PredictSettings("cv", baselines=False, model=headed)
    report = predict(tmp_path / "simulated", world_meds, tmp_path / "out", [DEATH, OFTEN], chosen, say=heard.append)
    assert report["death"]["models"] == ["sequela", BY_HEAD] and report["often"]["models"] == ["sequela"]
    assert report["death"]["estimator"] == "cv" and len(heard) == 1 and "Task often: the value head" in heard[0]
    by_head = PredictSettings("head", baselines=False)
    with pytest.raises(InputError, match=r"reads no futures, such as those of .*: give the checkpoint"):
        predict(tmp_path / "simulated", world_meds, tmp_path / "no", [DEATH], by_head)
