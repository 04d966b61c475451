"""The moving average: how it follows, and that a mean knows nothing of its neighbors."""

import numpy as np
import pytest
import torch

from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.tokens.ragged import Ragged
from sequela.training.objectives.target import Encodable, Target, means_by, normalized, rising

CPU = torch.device("cpu")


@pytest.fixture
def decoder():
    config = ModelConfig(
        20, hidden_size=32, heads=2, kv_heads=2, head_dim=16, intermediate_size=64, layers=1, context=64
    )
    return Decoder(config).initialize(0)


def test_the_decay_rises_from_its_start_to_one():
    decays = [rising(0.9, done) for done in np.linspace(0, 1, 11)]
    assert decays[0] == pytest.approx(0.9) and decays[5] == pytest.approx(0.95) and decays[-1] == 1
    assert decays == sorted(decays)


def test_it_follows_by_its_decay_in_fp32_and_learns_nothing(decoder):
    target = Target(decoder)
    weight, mine = decoder.norm.weight, target.decoder.norm.weight
    weight.data += 1
    target.follow(decoder, 0.75)
    torch.testing.assert_close(mine, weight - 0.75)
    target.follow(decoder, 0.0)
    assert torch.equal(mine, weight) and mine is not weight and mine.dtype == torch.float32
    small = mine + 1e-5  # of which bf16 would lose all
    weight.data += 1e-2
    target.follow(decoder, 0.999)
    torch.testing.assert_close(mine, small, rtol=0, atol=1e-7)
    assert not any(weight.requires_grad for weight in target.parameters())


def test_a_future_is_the_mean_of_its_tokens_whatever_lies_beside_it(decoder):
    target, rows = Target(decoder), [np.array([3, 4, 5]), np.array([6]), np.array([7, 8])]
    side_by_side = Encodable.of(Ragged(np.concatenate(rows), np.array([0, 3, 4, 6])), 8, CPU)
    means = target.means(side_by_side, "fp32")
    for ids, mean in zip(rows, means, strict=True):
        alone = target.decoder.hidden(torch.from_numpy(ids)[None])[0].mean(0)
        torch.testing.assert_close(mean, alone, rtol=1e-4, atol=1e-5)
    nothing = Encodable.of(Ragged(np.zeros(0, np.int64), np.zeros(1, np.int64)), 8, CPU)
    assert nothing.inputs is None and target.means(nothing, "fp32").shape == (0, 32)


def test_means_of_groups_leave_out_what_is_in_none():
    flat = torch.tensor([[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]])
    assert means_by(flat, torch.tensor([1, 1, 2]), 2).tolist() == [[0, 0], [2, 3]]
    x = normalized(torch.randn(5, 32, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(x.mean(1), torch.zeros(5), rtol=0, atol=1e-6)
    torch.testing.assert_close(x.var(1, correction=0), torch.ones(5), rtol=1e-3, atol=0)
