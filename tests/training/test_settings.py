from dataclasses import fields

import pytest

from sequela.training.settings import TrainSettings


def test_defaults_are_plain_values():
    plain = int | float | str | tuple | None
    assert all(isinstance(field.default, plain) for field in fields(TrainSettings))


@pytest.mark.parametrize("name", ["optimizer", "precision", "log"])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be .* or .*, not 'sgd'"):
        TrainSettings(**{name: "sgd"})


def test_how_one_gets_there_does_not_decide_the_result():
    usual = TrainSettings().of_result
    assert TrainSettings(checkpoint_minutes=1.0, log="mlflow", parallel="fsdp").of_result == usual
    assert TrainSettings(precision="fp32").of_result != usual != TrainSettings(seed=1).of_result


@pytest.mark.parametrize(
    "wrong",
    [
        {"depth": 0},
        {"width": 0},
        {"context": 3},
        {"epochs": 0.0},
        {"tokens": 0},
        {"batch_tokens": 0},
        {"seed": -1},
        {"learning_rate": float("nan")},
        {"tokens": float("inf")},
        {"checkpoint_minutes": float("nan")},
        {"warmup": 1.0},
        {"warmup": -0.1},
        {"final_rate": 1.1},
        {"final_rate": -0.1},
        {"second_moment": 1.0},
        {"second_moment": -0.1},
        {"weight_decay": -0.1},
    ],
)
def test_what_cannot_be_trained_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrainSettings(**wrong)


def test_the_ends_of_a_range_that_can_be_trained_are_allowed():
    TrainSettings(warmup=0.0, final_rate=1.0, second_moment=0.0, weight_decay=0.0, checkpoint_minutes=0.0)


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="preset must be one of nano, demo, comet-s"):
        TrainSettings(preset="comet-xl")


@pytest.mark.parametrize(
    "both",
    [{"preset": "nano", "depth": 1}, {"epochs": 1.0, "tokens": 5}, {"tokens": 5, "tokens_per_parameter": 2}],
)
def test_two_ways_to_say_one_thing_exclude_each_other(both):
    with pytest.raises(ValueError, match=" and ".join(f"`{name}`" for name in both)):
        TrainSettings(**both)
