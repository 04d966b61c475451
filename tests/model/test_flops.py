"""The formulas against PyTorch's own counter on real forward and backward passes."""

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sequela.model import flops
from sequela.model.attention import Causal, Masked
from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder

SHAPES = {
    "qwen2": {},
    "llama, two heads share one": {"family": "llama", "heads": 4, "kv_heads": 2, "head_dim": 16},
    "qwen3, untied, heads wider than the stream": {
        "family": "qwen3",
        "head_dim": 40,
        "tied_embeddings": False,
    },
}
ROWS, LENGTH = 3, 24


def config_of(shape: dict) -> ModelConfig:
    return ModelConfig(101, hidden_size=48, layers=2, intermediate_size=100, **shape)


def counted(config: ModelConfig, attention, *, backward: bool) -> int:
    """What PyTorch counts; attention as plain products, which compute the whole square of pairs."""
    model = Decoder(config).initialize(0)
    ids = torch.randint(0, 101, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss = model.logits(ids, None, attention).square().sum()
        if backward:
            loss.backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("attention", ["causal", "dense mask"])
@pytest.mark.parametrize("backward", [False, True])
def test_pytorch_counts_the_same(shape, attention, backward):
    config = config_of(shape)
    seen = {"causal": Causal(), "dense mask": Masked.packed(np.zeros((ROWS, LENGTH), np.int64))}[attention]
    tokens, square = ROWS * LENGTH, ROWS * LENGTH**2
    ours = flops.products(config, tokens, square, predicted=tokens) * (3 if backward else 1)
    assert counted(config, seen, backward=backward) == ours


def test_a_wrong_formula_is_seen():
    config = config_of(SHAPES["llama, two heads share one"])
    tokens, square = ROWS * LENGTH, ROWS * LENGTH**2
    found = counted(config, Causal(), backward=True)
    assert found != 6 * config.parameters * tokens
    assert found != 3 * flops.products(config, tokens, square // 2, predicted=tokens)
    assert found != 3 * flops.products(config, tokens, square, predicted=tokens - ROWS)
    without_sharing = config_of({"family": "llama", "heads": 4, "kv_heads": 4, "head_dim": 16})
    assert found != 3 * flops.products(without_sharing, tokens, square, predicted=tokens)


def test_each_token_sees_itself_and_what_came_before_it_in_its_window():
    config, lengths = config_of({}), np.array([5, 1, 9])
    pairs = sum(1 + place for length in lengths for place in range(length))
    assert flops.forward(config, lengths) == flops.products(config, 15, pairs, predicted=4 + 0 + 8)
    assert flops.train(config, lengths) == 3 * flops.forward(config, lengths)


def test_windows_add_up_but_one_long_window_costs_more_than_two_halves():
    config = config_of({})
    assert flops.forward(config, np.array([7, 9])) == sum(
        flops.forward(config, np.array([one])) for one in (7, 9)
    )
    assert flops.forward(config, np.array([16])) > flops.forward(config, np.array([8, 8]))


def test_a_cached_continuation_costs_what_reading_it_costs():
    config = config_of({})
    everything_read = flops.products(config, 14, 14 * 15 // 2, predicted=5)
    assert flops.generate(config, prompt=10, new=5) == everything_read
    one, two = (flops.generate(config, prompt=10, new=5, rollouts=n) for n in (1, 2))
    assert 2 * one - two == flops.products(config, 10, 10 * 11 // 2, predicted=1)  # the history is read once


def test_a_run_of_the_largest_model_does_not_overflow():
    patients = np.full(1_000_000, 8192)
    assert flops.train(ModelConfig.named("comet-l", 7105), patients) > 5e19  # int64 ends at 9e18


def test_six_per_parameter_and_token_is_close_where_windows_are_short():
    config = ModelConfig.named("comet-m", 7105)
    lengths = np.full(100, 100)
    assert flops.train(config, lengths) == pytest.approx(6 * config.parameters * lengths.sum(), rel=0.01)
