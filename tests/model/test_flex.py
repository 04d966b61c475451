import numpy as np
import pytest
import torch

from sequela.model.attention import Masked
from sequela.model.flex import BLOCK, Flex, block_mask

LENGTHS = [300, 7, 120, 128, 1, 77, 256]
PADDED = np.append(np.repeat(np.arange(7), LENGTHS), np.full(1024 - sum(LENGTHS), -1))
SEGMENTS = np.stack([PADDED, np.zeros(1024, int)])


def test_blocks_hold_every_pair_that_is_seen_and_no_full_block_one_that_is_not():
    mask = block_mask(SEGMENTS, "cpu")
    pairs = Masked.packed(SEGMENTS).mask_BTT.view(2, 1024 // BLOCK, BLOCK, 1024 // BLOCK, BLOCK)
    for row in range(2):
        for query in range(1024 // BLOCK):
            partial = mask.kv_indices[row, 0, query, : mask.kv_num_blocks[row, 0, query]].tolist()
            full = mask.full_kv_indices[row, 0, query, : mask.full_kv_num_blocks[row, 0, query]].tolist()
            assert not set(partial) & set(full)
            assert all(pairs[row, query, :, key].all() for key in full)
            others = set(range(1024 // BLOCK)) - set(partial) - set(full)
            assert not any(pairs[row, query, :, key].any() for key in others)


def test_it_equals_the_dense_mask(monkeypatch):
    # plain operations, as Dynamo cannot trace what the tests' shape checks have wrapped
    monkeypatch.setattr("torch.nn.attention.flex_attention._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    q, k, v = (torch.randn(2, heads, 1024, 16) for heads in (4, 2, 2))
    real = torch.from_numpy(SEGMENTS >= 0)
    with torch.no_grad():
        flex, dense = (one(0, q, k, v) for one in (Flex(SEGMENTS, "cpu"), Masked.packed(SEGMENTS)))
    assert torch.allclose(flex.transpose(1, 2)[real], dense.transpose(1, 2)[real], atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="FlexAttention has no backward pass on a CPU")
def test_gradients_on_a_gpu_equal_the_dense_mask():
    real = torch.from_numpy(SEGMENTS >= 0)[:, None, :, None].cuda()
    gradients = []
    for attention in (Flex(SEGMENTS, "cuda"), Masked(Masked.packed(SEGMENTS).mask_BTT.cuda())):
        torch.manual_seed(0)
        inputs = [torch.randn(2, heads, 1024, 64, device="cuda", requires_grad=True) for heads in (4, 2, 2)]
        (attention(0, *inputs).masked_fill(~real, 0.0) ** 2).sum().backward()
        gradients.append([x.grad for x in inputs])
    assert all(torch.allclose(a, b, atol=1e-2) for a, b in zip(*gradients, strict=True))
