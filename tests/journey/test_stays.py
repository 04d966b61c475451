"""Stays that end in death: discharge and death at one time, as hospitals record them, on a world of known risks.

The record of a survivor ends with the discharge. So the model must learn from those who die that death comes at the
very moment of a discharge, and from the others that it mostly does not.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import sequela
from sequela import SimulateSettings, TrainSettings
from sequela.record.dataset import write_dataset
from sequela.record.duration import DAY, HOUR
from sequela.record.schema import BIRTH, DEATH
from sequela.record.worlds.markov import EPOCH

STAYS = 2000
LEVELS = {0.8: 0.15, 1.3: 0.4, 1.9: 0.65}  # creatinine, mg/dL, and the risk of dying in the stay
TASK = """\
name: died
title: Death in hospital
dataset: made
kind: binary
at: {after: HOSPITAL_ADMISSION, offset: 1 day}
outcome: [MEDS_DEATH]
ends: ["HOSPITAL_DISCHARGE*"]
"""
TRAINING = TrainSettings(
    depth=1, context=128, epochs=6, batch_tokens=1024, learning_rate=6e-3, matrix_rate=6e-3
)
ESTIMATORS = ("scope", "mc", "reach")


def stays(seed: int, where: bool) -> pl.DataFrame:
    """One stay of each patient; `where`: whether a discharge says where to."""
    random = np.random.default_rng(seed)
    rows: list[tuple] = []
    for patient in range(STAYS):
        creatinine = float(random.choice(list(LEVELS)))
        died, days = random.random() < LEVELS[creatinine], int(random.integers(2, 5))
        end = EPOCH + days * DAY
        rows += [(patient, None, "GENDER//F", None), (patient, EPOCH - 60 * 365 * DAY, BIRTH, None)]
        rows += [(patient, EPOCH, "HOSPITAL_ADMISSION", None)]
        rows += [(patient, EPOCH + day * DAY + 8 * HOUR, "LAB//CREATININE", creatinine) for day in range(days)]
        to = ("//DIED" if died else "//HOME") if where else ""
        rows += [(patient, end, f"HOSPITAL_DISCHARGE{to}", None), *([(patient, end, DEATH, None)] if died else [])]
    schema = {"subject_id": pl.Int64, "time": pl.Int64, "code": pl.String, "numeric_value": pl.Float32}
    frame = pl.DataFrame(rows, schema, orient="row").with_columns(pl.col("time").cast(pl.Datetime("us")))
    return frame.sort("subject_id", "time", nulls_last=False, maintain_order=True)


def travel(folder: Path, where: bool) -> dict[str, pl.DataFrame]:
    """By estimator, the predicted `risk` of each held-out patient beside the true one."""
    events = stays(0, where)
    write_dataset(events, folder / "meds", name="made", metadata={"real_dates": False})
    sequela.tokenize(folder / "meds", folder / "corpus")
    sequela.train(folder / "corpus", folder / "model", settings=TRAINING)
    task = folder / "died.yaml"
    task.write_text(TASK)
    found = {}
    for estimator in ESTIMATORS:
        pool = folder / ("avoiding" if estimator == "reach" else "simulated")
        if not pool.exists():
            settings = SimulateSettings(estimator=estimator, rollouts=4, limit=64)
            sequela.simulate(folder / "model", folder / "meds", pool, task=str(task), settings=settings)
        out = folder / estimator
        sequela.predict(pool, folder / "meds", out, task=str(task), estimator=estimator, baselines=False)
        predicted = pl.read_parquet(out / "died" / "sequela.parquet").drop_nulls("predicted_boolean_probability")
        level = events.drop_nulls("numeric_value").unique("subject_id").select("subject_id", "numeric_value")
        found[estimator] = predicted.join(level, on="subject_id").select(
            risk="predicted_boolean_probability",
            true=pl.col("numeric_value").round(1).cast(pl.Float64).round(1).replace_strict(LEVELS),
        )
    return found


def excess(found: pl.DataFrame, times: float = 1.0) -> float:
    """Mean predicted risk minus the mean of the true one, `times` so large, in standard errors.

    The error is that of a share among as many patients as the model has learned from.
    """
    risk, true = found["risk"].to_numpy(), times * found["true"].to_numpy()
    learned_from = STAYS * 0.7 * len(found) / (STAYS * 0.2)
    error = np.sqrt((true * (1 - true)).mean() / learned_from + risk.var() / len(risk))
    return float((risk.mean() - true.mean()) / error)


def agrees(found: dict[str, pl.DataFrame]) -> None:
    for estimator in ESTIMATORS:
        assert len(found[estimator]) > 300
        assert abs(excess(found[estimator])) < 4, estimator
        for true in LEVELS.values():
            assert abs(excess(found[estimator].filter(pl.col("true") == true))) < 4, (estimator, true)
        # Negative controls: nearly nobody dies, as when a discharge closes the question at once; or too many do
        assert excess(found[estimator], 0.05) > 4 and excess(found[estimator], 1.4) < -4


def test_deaths_at_the_moment_of_discharge_are_foretold(tmp_path):
    agrees(travel(tmp_path, where=True))


@pytest.mark.slow
def test_a_discharge_that_does_not_say_where_to_is_followed_by_death_as_often_as_it_is(tmp_path):
    agrees(travel(tmp_path, where=False))
