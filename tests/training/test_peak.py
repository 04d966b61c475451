import itertools

import pytest

from sequela.model.config import ModelConfig
from sequela.training.peak import measured_peak


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_product_takes_time(precision):
    assert 1e8 < measured_peak(ModelConfig.named("nano", 96), precision, seconds=0.05) < 1e15


def test_two_operations_a_multiplication_and_addition():
    ticks = itertools.count()  # a second passes at every look at this clock, so each product takes one
    config = ModelConfig(96, hidden_size=64, intermediate_size=100)
    found = measured_peak(config, "fp32", seconds=6.0, clock=lambda: float(next(ticks)))
    assert found == 2 * 4096 * 64 * 200


def test_the_best_time_counts():
    ticks = itertools.accumulate(itertools.chain([0, 0, 0, 4, 0, 0, 0.5, 0, 0, 8], itertools.repeat(100)))
    config = ModelConfig(96, hidden_size=64, intermediate_size=100)
    found = measured_peak(config, "fp32", seconds=20.0, clock=lambda: next(ticks))
    assert found == 2 * 4096 * 64 * 200 / 0.5
