"""Four ways to spend rollouts on the model of the known world: they answer the same question, and so agree.

Sampling alone stands between them, so they are held to much smaller errors than the truth, of which the model knows
only what it has learned from.
"""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from sequela import SimulateSettings
from sequela.record.worlds.markov import MarkovWorld
from tests.journey.travel import futures, predictions, read

pytestmark = pytest.mark.slow  # tests/rollout holds each estimator to exact sums in seconds

PATIENTS = 200
KEY = ["subject_id", "prediction_time"]
SPENT = {
    "scope": SimulateSettings(rollouts=10, seed=1),
    "reach": SimulateSettings(rollouts=10, estimator="reach", seed=2),
    "auto": SimulateSettings(rollouts=60, estimator="auto", target_error=0.015, seed=3),
    "side": SimulateSettings(rollouts=60, estimator="auto", threshold=0.2, seed=5),
    "exact": SimulateSettings(rollouts=120, estimator="reach", seed=4),  # what the model believes, nearly
}


@pytest.fixture(scope="module")
def answers(journey, tmp_path_factory):
    """The predictions of each estimator by its name, and the folder that holds them."""
    folder = tmp_path_factory.mktemp("estimators")
    for name in ("meds", "model"):
        (folder / name).symlink_to(journey / name)
    found = {}
    for name, settings in SPENT.items():
        futures(folder, f"simulated-{name}", settings, PATIENTS)
        own = settings.estimator
        found[name] = predictions(folder, f"simulated-{name}", name, own).sort(KEY)
    found["mc"] = predictions(folder, "simulated-scope", "mc", "mc").sort(KEY)
    return found, folder


def of(frame: pl.DataFrame, column: str) -> np.ndarray:
    return frame[column].cast(pl.Float64).to_numpy()


def apart(one: pl.DataFrame, other: pl.DataFrame) -> float:
    """Mean difference of the risks of the same patients, in standard errors of sampling."""
    assert one.select(KEY).equals(other.select(KEY))
    difference = of(one, "predicted_boolean_probability") - of(other, "predicted_boolean_probability")
    return float(difference.mean() / (difference.std(ddof=1) / np.sqrt(len(difference))))


@pytest.mark.parametrize("estimator", ["mc", "scope", "reach", "auto", "side"])
def test_they_agree_with_each_other(answers, estimator):
    found, _ = answers
    assert len(found[estimator]) == PATIENTS
    for other in ("scope", "reach", "auto", "side", "exact"):
        if other != estimator:
            assert abs(apart(found[estimator], found[other])) < 4, other
    # Negative control: what each would say of a world with somewhat fewer deaths
    wrong = pl.col("predicted_boolean_probability") * 0.7
    assert abs(apart(found[estimator].with_columns(wrong), found["exact"])) > 4


@pytest.mark.parametrize("estimator", ["mc", "scope", "reach", "auto", "side", "exact"])
def test_they_agree_with_the_truth(answers, estimator):
    told = read(answers[1], estimator)
    assert abs(told.excess(told.world)) < 4
    assert all(abs(told.excess(told.world, level)) < 4 for level in range(3))
    assert abs(told.excess(MarkovWorld.known(deaths_times=2.0))) > 4  # negative control


def covered(frame: pl.DataFrame, exact: pl.DataFrame, width: float = 1.0) -> float:
    """The share of intervals, times a width, that hold what the model believes."""
    low, high = of(frame, "low"), of(frame, "high")
    middle, half = (low + high) / 2, (high - low) / 2 * width
    return float((np.abs(of(exact, "predicted_boolean_probability") - middle) <= half + 1e-9).mean())


@pytest.mark.parametrize("estimator", ["mc", "scope", "reach", "auto", "side"])
def test_intervals_hold_what_the_model_believes(answers, estimator):
    found, _ = answers
    error = 3 * np.sqrt(0.95 * 0.05 / PATIENTS)
    assert 0.93 - error < covered(found[estimator], found["exact"]) <= 1
    assert covered(found[estimator], found["exact"], 0.4) < 0.93 - error  # negative control


def test_reach_is_surer_than_scope_and_scope_than_mc(answers):
    found, _ = answers
    exact = of(found["exact"], "predicted_boolean_probability")
    mc, scope, reach = (
        float(((of(found[name], "predicted_boolean_probability") - exact) ** 2).mean())
        for name in ("mc", "scope", "reach")
    )
    assert reach < scope < mc
    assert of(found["reach"], "standard_error").mean() < of(found["mc"], "standard_error").mean() / 2


def plan_of(folder, name):
    return json.loads((folder / f"simulated-{name}" / "simulate.json").read_text())["plan"]


def test_auto_reaches_the_error_that_is_asked_for(answers):
    found, folder = answers
    plan = plan_of(folder, "auto")
    assert plan["estimator"] == "reach" and plan["target"] == 0.015  # one task alone: futures that avoid it
    spent, error = of(found["auto"], "rollouts"), of(found["auto"], "standard_error")
    assert spent.min() >= 16 and spent.max() <= 60 and len(np.unique(spent)) > 5
    assert 0.5 * 0.015 < error.mean() < 1.2 * 0.015
    assert of(found["reach"], "standard_error").mean() > 1.2 * 0.015  # negative control: 10 do not reach it


def test_auto_spends_rollouts_on_those_near_the_threshold(answers):
    found, folder = answers
    assert plan_of(folder, "side")["threshold"] == 0.2 and plan_of(folder, "side")["target"] is None
    spent, exact = of(found["side"], "rollouts"), of(found["exact"], "predicted_boolean_probability")
    near, far = np.array_split(spent[np.argsort(np.abs(exact - 0.2))], 2)
    assert far.min() == 16 and near.mean() > 1.2 * far.mean()
    low, high = of(found["side"], "low"), of(found["side"], "high")
    settled = (low > 0.2) | (high < 0.2)
    assert settled[spent < 60].mean() > 0.6
    assert (exact > 0.2)[settled & (low > 0.2)].mean() > 0.9 and (exact < 0.2)[
        settled & (high < 0.2)
    ].mean() > 0.9
