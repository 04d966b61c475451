from dataclasses import fields

import pytest

from sequela.train.settings import TrainSettings


def test_defaults_are_plain_values():
    assert all(isinstance(field.default, int | float | str) for field in fields(TrainSettings))


def test_an_unknown_optimiser_is_refused():
    with pytest.raises(ValueError, match="muon or adamw"):
        TrainSettings(optimiser="sgd")


@pytest.mark.parametrize(
    "wrong", [{"depth": 0}, {"context": 3}, {"epochs": 0.0}, {"batch_tokens": 0}, {"seed": -1}]
)
def test_what_cannot_be_trained_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrainSettings(**wrong)
