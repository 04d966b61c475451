import numpy as np
import polars as pl
import pytest

from sequela.record.schema import DEATH
from sequela.record.worlds.markov import DAY, ENTRY_DAY, EPOCH, MarkovWorld


def dead_within(events: pl.DataFrame, days: int) -> tuple[pl.DataFrame, np.ndarray]:
    at = EPOCH + (ENTRY_DAY + 1) * DAY
    times = (
        events.filter(pl.col("code") == "COHORT//ENTRY")
        .select("subject_id")
        .with_columns(prediction_time=pl.lit(at).cast(pl.Datetime("us")))
    )
    deaths = events.filter(
        pl.col("code") == DEATH, pl.col("time").to_physical() <= EPOCH + (ENTRY_DAY + days) * DAY
    )
    return times, times["subject_id"].is_in(deaths["subject_id"].implode()).to_numpy()


@pytest.mark.parametrize(("factor", "agrees"), [(1.0, True), (1.5, False)])
def test_closed_form_risk_is_the_share_of_deaths(factor, agrees):
    world = MarkovWorld.known()
    events = MarkovWorld.known(factor).events(20_000, seed=1, days=(30, 31))
    times, dead = dead_within(events, 8)
    level = world.level_before(events, times)
    expected = np.array([world.risk(i, 8) for i in range(3)])
    for i in range(3):
        chosen = level == i
        error = np.sqrt(expected[i] * (1 - expected[i]) / chosen.sum())
        assert (abs(dead[chosen].mean() - expected[i]) < 4 * error) == agrees


def test_events_depend_on_the_seed_alone():
    world = MarkovWorld.known()
    assert world.events(50, seed=3).equals(world.events(50, seed=3))
    assert not world.events(50, seed=3).equals(world.events(50, seed=4))
