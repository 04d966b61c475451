import numpy as np
import pytest
import torch

from sequela.model.attention import Causal, Masked, packed

SEGMENTS = np.array([[0] * 5 + [1] * 7 + [2] * 1 + [-1] * 3, [0] * 16, [0] * 2 + [1] * 2 + [-1] * 12])


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_packed_attention_equals_the_dense_mask(groups):
    random = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(3, heads, 16, 8, generator=random) for heads in (4, groups, groups))
    real = torch.from_numpy(SEGMENTS >= 0)[:, None, :, None].expand(3, 4, 16, 8)
    apart, masked = packed(SEGMENTS)(0, q, k, v), Masked.packed(SEGMENTS)(0, q, k, v)
    assert torch.allclose(apart[real], masked[real], atol=1e-6)
    assert not torch.allclose(
        Causal()(0, q, k, v)[real], masked[real], atol=1e-3
    )  # negative control: patients mixed
