from dataclasses import fields

from sequela.train.settings import TrainSettings


def test_defaults_are_plain_values():
    assert all(isinstance(field.default, int | float) for field in fields(TrainSettings))
