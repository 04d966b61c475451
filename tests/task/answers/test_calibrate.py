"""Calibration on tuning patients: what it learns, where it is used, and what it refuses."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from sequela.errors import InputError
from sequela.record.dataset import read_events, write_dataset
from sequela.rollout.settings import RULES, SimulateSettings
from sequela.task.answers.calibrate import calibrate
from sequela.task.answers.calibration import Calibration
from sequela.task.answers.predict import PredictSettings, predict
from sequela.task.answers.prediction import read_predictions
from sequela.task.label import labels
from sequela.task.scoring.evaluate import evaluate
from tests.task.answers.test_estimate import rollout, write_simulated
from tests.task.conftest import make_cohort, make_task

TASK = make_task()
MADE = {"model": "one", "rules": RULES, "settings": {"rollouts": 4, "limit": 64, "temperature": 1.0}}
MAPS = ["sequela_logistic", "sequela_isotonic"]


@pytest.fixture(scope="module")
def meds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort") / "meds"
    write_dataset(make_cohort(900), folder, name="made", fractions=(0.2, 0.4, 0.4))
    return folder


def simulate(folder, meds, split, about=MADE, rollouts=4):
    """Scores about a risk that knows the answer a little, and is three times too high."""
    draw, events = np.random.default_rng(len(split)), read_events(meds, split)
    truth = labels(TASK, events, TASK.prediction_times(events))
    rows = [
        rollout(patient, number, scope=float(min(draw.gamma(2, 0.25 + 0.15 * (label or 0)), 1)))
        for patient, label in truth.select("subject_id", "label").iter_rows()
        for number in range(rollouts)
    ]
    write_simulated(folder, rows)
    (folder / "simulate.json").write_text(json.dumps(about))
    return folder


@pytest.fixture(scope="module")
def calibrated(meds, tmp_path_factory):
    place = tmp_path_factory.mktemp("calibrated")
    report = calibrate(simulate(place / "tuning", meds, "tuning"), meds, place / "out", [TASK])
    return place / "out", report


@pytest.fixture(scope="module")
def held_out(meds, tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("held-out") / "s", meds, "held_out")


@pytest.fixture(scope="module")
def predicted(calibrated, held_out, meds, tmp_path_factory):
    out, said = tmp_path_factory.mktemp("predicted"), []
    settings = PredictSettings(calibration=Calibration.load(calibrated[0]), strong=False)
    return out, predict(held_out, meds, out, [TASK], settings, say=said.append), said


def test_it_stores_what_it_learned(calibrated):
    folder, report = calibrated
    about = json.loads((folder / "calibration.json").read_text())
    (task,) = about["tasks"].values()
    assert (about["model"], about["rollouts"]) == ("one", 4)
    assert about["settings"] == {"limit": 64, "temperature": 1.0}
    assert report["stroke_10d"]["maps"] == ["logistic", "isotonic"]
    assert task["estimator"] == "scope" and 30 < task["events"] < task["questions"]
    _, tuning = read_predictions(folder / "stroke_10d" / "sequela.parquet")
    known = tuning.filter(pl.col("label").is_not_null())
    assert (task["questions"], task["events"]) == (known.height, known["label"].sum())
    assert 0.1 < task["overdispersion"] < 0.6 and task["effect"] == pytest.approx(1, abs=0.2)
    assert json.loads(json.dumps(Calibration.load(folder).tasks["stroke_10d"].as_dict())) == task


def test_the_line_begins_with_risks_drawn_in_by_what_is_noise(calibrated):
    folder, _ = calibrated
    task = Calibration.load(folder).tasks["stroke_10d"]
    _, tuning = read_predictions(folder / "stroke_10d" / "sequela.parquet")
    noise = task.spread.effect * (tuning["standard_error"] ** 2).mean()
    credibility = task.logistic.credibility
    assert credibility.share == pytest.approx(1 - noise / tuning["prediction"].var(), abs=1e-4)
    assert credibility.mean == pytest.approx(tuning["prediction"].mean(), abs=1e-4)
    assert 0.1 < credibility.share < 0.9  # four rollouts


def test_recalibrated_risks_stand_beside_the_raw_ones(predicted, held_out, meds, tmp_path):
    out, report, said = predicted
    assert report["stroke_10d"]["models"][:3] == ["sequela", *MAPS]
    assert not said
    predict(held_out, meds, tmp_path / "raw", [TASK], PredictSettings(baselines=False))
    raw, mine, *recalibrated = (
        read_predictions(path)[1]
        for path in (
            tmp_path / "raw" / "stroke_10d" / "sequela.parquet",
            *(out / "stroke_10d" / f"{name}.parquet" for name in ["sequela", *MAPS]),
        )
    )
    assert raw["prediction"].equals(mine["prediction"])
    for one in recalibrated:
        assert one["rollouts"].null_count() == len(one)
        order = mine["prediction"].arg_sort()
        assert (one["prediction"][order].diff().drop_nulls() >= -1e-9).all()
        inside = one.filter((pl.col("low") <= pl.col("prediction")) & (pl.col("prediction") <= pl.col("high")))
        assert inside.height == len(one)


def test_recalibrated_risks_are_right_on_average_and_no_rivals(predicted, tmp_path):
    scores = evaluate(predicted[0], tmp_path, resample_count=20)["tasks"]["stroke_10d"]
    assert list(scores["models"])[:3] == ["sequela", *sorted(MAPS)]
    ratio = {name: scores["models"][name]["oe"]["value"] for name in ("sequela", *MAPS)}
    assert ratio["sequela"] < 0.7
    assert all(0.8 < ratio[name] < 1.25 for name in MAPS)
    assert not {*MAPS} & scores["difference"].keys() and "logistic" in scores["difference"]
    assert not any(name in scores["verdict"] for name in MAPS)


def test_what_it_was_not_made_for_is_refused_in_a_sentence(calibrated, meds, tmp_path):
    calibration = Calibration.load(calibrated[0])

    def refusal(about=MADE, task=TASK, estimator="scope"):
        folder = simulate(tmp_path / str(len(list(tmp_path.iterdir()))), meds, "held_out", about, 2)
        settings = PredictSettings(estimator, baselines=False, calibration=calibration)
        with pytest.raises(InputError) as caught:
            predict(folder, meds, tmp_path / "out", [task], settings)
        assert "calibrate again" in str(caught.value)
        return str(caught.value)

    assert "another model" in refusal(MADE | {"model": "other"})
    assert "another model" in refusal({name: x for name, x in MADE.items() if name != "model"})
    warm = MADE | {"settings": MADE["settings"] | {"temperature": 0.5}}
    assert "with the `temperature` 1.0, not 0.5" in refusal(warm)
    assert "does not hold the task fall" in refusal(task=make_task(name="fall"))
    assert "another task of the name 'stroke_10d'" in refusal(task=make_task(horizon=5 * 86_400_000_000))
    assert "by the estimator scope, not mc" in refusal(estimator="mc")


def test_the_mean_of_several_models_is_calibrated_as_such(held_out, meds, tmp_path):
    tuning = [
        simulate(tmp_path / f"t{n}", meds, "tuning", MADE | {"model": n, "settings": MADE["settings"] | {"seed": k}})
        for k, n in enumerate(("one", "two"))
    ]
    report = calibrate(tuning, meds, tmp_path / "out", [TASK])
    calibration = Calibration.load(tmp_path / "out")
    assert calibration.simulated.model == "one two" and report["stroke_10d"]["maps"]
    settings = PredictSettings(baselines=False, calibration=calibration)
    found = predict(tuning[::-1], meds, tmp_path / "p", [TASK], settings)  # whose they are does not matter here
    assert found["stroke_10d"]["models"] == ["sequela", "sequela_1", "sequela_2", *MAPS]
    with pytest.raises(InputError, match="another model"):
        predict(held_out, meds, tmp_path / "p", [TASK], settings)


def test_another_number_of_rollouts_is_said(calibrated, held_out, meds, tmp_path):
    said = []
    settings = PredictSettings(first=2, baselines=False, calibration=Calibration.load(calibrated[0]))
    predict(held_out, meds, tmp_path, [TASK], settings, say=said.append)
    assert len(said) == 1 and "risks of 4 rollouts, and these are of 2" in said[0]


def test_auto_takes_the_overdispersion_of_others(calibrated):
    calibration = Calibration.load(calibrated[0])
    known = calibration.tasks["stroke_10d"].spread.overdispersion
    auto = SimulateSettings(estimator="auto")
    assert calibration.known_to(auto).overdispersion == known
    assert calibration.known_to(replace(auto, overdispersion=0.2)).overdispersion == 0.2
    assert calibration.known_to(SimulateSettings()) == SimulateSettings()
    assert calibration.spread(TASK, "scope", 4).effect == calibration.tasks["stroke_10d"].spread.effect
    assert calibration.spread(TASK, "scope", 3).effect == 1
    assert calibration.spread(TASK, "reach", 4) is None


def test_too_few_cases_are_said_and_numbers_refused(meds, tmp_path):
    rare, said = make_task(outcome=("MEDS_DEATH",), ends=(), horizon=86_400_000_000), []
    report = calibrate(
        simulate(tmp_path / "s", meds, "tuning"), meds, tmp_path / "out", [rare], say=said.append
    )
    assert report["stroke_10d"]["maps"] == [] and "needs 10 of each kind" in said[0]
    settings = PredictSettings(baselines=False, calibration=Calibration.load(tmp_path / "out"))
    found = predict(simulate(tmp_path / "h", meds, "held_out"), meds, tmp_path / "p", [rare], settings)
    assert found["stroke_10d"]["models"] == ["sequela"]
    stay = make_task(name="stay", kind="time", ends=())
    with pytest.raises(InputError, match="no task asks for a risk"):
        calibrate(tmp_path / "s", meds, tmp_path / "out", [stay])
    with pytest.raises(InputError, match=r"holds no calibration\.json"):
        Calibration.load(tmp_path)
    (tmp_path / "calibration.json").write_text("{}")
    with pytest.raises(InputError, match="is damaged"):
        Calibration.load(tmp_path)
