"""Patients of the world of hidden courses: their records are sound, hide what they should, and are confounded."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from sequela.record.schema import DEATH, FOLLOW_UP_END
from sequela.record.worlds.latent import AHEAD, HIDDEN, LABS, TREATED, LatentWorld

WORLD = LatentWorld()
PATIENTS = 1500


@pytest.fixture(scope="module")
def events():
    return WORLD.events(PATIENTS, seed=2)


@pytest.fixture(scope="module")
def truth():
    return WORLD.truth(PATIENTS, seed=2)


def test_records_are_sound(events, truth):
    assert events.sort("subject_id", "time", maintain_order=True).equals(events)
    assert (events["code"] == DEATH).sum() / PATIENTS == pytest.approx(0.56, abs=0.05)
    last = events.group_by("subject_id", maintain_order=True).last()
    assert set(last["code"].unique()) == {DEATH, FOLLOW_UP_END}
    visits = (
        events.filter(pl.col("code").is_in(LABS))
        .group_by("subject_id", "time")
        .len()
        .sort("subject_id", "time")
    )
    assert (
        set(visits["len"]) == {len(LABS)} and visits.group_by("subject_id").len()["len"].max() == WORLD.visits
    )
    assert visits["subject_id"].to_list() == truth["subject_id"].to_list()
    assert visits["time"].dt.offset_by("1m").to_list() == truth["prediction_time"].to_list()
    nuisance = events.filter(pl.col("code").str.starts_with("NUISANCE")).group_by("subject_id", "time")
    each = nuisance.agg(pl.len(), pl.col("code").n_unique())
    assert each.height == truth.height and set(each["len"]) == set(each["code"]) == {WORLD.nuisance[1]}


def test_truth_of_death_is_that_of_the_records(events, truth):
    """Where records reach far enough to tell."""
    count = truth.group_by("subject_id").len("visits")
    died = events.filter(pl.col("code") == DEATH).select("subject_id", died=pl.lit(True))
    told = truth.join(count, on="subject_id").join(died, on="subject_id", how="left").fill_null(False)
    told = told.filter(pl.col("died") | (pl.col("visit") + AHEAD < WORLD.visits))
    within = told["died"] & (told["visits"] <= told["visit"] + AHEAD)
    assert (within == told["dies"]).all() and 0.1 < told["dies"].mean() < 0.5


def test_a_seed_is_a_world(events):
    assert WORLD.events(PATIENTS, seed=2).equals(events)
    assert not WORLD.events(PATIENTS, seed=3).equals(events)


def test_treatment_helps_but_the_treated_look_worse():
    drawn = WORLD.courses(PATIENTS, seed=2)
    change = np.diff(drawn.severity, axis=1) - drawn.velocity[:, :-1]
    treated = drawn.treated[:, :-1]
    expected = (drawn.sensitivity[:, None] * treated).sum() / treated.sum()
    assert change[~treated].mean() - change[treated].mean() == pytest.approx(expected, abs=0.01)
    labs = drawn.labs.mean(-1)[:, 1:]
    assert labs[treated].mean() > labs[~treated].mean() + 0.5


def test_nuisance_means_nothing_and_labs_do(events, truth):
    """R2 of the severity by least squares on what a visit holds."""
    wide = (
        events.with_columns(prediction_time=pl.col("time").dt.offset_by("1m"), here=pl.lit(1.0))
        .join(truth.select("subject_id", "prediction_time"), on=["subject_id", "prediction_time"])
        .pivot("code", index=["subject_id", "prediction_time"], values="here", aggregate_function="sum")
        .sort("subject_id", "prediction_time")
        .fill_null(0)
    )
    severity = truth["severity"].to_numpy()

    def explained(columns):
        x = np.column_stack([wide.select(columns).to_numpy(), np.ones(len(severity))])
        left = severity - x @ np.linalg.lstsq(x, severity, rcond=None)[0]
        return 1 - left.var() / severity.var()

    assert explained([name for name in wide.columns if name.startswith("NUISANCE")]) < 0.01
    assert explained([TREATED]) > 0.1


def test_visits_come_when_they_should():
    regular = WORLD.courses(50, seed=0).time
    assert set(np.diff(regular, axis=1).ravel()) == {30 * 86_400_000_000}
    gaps = np.diff(replace(WORLD, gap=(20.0, 0.5)).courses(500, seed=0).time, axis=1) / 86_400_000_000
    assert np.median(gaps) == pytest.approx(20, rel=0.05)
    assert np.log(gaps).std() == pytest.approx(0.5, rel=0.05)


def test_hidden_values_vary_as_the_world_says():
    first = WORLD.truth(PATIENTS, seed=2).filter(pl.col("visit") == 0)
    for name in HIDDEN:
        mean, deviation = getattr(WORLD, name)
        assert first[name].mean() == pytest.approx(mean, abs=4 * deviation / PATIENTS**0.5)
        assert first[name].std() == pytest.approx(deviation, rel=0.08)
