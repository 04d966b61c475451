"""The journey of a record, end to end, on a world whose true risk is known in closed form.

Events happen at midnight and the prediction time is a midnight, so a horizon of seven days holds eight chances of
death, the first at the prediction time itself and the last exactly at the horizon.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import sequela
from sequela import SimulateSettings, TokenSettings, TrainSettings
from sequela.record.store import read_events, write_dataset
from sequela.record.timeline import timelines
from sequela.record.world import World
from sequela.tasks.task import load_task

TASK = Path(__file__).parent / "death_in_a_week.yaml"
PATIENTS, CHANCES = 6000, 8
TRAINING = TrainSettings(
    depth=1, context=512, epochs=6, batch_tokens=4096, learning_rate=6e-3, matrix_rate=6e-3
)


@dataclass
class Answers:
    """Predicted and true risk of each held-out patient, and the level they were at."""

    predicted: np.ndarray
    level: np.ndarray
    world: World

    def excess(self, world: World, level: int | None = None) -> float:
        """Mean predicted risk minus mean true risk in `world`, in standard errors.

        The error is that of a share among as many patients as the model has learned from: no estimate from these data
        can be surer than that.
        """
        chosen = np.ones(len(self.level), bool) if level is None else self.level == level
        true = np.array([world.risk(i, CHANCES) for i in range(3)])[self.level[chosen]]
        learned_from = PATIENTS * 0.7 * chosen.mean()
        error = np.sqrt(
            (true * (1 - true)).mean() / learned_from + self.predicted[chosen].var() / chosen.sum()
        )
        return float((self.predicted[chosen].mean() - true.mean()) / error)


def travel(folder: Path, tokens: TokenSettings) -> tuple[Answers, Path]:
    """From events to predictions through the public functions."""
    world = World.known()
    write_dataset(world.events(PATIENTS, seed=0), folder / "meds", name="known world")
    sequela.tokenize(folder / "meds", folder / "corpus", settings=tokens)
    sequela.train(folder / "corpus", folder / "model", settings=TRAINING)
    sequela.simulate(
        folder / "model",
        folder / "meds",
        folder / "simulated",
        task=str(TASK),
        settings=SimulateSettings(rollouts=10),
    )
    for estimator in ("scope", "mc"):
        sequela.predict(
            folder / "simulated",
            folder / "meds",
            folder / estimator,
            task=str(TASK),
            estimator=estimator,
            baselines=False,
        )
    return read(folder, "scope"), folder


def read(folder: Path, estimator: str) -> Answers:
    world = World.known()
    found = pl.read_parquet(folder / estimator / "death_in_a_week" / "sequela.parquet").drop_nulls(
        "predicted_boolean_probability"
    )
    level = world.level_before(
        read_events(folder / "meds", "held_out"), found.select("subject_id", "prediction_time")
    )
    return Answers(found["predicted_boolean_probability"].to_numpy(), level, world)


@pytest.fixture(scope="module")
def journey(tmp_path_factory):
    return travel(tmp_path_factory.mktemp("journey"), TokenSettings())


@pytest.mark.parametrize("estimator", ["scope", "mc"])
def test_predicted_risk_is_the_true_risk(journey, estimator):
    answers = read(journey[1], estimator)
    assert len(answers.level) > 1000
    assert abs(answers.excess(answers.world)) < 4
    for level in range(3):
        assert abs(answers.excess(answers.world, level)) < 4


def test_a_wrong_world_is_rejected(journey):
    assert abs(journey[0].excess(World.known(deaths_times=1.5))) > 4
    assert abs(journey[0].excess(World.known(deaths_times=0.7))) > 4


def test_a_horizon_that_ends_when_it_is_reached_would_be_noticed(journey):
    """The 7-day risk must not be the 6-day risk."""
    answers = journey[0]
    true = np.array([answers.world.risk(i, CHANCES) for i in range(3)])[answers.level].mean()
    shorter = np.array([answers.world.risk(i, CHANCES - 1) for i in range(3)])[answers.level].mean()
    assert abs(answers.predicted.mean() - true) < abs(answers.predicted.mean() - shorter)


def test_coarse_bins_bias_the_risk(journey, tmp_path):
    """With two quantiles the lower two levels look the same, so the middle one is given too low a risk."""

    def apart(answers):
        predicted = [answers.predicted[answers.level == i].mean() for i in (0, 1)]
        true = [answers.world.risk(i, CHANCES) for i in (0, 1)]
        return (predicted[1] - predicted[0]) / (true[1] - true[0])

    coarse, _ = travel(tmp_path, TokenSettings(quantiles=2))
    assert apart(coarse) < 0.5 < apart(journey[0])


def test_reality_and_imagination_are_labelled_by_the_same_function(journey):
    folder = journey[1]
    task = load_task(TASK)
    events = read_events(folder / "meds", "held_out")
    real = {t.patient: t for t in timelines(events)}
    imagined = pl.read_parquet(folder / "simulated" / "data" / "*.parquet")
    rollouts = pl.read_parquet(folder / "simulated" / "rollouts.parquet")
    share = []
    for (patient,), group in rollouts.head(300).group_by("subject_id", maintain_order=True):
        at = int(group["prediction_time"].to_physical()[0])
        history = real[patient].until(at)
        labels = []
        for number, end in group.select("rollout", pl.col("end").to_physical()).iter_rows():
            mine = imagined.filter(pl.col("subject_id") == patient, pl.col("rollout") == number)
            future = next(timelines(mine.select("subject_id", "time", "code", "numeric_value")))
            whole = history.then(future)
            whole = type(whole)(whole.patient, whole.time, whole.code, whole.number, end)
            labels.append(task.label(whole, at))
        assert None not in labels
        share.append((patient, np.mean(labels)))
    predicted = pl.read_parquet(folder / "mc" / "death_in_a_week" / "sequela.parquet")
    naive = pl.DataFrame(share, schema=["subject_id", "share"], orient="row")
    both = predicted.join(naive, on="subject_id")
    assert len(both) == 30
    assert np.allclose(both["share"], both["predicted_boolean_probability"])
