"""What if, on the known world: a history with another creatinine level has the risk of that level."""

import json

import numpy as np
import polars as pl
import pytest

import sequela
from sequela import SimulateSettings
from sequela.record.dataset import read_events
from sequela.record.worlds.markov import MarkovWorld
from tests.journey.travel import TASK, Answers


@pytest.mark.slow
def test_what_if_is_the_risk_of_the_edited_level(journey, tmp_path):
    """In this world the level alone drives death, so here the association is the effect."""
    world = MarkovWorld.known()
    for level, value in enumerate(world.values):
        out = tmp_path / str(level)
        sequela.whatif(
            journey / "model",
            journey / "meds",
            out,
            task=str(TASK),
            set=f"LAB//CREATININE = {value}",
            patients=300,
            settings=SimulateSettings(rollouts=10),
        )
        told = json.loads((out / "whatif.json").read_text())["tasks"]["death_in_a_week"]
        rows = pl.read_parquet(out / "contrast.parquet")
        was = world.level_before(
            read_events(journey / "meds", "held_out"), rows.select("subject_id", "prediction_time")
        )
        assert told["changed"] == (rows["changed"].to_numpy()).sum() == (was != level).sum()
        moved = rows.filter("changed")
        asked = Answers(moved["what_if"].to_numpy(), np.full(len(moved), level), world)
        assert abs(asked.excess(world)) < 4
        if level == 2:
            assert told["difference"]["low"] > 0.07
            assert abs(asked.excess(MarkovWorld.known(deaths_times=1.5))) > 4
        assert told["variance_removed"] > 0.2
        assert (moved["standard_error"] ** 2).mean() < (moved["unpaired_error"] ** 2).mean()
        assert set(rows.filter(~pl.col("changed"))["difference"]) == {0.0}
