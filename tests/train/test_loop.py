import json

import pytest
import torch

from sequela.model import checkpoint
from sequela.record.errors import InputError
from sequela.tokens.tokenizer import Tokenizer
from sequela.train.loop import train
from sequela.train.settings import TrainSettings

QUICK = TrainSettings(depth=1, context=256, batch_tokens=1024, epochs=2)


def run(corpus, out, settings=QUICK):
    out.mkdir()
    return train(corpus, out, settings)


def test_training_learns_and_the_folder_loads(world_corpus, tmp_path):
    about = run(world_corpus, tmp_path / "model")
    assert about["tuning"]["bits_per_token"] < 0.7 * about["curve_bits_per_token"][0]
    model = checkpoint.load(tmp_path / "model")
    assert len(Tokenizer.load(tmp_path / "model").vocabulary) == model.config.vocab_size
    assert (
        json.loads((tmp_path / "model" / "train.json").read_text())["parameters"] == model.config.parameters
    )


def test_two_runs_of_one_seed_are_equal_bit_for_bit(world_corpus, tmp_path):
    short = TrainSettings(depth=1, context=256, batch_tokens=1024, epochs=0.2)
    for name in ("a", "b"):
        run(world_corpus, tmp_path / name, short)
    run(
        world_corpus,
        tmp_path / "c",
        TrainSettings(depth=1, context=256, batch_tokens=1024, epochs=0.2, seed=1),
    )
    a, b, c = (checkpoint.load(tmp_path / name).embedding.weight for name in "abc")
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_a_fraction_of_an_epoch_is_that_fraction(world_corpus, tmp_path):
    half = run(
        world_corpus, tmp_path / "half", TrainSettings(depth=1, context=256, batch_tokens=1024, epochs=0.5)
    )
    whole = run(
        world_corpus, tmp_path / "whole", TrainSettings(depth=1, context=256, batch_tokens=1024, epochs=1)
    )
    assert half["steps"] == pytest.approx(whole["steps"] / 2, abs=1)


def test_a_loss_that_is_no_number_stops_the_run(world_corpus, tmp_path):
    with pytest.raises(InputError, match="--learning-rate"):
        run(
            world_corpus,
            tmp_path / "model",
            TrainSettings(depth=1, context=256, batch_tokens=1024, learning_rate=1e30),
        )


def test_a_context_shorter_than_a_patient_windows_it(world_corpus, tmp_path):
    short = TrainSettings(depth=1, context=32, batch_tokens=1024, epochs=0.2)
    assert run(world_corpus, tmp_path / "model", short)["steps"] > 0
