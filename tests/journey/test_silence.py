"""Nothing happened until now, and that is news: a world in which silence after an event tells what comes next.

After a scan somebody dies soon, or somewhat later, or has a visit weeks later. Who is still silent after days has
outlived the first danger; the risk of dying within a week is then a ratio of two sums of the world's probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

import sequela
from sequela import SimulateSettings, TrainSettings
from sequela.record.dataset import read_events, write_dataset
from sequela.record.schema import BIRTH, DEATH, FOLLOW_UP_END
from sequela.rollout import forecast as forecasting
from sequela.rollout import parts as module
from sequela.rollout.request import Request

ZERO = datetime(2000, 1, 1)
PATIENTS = 6000
WEEK = 7 * 1440
# Kinds of scan, and what follows: the share, from and up to which day, and what it is. Days lie within one interval.
NEXT = {
    "SCAN//CLEAR": ((0.15, 0.6, 0.9, DEATH), (0.15, 1.2, 2.8, DEATH), (0.1, 3.2, 6.8, DEATH), (0.6, 8, 13, "VISIT")),
    "SCAN//SHADOW": ((0.5, 0.6, 0.9, DEATH), (0.1, 1.2, 2.8, "VISIT"), (0.1, 3.2, 6.8, DEATH), (0.3, 8, 13, "VISIT")),
}  # fmt: skip


def risk(scan: str, silent: int) -> float:
    """Of death within a week, for those of whom nothing was heard for so many days after the scan."""
    left = [one for one in NEXT[scan] if one[1] >= silent]
    return sum(share for share, _, _, what in left if what == DEATH) / sum(share for share, *_ in left)


def world(seed: int) -> pl.DataFrame:
    """MEDS events: a scan on some day, what follows, and after a visit another one every month or so."""
    random = np.random.default_rng(seed)
    rows = []
    for patient in range(PATIENTS):
        rows.append((patient, None, random.choice(["GENDER//F", "GENDER//M"])))
        rows.append((patient, -random.uniform(50, 70) * 365, BIRTH))
        day, scan = random.uniform(0, 30), random.choice(list(NEXT))
        rows.append((patient, day, scan))
        share, start, end, what = zip(*NEXT[scan], strict=True)
        one = random.choice(len(what), p=share)
        day += random.uniform(start[one], end[one])
        rows.append((patient, day, what[one]))
        if what[one] != DEATH:
            rows += [(patient, day + 35 * (n + 1), "VISIT") for n in range(2)]
            rows.append((patient, day + 80, FOLLOW_UP_END))
    times = [None if day is None else ZERO + timedelta(minutes=round(1440 * day)) for _, day, _ in rows]
    return pl.DataFrame({
        "subject_id": pl.Series([row[0] for row in rows], dtype=pl.Int64),
        "time": pl.Series(times, dtype=pl.Datetime("us")),
        "code": [row[2] for row in rows],
        "numeric_value": pl.Series([None] * len(rows), dtype=pl.Float32),
    }).sort("subject_id", "time", nulls_last=False, maintain_order=True)  # fmt: skip


@dataclass(frozen=True)
class Learned:
    """Where the model and the records are, and the scan of each patient."""

    model: object
    meds: object
    held_out: pl.DataFrame
    train: pl.DataFrame

    def silent(self, events: pl.DataFrame, scan: str, days: int) -> pl.DataFrame:
        """Who had that scan and then nothing for so many days: `subject_id` and the `prediction_time`."""
        timed = events.filter(pl.col("time").is_not_null(), pl.col("code") != BIRTH)
        own = timed.group_by("subject_id").agg(
            pl.col("code").first(), pl.col("time").first(), then=pl.col("time").slice(1, 1).first()
        )
        at = pl.col("time") + pl.duration(days=days)
        return (
            own.filter(pl.col("code") == scan, pl.col("then") >= at)
            .select("subject_id", prediction_time=at.cast(pl.Datetime("us")))
            .sort("subject_id")
        )


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("silence")
    write_dataset(world(0), folder / "meds", name="silent world")
    sequela.tokenize(folder / "meds", folder / "corpus")
    sequela.train(
        folder / "corpus",
        folder / "model",
        settings=TrainSettings(
            depth=1, context=128, epochs=8, batch_tokens=2048, learning_rate=6e-3, matrix_rate=6e-3
        ),
    )
    return Learned(
        folder / "model",
        folder / "meds",
        read_events(folder / "meds", "held_out"),
        read_events(folder / "meds", "train"),
    )


def excess(learned, out, scan, days) -> float:
    """Mean predicted risk minus the true one, in standard errors: those of a share among the patients learned from,
    and of sampling."""
    times = learned.silent(learned.held_out, scan, days).head(200)
    asked = Request("death", times, (DEATH,), (), WEEK)
    out.mkdir()
    module.simulate(learned.model, learned.meds, out, [asked], SimulateSettings(rollouts=10, limit=64))
    table = pl.read_parquet(out / "rollouts.parquet")
    assert table["subject_id"].n_unique() == len(times) > 40
    predicted = table.group_by("subject_id").agg(pl.col("scope//death").mean())["scope//death"].to_numpy()
    true = risk(scan, days)
    error = np.sqrt(
        true * (1 - true) / len(learned.silent(learned.train, scan, days)) + predicted.var() / len(predicted)
    )
    return float((predicted.mean() - true) / error)


CASES = [(scan, days) for scan in NEXT for days in (1, 3)]


@pytest.mark.parametrize(("scan", "days"), CASES)
def test_the_risk_is_that_of_those_who_were_silent_as_long(learned, tmp_path, scan, days):
    assert abs(excess(learned, tmp_path / "out", scan, days)) < 4


def forgets(prompts):
    """As if the last event were now."""
    return replace(prompts, clock=np.zeros_like(prompts.clock), first=np.ones_like(prompts.first))


def starts_at_the_last_event(prompts):
    """The clock runs from there, but what comes next may come before now."""
    return replace(prompts, first=np.ones_like(prompts.first))


@pytest.mark.parametrize("change", [forgets, starts_at_the_last_event])
@pytest.mark.parametrize(("scan", "days"), CASES)
def test_without_what_silence_tells_it_is_rejected(learned, tmp_path, monkeypatch, change, scan, days):
    """Negative control."""
    made = forecasting.prompts_of

    def changed(*arguments):
        times, prompts = made(*arguments)
        return times, change(prompts)

    monkeypatch.setattr(forecasting, "prompts_of", changed)
    assert abs(excess(learned, tmp_path / "out", scan, days)) > 4


def test_silence_is_news_in_this_world():
    """The true risks differ, by scan and by how long it was silent."""
    risks = [round(risk(scan, days), 3) for scan in NEXT for days in (0, 1, 3)]
    assert risks == [0.4, 0.294, 0.143, 0.6, 0.2, 0.25]
