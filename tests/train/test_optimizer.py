import pytest

from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.train.optimizer import adamw, learning_rate
from sequela.train.settings import TrainSettings


def test_the_rate_rises_then_falls_to_a_tenth():
    settings = TrainSettings(learning_rate=2.0, warmup=0.1)
    rates = [learning_rate(step, 200, settings) for step in range(200)]
    assert rates[:20] == sorted(rates[:20]) and rates[20:] == sorted(rates[20:], reverse=True)
    assert max(rates) == 2.0 and rates[-1] == pytest.approx(0.2)


def test_a_run_of_one_step_works():
    assert learning_rate(0, 1, TrainSettings()) == TrainSettings().learning_rate


def test_only_matrices_decay():
    model = Decoder(ModelConfig(30))
    decayed, free = adamw(model, TrainSettings()).param_groups
    assert decayed["weight_decay"] > 0 == free["weight_decay"]
    assert all(w.dim() == 2 for w in decayed["params"]) and all(w.dim() == 1 for w in free["params"])
    assert sum(len(group["params"]) for group in (decayed, free)) == len(list(model.parameters()))
