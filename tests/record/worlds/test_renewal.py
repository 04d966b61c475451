"""Patients of the world of renewals die as often as its exact risks say."""

from datetime import timedelta

import numpy as np
import polars as pl

from sequela.record.schema import DEATH
from sequela.record.worlds.renewal import RenewalWorld

WORLD = RenewalWorld()
CODES = [code for code, _ in WORLD.sooner]


def test_deaths_come_as_often_as_the_risks_say():
    """Against patients of the world: who dies within 75 days of the first scan."""
    events = WORLD.events(8000, seed=5)
    first = events.filter(pl.col("code").is_in(CODES)).group_by("subject_id", maintain_order=True).first()
    death = events.filter(pl.col("code") == DEATH).select("subject_id", died="time")
    both = first.join(death, on="subject_id", how="left")
    within = (pl.col("died") <= pl.col("time") + timedelta(days=75)).fill_null(False)
    for code in CODES:
        share = both.filter(pl.col("code") == code).select(within.mean()).item()
        true = WORLD.risk(code, 0, 75)
        assert abs(share - true) < 4 * np.sqrt(true * (1 - true) / 4000)


def test_silence_and_findings_are_news():
    risks = [round(WORLD.risk(code, silent, 30), 3) for code in CODES for silent in (0, 25)]
    assert len(set(risks)) == 4
    assert WORLD.risk(CODES[0], 40, 30) == WORLD.risk(CODES[1], 40, 30)  # the month over, only the shape is left
