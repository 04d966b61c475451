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


def sees(segments, aside, query, key):
    """Whether a position of a row sees another, in words."""
    if segments[query] != segments[key] or key > query:
        return False
    return key == query or not aside[key]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_the_dense_mask_hides_places_aside_from_all_but_themselves(share):
    aside = np.random.default_rng(0).random(SEGMENTS.shape) < share
    mask = Masked.packed(SEGMENTS, aside).mask_BTT
    for row in range(len(SEGMENTS)):
        for query, key in np.ndindex(16, 16):
            assert mask[row, query, key] == sees(SEGMENTS[row], aside[row], query, key)


def test_without_places_aside_nothing_changes_to_the_bit():
    q, k, v = (torch.randn(3, 4, 16, 8, generator=torch.Generator().manual_seed(n)) for n in range(3))
    none = np.zeros_like(SEGMENTS, bool)
    assert torch.equal(Masked.packed(SEGMENTS, none).mask_BTT, Masked.packed(SEGMENTS).mask_BTT)
    assert torch.equal(packed(SEGMENTS, aside=none)(0, q, k, v), packed(SEGMENTS)(0, q, k, v))
