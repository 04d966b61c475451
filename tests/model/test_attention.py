import numpy as np
import pytest
import torch

from sequela.model.attention import Causal, Masked, Packed

SEGMENTS = np.array([[0] * 5 + [1] * 7 + [2] * 1 + [-1] * 3, [0] * 16, [0] * 2 + [1] * 2 + [-1] * 12])


def qkv(groups=2, seed=0):
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(3, heads, 16, 8, generator=random) for heads in (4, groups, groups)]


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_packed_attention_equals_the_dense_mask(groups):
    q, k, v = qkv(groups)
    real = torch.from_numpy(SEGMENTS >= 0)[:, None, :, None].expand(3, 4, 16, 8)
    packed, masked = Packed(SEGMENTS)(0, q, k, v), Masked.packed(SEGMENTS)(0, q, k, v)
    assert torch.allclose(packed[real], masked[real], atol=1e-6)
    assert not torch.allclose(
        Causal()(0, q, k, v)[real], masked[real], atol=1e-3
    )  # negative control: patients mixed


def test_packed_gradients_equal_those_of_the_dense_mask():
    real = torch.from_numpy(SEGMENTS >= 0)[:, None, :, None]
    gradients = []
    for attention in (Packed(SEGMENTS), Masked.packed(SEGMENTS)):
        inputs = [x.requires_grad_() for x in qkv()]
        (attention(0, *inputs).masked_fill(~real, 0.0) ** 2).sum().backward()
        gradients.append([x.grad for x in inputs])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*gradients, strict=True))
