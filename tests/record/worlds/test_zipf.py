import numpy as np
import polars as pl
import pytest

from sequela.record.dataset import read_events
from sequela.record.schema import DEATH
from sequela.record.worlds.zipf import GAPS, ZipfWorld

SMALL = ZipfWorld.known(states=12, conditions=3, rank=4, events=15.0)


def bits(records: pl.DataFrame, world: ZipfWorld) -> np.ndarray:
    """What `world` needs for each record event by event: the slow way."""
    found = []
    for _, record in records.group_by("subject_id", maintain_order=True):
        kinds = record["code"].cast(pl.String).to_list()
        condition = int(kinds[0].removeprefix("CONDITION//"))
        states = [
            world.start.shape[1] if one == DEATH else int(one.removeprefix("STATE//")) for one in kinds[1:]
        ]
        gaps = record["time"].diff()[1:].dt.total_minutes().to_list()
        chances = [
            1 / len(world.start),
            world.start[condition, states[0]],
            world.gaps[-1, GAPS.index(gaps[0])],
        ]
        for before, state, gap in zip(states, states[1:], gaps[1:], strict=False):
            chances += [world.moves[condition, before, state], world.gaps[before, GAPS.index(gap)]]
        found.append(-np.log2(chances).sum())
    return np.array(found)


@pytest.mark.parametrize(
    ("other", "agrees"), [(SMALL, True), (ZipfWorld.known(12, 3, rank=4, events=15.0, seed=1), False)]
)
def test_the_entropy_is_the_mean_of_what_the_world_itself_needs(other, agrees):
    need = bits(SMALL.events(np.arange(1, 2001), seed=1), other)
    error = need.std() / np.sqrt(len(need))
    assert (abs(need.mean() - SMALL.bits_per_record) < 4 * error) == agrees


def test_records_are_as_long_as_expected():
    counts = SMALL.events(np.arange(1, 4001), seed=2).group_by("subject_id").len()["len"].to_numpy()
    assert abs(counts.mean() - SMALL.expected_events) < 4 * counts.std() / np.sqrt(len(counts))
    assert SMALL.bits_per_event * SMALL.expected_events == pytest.approx(SMALL.bits_per_record)


def test_every_row_of_every_matrix_sums_to_one():
    for matrix in (SMALL.start, SMALL.moves, SMALL.gaps):
        np.testing.assert_allclose(matrix.sum(-1), 1)


def test_a_written_population_is_a_meds_dataset_of_all_patients(tmp_path):
    SMALL.write(tmp_path / "meds", 250, seed=0, shard=100)
    events = read_events(tmp_path / "meds")
    assert events["subject_id"].n_unique() == 250
    assert sorted(path.name for path in (tmp_path / "meds/data/train").iterdir()) == [
        "0.parquet",
        "1.parquet",
        "2.parquet",
    ]
    again = pl.concat([SMALL.events(np.arange(a, b), 0) for a, b in ((1, 101), (101, 201), (201, 251))])
    assert events.select("subject_id", "time", pl.col("code").cast(pl.String)).equals(
        again.select("subject_id", "time", pl.col("code").cast(pl.String))
    )
