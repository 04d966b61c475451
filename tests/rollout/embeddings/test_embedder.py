"""Vectors of many times in one pass, against a pass for each history."""

import numpy as np
import polars as pl
import pytest
import torch

from sequela.errors import InputError
from sequela.model import checkpoint
from sequela.model.states import StateTokens
from sequela.record.dataset import read_events
from sequela.rollout.embeddings.embedder import Embedder
from sequela.rollout.embeddings.settings import POOLINGS, EmbedSettings


@pytest.fixture(scope="module")
def model(rough, tmp_path_factory):
    """A model with random weights and state tokens."""
    folder = tmp_path_factory.mktemp("states") / "model"
    folder.mkdir()
    for path in rough.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    tokens = StateTokens(32).initialize(torch.Generator().manual_seed(0))
    tokens.table.data *= 30
    tokens.save(folder)
    return folder


@pytest.fixture(scope="module")
def cohort(world_meds):
    """Events of some patients, and five questions about each."""
    events = read_events(world_meds, "held_out")
    events = events.filter(pl.col("subject_id").is_in(events["subject_id"].unique().sort().head(12).implode()))
    dated = events.drop_nulls("time").select("subject_id", prediction_time="time").unique(maintain_order=True)
    number = pl.int_range(pl.len()).over("subject_id")
    some = dated.filter(number % 4 == 3).group_by("subject_id", maintain_order=True).head(5)
    later = some.with_columns(pl.col("prediction_time") + pl.duration(minutes=pl.int_range(pl.len()) * 7))
    return events, later.sort("subject_id", "prediction_time")


@pytest.mark.parametrize("pooling", ["state", "last", "mean"])
def test_one_pass_gives_what_single_passes_give(model, cohort, pooling):
    events, questions = cohort
    embedder = Embedder.load(model, EmbedSettings(pooling))
    known, vectors = embedder.vectors(events, questions)
    assert 25 < len(known) == len(vectors) <= len(questions) and vectors.std(0).min() > 0.01
    for number in range(0, len(known), 3):
        alone, vector = embedder.vectors(events, known[number : number + 1])
        assert len(alone) == 1
        np.testing.assert_allclose(vectors[number], vector[0], atol=1e-4)
    other = embedder.vectors(events, known[:1])[1]
    assert np.abs(vectors[1:] - other).max() > 0.1  # negative control: they differ


def test_nothing_at_or_after_the_time_moves_a_vector(model, cohort):
    events, questions = cohort
    embedder = Embedder.load(model)
    known, vectors = embedder.vectors(events, questions)
    first = known.group_by("subject_id", maintain_order=True).first()
    past = events.join(first, on="subject_id").filter(
        pl.col("time").is_null() | (pl.col("time") < pl.col("prediction_time"))
    )
    again, same = embedder.vectors(past.drop("prediction_time"), first)
    assert again.equals(first)
    rows = known.with_row_index().join(first, on=["subject_id", "prediction_time"])["index"].to_numpy()
    np.testing.assert_allclose(vectors[rows], same, atol=1e-4)
    last = pl.col("time").rank("dense", descending=True).over("subject_id") == 1  # negative control
    fewer, others = embedder.vectors(past.filter(~last.fill_null(False)).drop("prediction_time"), first)
    both = again.with_row_index().join(fewer, on=["subject_id", "prediction_time"])["index"].to_numpy()
    assert np.abs(others - same[both]).max() > 0.1


def test_poolings_are_what_they_say(model, cohort):
    events, questions = cohort
    found = {name: Embedder.load(model, EmbedSettings(name)).vectors(events, questions)[1] for name in POOLINGS}
    np.testing.assert_allclose(found["moment"], found["last"], atol=1e-5)  # moments of this world hold one event
    assert all(np.abs(found[name] - found["last"]).max() > 0.05 for name in ("state", "mean"))
    assert Embedder.load(model).pooling == "state"


def test_silence_moves_the_state_and_not_the_last_token(model, cohort):
    events, questions = cohort
    last = questions.group_by("subject_id", maintain_order=True).last()
    ends = events.group_by("subject_id").agg(pl.col("time").max())
    late = last.join(ends, on="subject_id").select("subject_id", prediction_time=pl.col("time") + pl.duration(days=3))
    later = late.with_columns(pl.col("prediction_time") + pl.duration(days=900))
    for pooling, moves in (("state", True), ("last", False)):
        embedder = Embedder.load(model, EmbedSettings(pooling))
        one, other = (embedder.vectors(events, asked.sort("subject_id"))[1] for asked in (late, later))
        assert (np.abs(one - other).max() > 0.01) == moves


def test_a_checkpoint_without_state_tokens_is_told(rough):
    assert Embedder.load(rough).pooling == "last"
    with pytest.raises(InputError, match="has no state tokens: train it with"):
        Embedder.load(rough, EmbedSettings("state"))
    with pytest.raises(ValueError, match="pooling must be auto, state"):
        EmbedSettings("best")


def test_damaged_state_tokens_are_told(model, tmp_path):
    (tmp_path / "states.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="is damaged"):
        StateTokens.load(tmp_path)
    assert StateTokens.load(model).table.shape == (16, 32)
    assert checkpoint.load(model).config.hidden_size == 32
