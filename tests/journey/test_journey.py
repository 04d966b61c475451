"""The journey of a record, end to end, on a world whose true risk is known in closed form.

Events happen at midnight and the prediction time is a midnight, so a horizon of seven days holds eight chances of
death, the first at the prediction time itself and the last exactly at the horizon.
"""

import numpy as np
import polars as pl
import pytest

from sequela import TokenSettings
from sequela.record.dataset import read_events
from sequela.record.timeline import timelines
from sequela.record.worlds.markov import MarkovWorld
from sequela.task.catalog import load_task
from tests.journey.travel import CHANCES, TASK, read, travel


@pytest.mark.parametrize("estimator", ["scope", "mc"])
def test_predicted_risk_is_the_true_risk(journey, estimator):
    answers = read(journey, estimator)
    assert len(answers.level) > 1000
    assert abs(answers.excess(answers.world)) < 4
    for level in range(3):
        assert abs(answers.excess(answers.world, level)) < 4


def test_a_wrong_world_is_rejected(journey):
    answers = read(journey, "scope")
    assert abs(answers.excess(MarkovWorld.known(deaths_times=1.5))) > 4
    assert abs(answers.excess(MarkovWorld.known(deaths_times=0.7))) > 4


def test_a_horizon_that_ends_when_it_is_reached_would_be_noticed(journey):
    """The 7-day risk must not be the 6-day risk."""
    answers = read(journey, "scope")
    true = np.array([answers.world.risk(i, CHANCES) for i in range(3)])[answers.level].mean()
    shorter = np.array([answers.world.risk(i, CHANCES - 1) for i in range(3)])[answers.level].mean()
    assert abs(answers.predicted.mean() - true) < abs(answers.predicted.mean() - shorter)


@pytest.mark.slow
def test_coarse_bins_bias_the_risk(journey, tmp_path):
    """With two quantiles the lower two levels look the same, so the middle one is given too low a risk."""

    def apart(answers):
        predicted = [answers.predicted[answers.level == i].mean() for i in (0, 1)]
        true = [answers.world.risk(i, CHANCES) for i in (0, 1)]
        return (predicted[1] - predicted[0]) / (true[1] - true[0])

    coarse = read(travel(tmp_path, TokenSettings(quantiles=2)), "scope")
    assert apart(coarse) < 0.5 < apart(read(journey, "scope"))


def test_reality_and_imagination_are_labelled_by_the_same_function(journey):
    folder = journey
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
