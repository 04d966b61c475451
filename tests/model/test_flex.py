import numpy as np
import pytest
import torch

from sequela.model.attention import Masked
from sequela.model.flex import BLOCK, Flex, block_mask

LENGTHS = [300, 7, 120, 128, 1, 77, 256]
PADDED = np.append(np.repeat(np.arange(7), LENGTHS), np.full(1024 - sum(LENGTHS), -1))
SEGMENTS = np.stack([PADDED, np.zeros(1024, int)])


def some_aside(share, of_blocks=range(1024 // BLOCK)):
    """Random places aside, in some of the blocks."""
    aside = np.random.default_rng(0).random(SEGMENTS.shape) < share
    return aside & np.isin(np.arange(1024) // BLOCK, of_blocks)


ASIDE = {"none": None, "few": some_aside(0.02, [0, 2, 5]), "many": some_aside(0.5)}


@pytest.mark.parametrize("name", ASIDE)
def test_blocks_hold_every_pair_that_is_seen_and_no_full_block_one_that_is_not(name):
    mask = block_mask(SEGMENTS, "cpu", ASIDE[name])
    pairs = Masked.packed(SEGMENTS, ASIDE[name]).mask_BTT.view(2, 1024 // BLOCK, BLOCK, 1024 // BLOCK, BLOCK)
    assert bool(mask.full_kv_num_blocks.sum()) == (name != "many")  # whole blocks are still found
    for row in range(2):
        for query in range(1024 // BLOCK):
            partial = mask.kv_indices[row, 0, query, : mask.kv_num_blocks[row, 0, query]].tolist()
            full = mask.full_kv_indices[row, 0, query, : mask.full_kv_num_blocks[row, 0, query]].tolist()
            assert not set(partial) & set(full)
            assert all(pairs[row, query, :, key].all() for key in full)
            others = set(range(1024 // BLOCK)) - set(partial) - set(full)
            assert not any(pairs[row, query, :, key].any() for key in others)


def test_a_block_with_a_hidden_key_is_seen_in_part():
    plain, some = (block_mask(SEGMENTS, "cpu", aside) for aside in (None, ASIDE["few"]))
    assert some.full_kv_num_blocks[1, 0].tolist() == [0, 0, 1, 1, 2, 3, 3, 4]  # blocks 1, 3, 4 and 6
    assert torch.equal(
        some.full_kv_num_blocks + some.kv_num_blocks, plain.full_kv_num_blocks + plain.kv_num_blocks
    )


def attended(attention, heads):
    """What a strategy gives at the positions that count."""
    with torch.no_grad():
        return attention(0, *heads).transpose(1, 2)[torch.from_numpy(SEGMENTS >= 0)]


@pytest.mark.parametrize("name", ASIDE)
def test_it_equals_the_dense_mask(monkeypatch, name):
    # plain operations, as Dynamo cannot trace what the tests' shape checks have wrapped
    monkeypatch.setattr("torch.nn.attention.flex_attention._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    q, k, v = (torch.randn(2, heads, 1024, 16) for heads in (4, 2, 2))
    aside = ASIDE[name]
    flex, dense = (
        attended(one, (q, k, v)) for one in (Flex(SEGMENTS, "cpu", aside), Masked.packed(SEGMENTS, aside))
    )
    assert torch.allclose(flex, dense, atol=1e-5)
    if aside is not None:  # negative control: the hidden keys become visible
        assert not torch.allclose(attended(Flex(SEGMENTS, "cpu"), (q, k, v)), dense, atol=1e-2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="FlexAttention has no backward pass on a CPU")
@pytest.mark.parametrize("name", ASIDE)
def test_gradients_on_a_gpu_equal_the_dense_mask(name):
    real = torch.from_numpy(SEGMENTS >= 0)[:, None, :, None].cuda()
    gradients = []
    dense = Masked(Masked.packed(SEGMENTS, ASIDE[name]).mask_BTT.cuda())
    for attention in (Flex(SEGMENTS, "cuda", ASIDE[name]), dense):
        torch.manual_seed(0)
        inputs = [torch.randn(2, heads, 1024, 64, device="cuda", requires_grad=True) for heads in (4, 2, 2)]
        (attention(0, *inputs).masked_fill(~real, 0.0) ** 2).sum().backward()
        gradients.append([x.grad for x in inputs])
    assert all(torch.allclose(a, b, atol=1e-2) for a, b in zip(*gradients, strict=True))
