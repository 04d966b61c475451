"""Answers in memory are those of the folders, to the bit, from any number of threads."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from sequela.errors import InputError
from sequela.record.dataset import read_events
from sequela.record.duration import DAY
from sequela.record.events import Events
from sequela.record.timeline import timelines
from sequela.rollout.folder import SimulatedFolder
from sequela.rollout.parts import simulate
from sequela.rollout.settings import SimulateSettings
from sequela.rollout.spread import PRIOR, Spread
from sequela.task.answers.calibrate import calibrate
from sequela.task.answers.calibration import Calibration
from sequela.task.answers.estimate import estimate
from sequela.task.answers.forecaster import Forecaster
from sequela.task.answers.predict import PredictSettings, predict
from sequela.task.answers.prediction import read_predictions
from sequela.task.requests import requests
from tests.task.conftest import make_task

DEATH = make_task(
    name="death", after="COHORT//ENTRY", offset=DAY, outcome=("MEDS_DEATH",), ends=(), horizon=7 * DAY
)
PATIENTS = 8
SMALL = SimulateSettings(rollouts=6, limit=20)
KEY = ["subject_id", "prediction_time"]


@pytest.fixture(scope="module")
def events(world_meds):
    return read_events(world_meds, "held_out")


@pytest.fixture(scope="module")
def questions(world_meds):
    return requests([DEATH], world_meds, patients=PATIENTS)[0].times


@pytest.fixture(scope="module")
def forecaster(rough):
    with Forecaster.load(rough, rollouts=6, limit=20) as loaded:
        yield loaded


@pytest.mark.parametrize(
    ("estimator", "task"),
    [
        ("scope", DEATH),
        ("mc", DEATH),
        ("reach", DEATH),
        ("auto", DEATH),
        ("scope", replace(DEATH, name="stay", asks=make_task(kind="time").asks)),
        ("reach", make_task(**DEATH.as_dict() | {"name": "labs", "kind": "count", "outcome": ("LAB//*",)})),
    ],
    ids=lambda given: getattr(given, "name", given),
)
def test_the_answers_are_those_of_the_folders(
    rough,
    world_meds,
    events,
    questions,
    forecaster,
    tmp_path,
    estimator,
    task,
):
    settings = replace(SMALL, estimator=estimator)
    simulate(rough, world_meds, tmp_path / "s", requests([task], world_meds, patients=PATIENTS), settings)
    folder = SimulatedFolder(tmp_path / "s")
    on_disk = estimate(task, folder, folder.rollouts(), estimator).sort(KEY)
    found = forecaster.risk(events, questions, task, estimator=estimator)
    name = "prediction" if task.asks.numeric else "risk"
    assert found.select(KEY).equals(questions) and found["rollouts"].sum() > 0
    assert found.rename({name: "prediction"}).select(on_disk.columns).equals(on_disk)
    predict(tmp_path / "s", world_meds, tmp_path / "p", [task], PredictSettings(estimator, baselines=False))
    written = read_predictions(tmp_path / "p" / task.name / "sequela.parquet")[1]
    assert written["prediction"].equals(found[name].cast(pl.Float32).cast(pl.Float64).rename("prediction"))
    other = forecaster.risk(events, questions, task, estimator=estimator, seed=1)
    assert not other.equals(found)  # the control


def test_threads_get_what_each_would_get_alone(events, questions, forecaster):
    alone = [forecaster.risk(events, questions[row : row + 1], DEATH) for row in range(PATIENTS)]
    with ThreadPoolExecutor(PATIENTS) as threads:
        together = list(
            threads.map(lambda row: forecaster.risk(events, questions[row : row + 1], DEATH), range(PATIENTS))
        )
    assert all(one.equals(other) for one, other in zip(alone, together, strict=True))
    whole = forecaster.risk(events, questions, DEATH)
    shared = ["low", "high"]  # they take the spread of scores from all questions of a call
    assert pl.concat(alone).drop(shared).equals(whole.drop(shared))
    assert not pl.concat(alone).select(shared).equals(whole.select(shared))
    assert not alone[0].equals(alone[1])  # the control


def test_events_may_be_a_frame_events_or_a_timeline(events, questions, forecaster):
    first = questions[:1]
    own = events.filter(pl.col("subject_id") == first["subject_id"][0])
    expected = forecaster.risk(own, first, DEATH)
    assert forecaster.risk(Events.of(own), first, DEATH).equals(expected)
    assert forecaster.risk(next(timelines(own)), first, DEATH).equals(expected)
    assert forecaster.risk(own.lazy(), first, DEATH).equals(expected)
    assert forecaster.risk(own.drop("numeric_value"), first, DEATH).height == 1


def test_events_may_come_in_any_order(events, questions, forecaster):
    """Of several patients, mixed; only simultaneous events of a patient keep the order in which they come."""
    expected = forecaster.risk(events, questions, DEATH)
    mixed = events.with_columns(turn=pl.int_range(pl.len()).over("subject_id", "time"))
    mixed = mixed.sample(fraction=1.0, shuffle=True, seed=0).sort("turn", maintain_order=True).drop("turn")
    assert not mixed["subject_id"].is_sorted()
    assert forecaster.risk(mixed, questions, DEATH).equals(expected)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda frame: frame.drop("code"), "events has no column 'code'"),
        (lambda frame: frame.with_columns(pl.col("time").dt.replace_time_zone("Europe/Berlin")), "time zone"),
        (lambda frame: frame.with_columns(pl.col("time").cast(pl.String)), "column 'time' holds String"),
        (lambda frame: frame.with_columns(code=pl.lit(None, pl.String)), "row 1: 'code' is missing"),
        (lambda frame: frame.with_columns(numeric_value=pl.lit(float("inf"))), "'numeric_value' is infinite"),
        (lambda frame: frame.rows(), "events are a list"),
    ],
)
def test_malformed_events_are_refused_in_a_sentence(events, questions, forecaster, change, words):
    with pytest.raises(InputError, match=words):
        forecaster.risk(change(events), questions, DEATH)


def test_times_in_utc_are_those_without_a_zone(events, questions, forecaster):
    zoned = events.with_columns(pl.col("time").dt.replace_time_zone("UTC"))
    assert forecaster.risk(zoned, questions, DEATH).equals(forecaster.risk(events, questions, DEATH))


def test_the_dead_are_not_asked(events, questions, forecaster):
    died = events.filter(pl.col("code") == "MEDS_DEATH")[:1]
    at = died.select("subject_id", prediction_time=pl.col("time"))
    later = at.with_columns(pl.col("prediction_time") + pl.duration(days=30))
    answered = forecaster.risk(events, pl.concat([at, later, questions]), DEATH)
    asked = answered.join(later, on=["subject_id", "prediction_time"])
    assert asked["risk"].to_list() == [None]
    assert answered.join(at, on=["subject_id", "prediction_time"])["risk"].null_count() == 0
    assert forecaster.risk(events, later, DEATH)["risk"].to_list() == [None]


@pytest.mark.parametrize(
    "wrong", [{"rollouts": "five"}, {"rollouts": 2.5}, {"temperature": "warm"}, {"seed": "a"}]
)
def test_settings_of_another_type_are_refused(events, questions, forecaster, wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        forecaster.risk(events, questions, DEATH, **wrong)


def test_nothing_after_the_prediction_time_is_used(events, questions, forecaster):
    first = questions[:1]
    own = events.filter(pl.col("subject_id") == first["subject_id"][0])
    before = own.filter(pl.col("time").is_null() | (pl.col("time") < first["prediction_time"][0]))
    assert len(before) < len(own)
    assert forecaster.risk(before, first, DEATH).equals(forecaster.risk(own, first, DEATH))
    shorter = before.filter(pl.col("time").is_null() | (pl.col("time") < before["time"].max()))
    assert not forecaster.risk(shorter, first, DEATH).equals(forecaster.risk(own, first, DEATH))


def test_a_label_never_reaches_the_model(events, questions, forecaster):
    labelled = questions.with_columns(boolean_value=pl.lit(True), code=pl.lit("MEDS_DEATH"))
    assert forecaster.risk(events, labelled, DEATH).equals(forecaster.risk(events, questions, DEATH))


def test_the_futures_behind_an_answer(events, questions, forecaster):
    result = forecaster.forecast(events, questions, DEATH)
    assert result.answers.equals(forecaster.risk(events, questions, DEATH))
    assert len(result.rollouts) == 6 * PATIENTS
    assert (result.events["time"] >= result.events["prediction_time"]).all()
    assert result.events.select(*KEY, "rollout").n_unique() == 6 * PATIENTS


def test_a_question_without_a_history_has_no_answer(events, questions, forecaster):
    nobody = pl.concat([questions[:1], questions[:1].with_columns(subject_id=pl.lit(10**9, pl.Int64))])
    found = forecaster.risk(events, nobody, DEATH)
    assert found["risk"].is_null().to_list() == [False, True]


def test_wrong_questions_settings_and_tasks_are_refused(rough, events, questions, forecaster):
    with pytest.raises(InputError, match=r"no setting 'rolouts' \(did you mean 'rollouts'\?\)"):
        forecaster.risk(events, questions, DEATH, rolouts=3)
    with pytest.raises(InputError, match="precision is fixed when a model is loaded"):
        forecaster.risk(events, questions, DEATH, precision="bf16")
    with pytest.raises(InputError, match="rollouts must be 1 or more"):
        forecaster.risk(events, questions, DEATH, rollouts=0)
    with pytest.raises(InputError, match="no task 'deth_5y'"):
        forecaster.risk(events, questions, "deth_5y")
    with pytest.raises(InputError, match="there are no questions"):
        forecaster.risk(events, questions[:0], DEATH)
    with pytest.raises(InputError, match="no column 'prediction_time'"):
        forecaster.risk(events, questions.drop("prediction_time"), DEATH)
    with pytest.raises(InputError, match="decodes with the engine"):
        Forecaster.load(rough, engine="vllm", well_formed=False)


def test_a_closed_forecaster_says_so(rough, events, questions):
    loaded = Forecaster.load(Path(rough), rollouts=2, limit=5)
    loaded.close()
    with pytest.raises(InputError, match="closed"):
        loaded.risk(events, questions, DEATH)


def test_whoever_asks_for_no_forecast_needs_no_torch():
    code = "import sys, sequela.task.answers.predict, sequela.task.catalog; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="module")
def calibration(rough, world_meds, tmp_path_factory):
    """What tuning patients of the known world say of the model that was never trained."""
    out = tmp_path_factory.mktemp("calibration")
    settings = replace(SMALL, limit=60)
    simulate(rough, world_meds, out / "simulated", requests([DEATH], world_meds, "tuning"), settings)
    calibrate(out / "simulated", world_meds, out / "calibration", [DEATH])
    return out / "calibration"


def test_the_interval_of_one_patient_follows_how_much_scores_of_others_varied(
    rough, events, questions, calibration, tmp_path
):
    """From what nobody knows of others, the prior, to what a calibration says: less and the interval narrows."""
    made = Calibration.load(calibration)
    death = made.tasks["death"]
    assert death.spread.overdispersion != PRIOR.overdispersion  # the tuning patients were heard

    def answered(spread: Spread | None) -> tuple[float, float]:
        folder = None
        if spread is not None:
            folder = tmp_path / str(spread.overdispersion)
            folder.mkdir()
            Calibration(folder, made.simulated, {"death": replace(death, spread=spread)}).save()
        with Forecaster.load(rough, calibration=folder, rollouts=6, limit=60) as loaded:
            return loaded.risk(events, questions[:1], DEATH).select("low", "high").row(0)

    little, as_assumed, much = (answered(Spread(PRIOR.overdispersion * factor)) for factor in (0.1, 1, 10))
    assert as_assumed == answered(None)
    widths = [high - low for low, high in (little, as_assumed, much)]
    assert widths[0] < 0.8 * widths[1] < 0.8 * widths[2]


def test_a_calibrated_forecaster_knows_one_patient_as_well_as_many(
    rough, events, questions, calibration
):
    with Forecaster.load(rough, rollouts=6, limit=60) as raw:
        plain = raw.risk(events, questions[:1], DEATH)
    with Forecaster.load(rough, calibration=calibration, rollouts=6, limit=60) as loaded:
        one = loaded.risk(events, questions[:1], DEATH)
        known = Calibration.load(calibration).tasks["death"]
        assert one["risk"].equals(plain["risk"])
        assert not one.select("low", "high").equals(plain.select("low", "high"))
        for name, recalibrator in known.maps.items():
            assert one[f"risk_{name}"].to_numpy() == pytest.approx(recalibrator(one["risk"].to_numpy()))
        with pytest.raises(InputError, match="risks of 6 rollouts, and these are of 3"):
            loaded.risk(events, questions, DEATH, rollouts=3)
        with pytest.raises(InputError, match="with the `limit` 60, not 20"):
            loaded.risk(events, questions, DEATH, limit=20)
        with pytest.raises(InputError, match="does not hold the task labs"):
            loaded.risk(events, questions, replace(DEATH, name="labs"))
    with pytest.raises(InputError, match=r"with the `temperature` 1\.0, not 0\.5"):
        Forecaster.load(rough, calibration=calibration, limit=60, temperature=0.5)
