from dataclasses import fields

import pytest

from sequela.train.settings import TrainSettings


def test_defaults_are_plain_values():
    assert all(isinstance(field.default, int | float | str) for field in fields(TrainSettings))


def test_an_unknown_optimiser_is_refused():
    with pytest.raises(ValueError, match="muon or adamw"):
        TrainSettings(optimiser="sgd")
