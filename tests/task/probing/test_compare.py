"""What a comparison says of answers whose quality was planted: at landmarks, over the course, in varied histories."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from sequela.record.duration import DAY, UNITS
from sequela.task.probing.cell import Cell
from sequela.task.probing.compare import Contest, compare
from sequela.task.probing.landmarks import Landmark, at_offsets
from sequela.task.probing.variety import THIRDS
from sequela.task.task import Task
from tests.task.conftest import START, make_task

PATIENTS, TASK = 900, make_task()
ARMS = {"plain": {"plain": None}, "better": {"better": None}, "same": {"same": None}}


def made(
    landmark: Landmark, gain: float, *, varied: float = 0.0, seed: int = 0, task: Task = TASK, patients: int = PATIENTS
) -> Cell:
    """Answers of three arms: `better` knows more by `gain`, and in varied histories by `varied` more."""
    draw = np.random.default_rng(seed)
    outcome, entropy = (draw.random(patients) < 0.4).astype(float), draw.uniform(0, 5, patients)
    truth = pl.DataFrame({
        "subject_id": np.arange(patients), "prediction_time": [START] * patients, "label": outcome,
        "until_days": np.full(patients, 10.0), "decided": ["horizon"] * patients,
    })  # fmt: skip
    noise = draw.normal(size=(3, patients))
    signal = {"plain": 0.5, "better": 0.5 + gain + varied * (entropy > 10 / 3), "same": 0.5}
    logits = {name: outcome * strength + noise[0] for name, strength in signal.items()}
    logits["same"] = logits["plain"] + 0.01 * noise[1]
    predictions = {name: 1 / (1 + np.exp(-x)) for name, x in logits.items()}
    return Cell(task, landmark, truth, predictions | {"trees": draw.random(patients)}, entropy)


def contest(**changes) -> Contest:
    return replace(Contest(ARMS, "plain", ("trees",), resample_count=200), **changes)


@pytest.fixture(scope="module")
def told() -> dict:
    now, later = at_offsets(["0 days", "365 days"])
    return compare([made(now, 0.3, varied=1.0), made(later, 1.0, seed=1)], contest())


def test_differences_are_to_the_reference_and_have_words(told: dict) -> None:
    task = told["tasks"]["stroke_10d@365 days"]
    assert task["difference"]["better"]["word"] == "beats"
    assert task["difference"]["same"]["word"] == "matches"
    assert task["difference"]["trees"]["word"] == "is beaten by"
    assert set(task["difference"]) == {"better", "same", "trees"}
    score = {model: scores["auroc"]["value"] for model, scores in task["models"].items()}
    assert task["difference"]["better"]["value"] == pytest.approx(score["better"] - score["plain"])
    assert "Better: better (+0." in task["verdict"] and "Worse: trees (-0." in task["verdict"]
    assert "As good: same" in task["verdict"]
    assert task["landmark_days"] == 365 and task["horizon_days"] == 10 and task["n"] == PATIENTS
    assert told["comparisons"]["count"] == 4 and told["comparisons"]["of_baselines"] == 2
    assert "Over all 4 comparisons of arms" in told["comparisons"]["words"]


def test_arms_are_corrected_without_the_baselines(told: dict) -> None:
    few = compare([made(Landmark("x"), 0.3)], contest(baselines=()))["tasks"]["stroke_10d@x"]["difference"]
    many = compare([made(Landmark("x"), 0.3)], contest())["tasks"]["stroke_10d@x"]["difference"]
    assert few["better"]["p"] == many["better"]["p"] and few["same"]["p"] == many["same"]["p"]


def test_the_gain_over_landmarks_is_a_slope_on_the_same_resamples(told: dict) -> None:
    (course,) = [
        one for one in told["probe"]["courses"] if (one["arm"], one["what"]) == ("better", "gain per year of landmark")
    ]
    gains = [told["tasks"][f"stroke_10d@{name}"]["difference"]["better"]["value"] for name in ("0 days", "365 days")]
    assert course["value"] == pytest.approx((gains[1] - gains[0]) / (365 * DAY / UNITS["year"]))
    assert course["low"] > 0 and course["p"] < 0.05
    (still,) = [
        one for one in told["probe"]["courses"] if (one["arm"], one["what"]) == ("same", "gain per year of landmark")
    ]
    assert still["low"] < 0 < still["high"]


def test_the_gain_in_varied_histories_is_told(told: dict) -> None:
    thirds = told["probe"]["thirds"]["stroke_10d@0 days"]["better"]
    assert list(thirds) == list(THIRDS)
    assert thirds["upper third"]["value"] > thirds["lower third"]["value"] + 0.05
    courses = {(one["of"], one["arm"]): one for one in told["probe"]["courses"] if "entropy" in one["what"]}
    found = courses["stroke_10d@0 days", "better"]
    assert found["value"] == pytest.approx(thirds["upper third"]["value"] - thirds["lower third"]["value"])
    assert found["low"] > 0
    still = courses["stroke_10d@365 days", "better"]  # its gain is the same in all histories
    assert still["low"] < 0 < still["high"]


def test_tasks_that_differ_in_their_horizon_alone_are_one_course() -> None:
    tasks = [make_task(name=f"stroke_{days}d", horizon=days * DAY) for days in (10, 20, 40)]
    other = make_task(name="death", outcome=("MEDS_DEATH",), horizon=80 * DAY)
    gains = (0, 0.4, 0.8, 3)
    cells = [made(Landmark("0 days"), gain, task=task) for gain, task in zip(gains, (*tasks, other), strict=True)]
    told = compare(cells, contest(arms={name: ARMS[name] for name in ("plain", "better")}, baselines=()))
    (course,) = [one for one in told["probe"]["courses"] if "horizon" in one["what"]]
    assert course["of"] == "stroke_10d@0 days, stroke_20d@0 days, stroke_40d@0 days"
    gains = [told["tasks"][f"{task.name}@0 days"]["difference"]["better"]["value"] for task in tasks]
    assert course["value"] == pytest.approx((gains[2] - gains[0]) / 2)


def test_an_answer_that_cannot_be_scored_has_none_and_says_why() -> None:
    cell = made(Landmark("x"), 0.3, patients=30)
    nobody = replace(cell, truth=cell.truth.with_columns(label=pl.lit(0.0)))
    task = compare([nobody], contest())["tasks"]["stroke_10d@x"]
    assert task["difference"] == {} and task["models"]["plain"]["auroc"]["reason"] == "nobody had the outcome"
    assert task["verdict"] == "plain cannot be scored here: nobody had the outcome."


def test_courses_are_corrected_together(told: dict) -> None:
    now, later = at_offsets(["0 days", "365 days"])
    cells = [made(now, 0.3, varied=1.0), made(later, 1.0, seed=1)]
    alone = compare(cells, contest(arms={name: ARMS[name] for name in ("plain", "better")}))
    assert (alone["comparisons"]["of_courses"], told["comparisons"]["of_courses"]) == (3, 6)
    least, alone_least = (min(one["p"] for one in each["probe"]["courses"]) for each in (told, alone))
    assert least == pytest.approx(2 * alone_least, rel=1e-3) and 0 < least < 0.01
