"""Deaths after discharge, of people who are lost at any time: what is not in tokens, the end of each record, teaches.

A third of the patients die some time after they leave, the others are followed until they are lost. If survivors'
records simply stop, death is all that is ever known to follow, and no method can tell: then the warning is the answer.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import sequela
from sequela import SimulateSettings, TrainSettings
from sequela.record.dataset import read_events, write_dataset
from sequela.record.duration import DAY
from sequela.record.schema import BIRTH, DEATH, FOLLOW_UP_END
from sequela.record.worlds.markov import EPOCH
from sequela.rollout import parts as module
from sequela.rollout.request import Request

PATIENTS, ASKED = 3000, 150
RISK, LAST = 0.3, 150  # of dying, evenly over so many days after discharge
TRAINING = TrainSettings(
    depth=1, context=64, epochs=6, batch_tokens=1024, learning_rate=6e-3, matrix_rate=6e-3, checks=0
)


def world(stated: bool) -> pl.DataFrame:
    """A stay of each patient; `stated`: whether the end of follow-up of those who are lost is on record."""
    random = np.random.default_rng(0)
    rows: list[tuple] = []
    for patient in range(PATIENTS):
        left = EPOCH + 3 * DAY
        dies = left + round(random.uniform(1, LAST) * DAY) if random.random() < RISK else np.inf
        lost = left + round(random.uniform(5, 300) * DAY)
        rows += [(patient, None, "GENDER//F"), (patient, EPOCH - 60 * 365 * DAY, BIRTH)]
        rows += [(patient, EPOCH, "HOSPITAL_ADMISSION"), (patient, left, "HOSPITAL_DISCHARGE")]
        if dies < lost:
            rows += [(patient, dies, DEATH), (patient, dies, FOLLOW_UP_END)]
        elif stated:
            rows.append((patient, lost, FOLLOW_UP_END))
    frame = pl.DataFrame(rows, {"subject_id": pl.Int64, "time": pl.Int64, "code": pl.String}, orient="row")
    frame = frame.with_columns(pl.col("time").cast(pl.Datetime("us")), numeric_value=pl.lit(None, pl.Float32))
    return frame.sort("subject_id", "time", nulls_last=False, maintain_order=True)


def predicted(folder: Path, stated: bool) -> tuple[np.ndarray, list[str]]:
    """The risk of death within 160 days of each of some patients, and what tokenize says of the data."""
    write_dataset(world(stated), folder / "meds", name="made", metadata={"real_dates": False})
    sequela.tokenize(folder / "meds", folder / "corpus")
    said = json.loads((folder / "corpus" / "corpus.json").read_text())["findings"]
    sequela.train(folder / "corpus", folder / "model", settings=TRAINING)
    left = read_events(folder / "meds", "held_out").filter(pl.col("code") == "HOSPITAL_DISCHARGE").head(ASKED)
    times = left.select("subject_id", prediction_time=pl.col("time") + pl.duration(minutes=1))
    asked = Request("death", times, (DEATH,), (), 160 * 1440)
    (folder / "simulated").mkdir()
    settings = SimulateSettings(rollouts=8, limit=32)
    module.simulate(folder / "model", folder / "meds", folder / "simulated", [asked], settings)
    table = pl.read_parquet(folder / "simulated" / "rollouts.parquet")
    risks = table.group_by("subject_id").agg(pl.col("scope//death").mean())["scope//death"].to_numpy()
    return risks, [finding["what"] for finding in said]


def test_the_risk_is_that_of_everybody_if_everybody_was_followed(tmp_path):
    risks, said = predicted(tmp_path, stated=True)
    assert len(risks) == ASKED
    assert abs(risks.mean() - RISK) < 4 * np.sqrt(RISK * (1 - RISK) / (0.5 * 0.7 * PATIENTS))
    assert not any("does not go on" in one for one in said)


@pytest.mark.slow
def test_of_records_that_stop_only_deaths_are_known_and_it_is_said(tmp_path):
    """The planted offence: follow-up depends on the outcome."""
    risks, said = predicted(tmp_path, stated=False)
    assert risks.mean() > 0.9
    assert sum("where only deaths are known to follow a silence" in one for one in said) == 1
