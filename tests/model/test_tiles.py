import numpy as np
import pytest
import torch

from sequela.model import tiles
from sequela.model.attention import Masked
from sequela.model.tiles import Tiled

LENGTHS = {
    "long": [40, 24],
    "short": [3, 2, 5, 1, 8, 4, 6, 7, 2, 9, 11, 6],
    "mixed, padded at the end": [33, 2, 3, 17, 1],
    "one": [64],
    "nothing but padding": [],
}


def segments(lengths, total=64):
    row = np.repeat(np.arange(len(lengths)), lengths)
    return np.append(row, np.full(total - len(row), -1)).astype(np.int64)


def outputs(attention, real, dtype=torch.float32, groups=4):
    """What a strategy gives, and the gradients, at the positions that count."""
    random = torch.Generator().manual_seed(0)
    heads = [torch.randn(len(real), n, 64, 8, generator=random) for n in (4, groups, groups)]
    q, k, v = (x.to(dtype).requires_grad_() for x in heads)
    seen = attention(0, q, k, v)
    wanted = torch.randn(seen.shape, generator=random).to(dtype)
    ((seen * wanted).masked_fill(~torch.from_numpy(real)[:, None, :, None], 0.0)).sum().backward()
    return [seen.transpose(1, 2)[torch.from_numpy(real)], q.grad, k.grad, v.grad]


@pytest.mark.parametrize("queries", [8, 16, 64])
@pytest.mark.parametrize("name", LENGTHS)
def test_tiles_equal_the_dense_mask_forward_and_backward(name, queries):
    numbers = np.stack([segments(LENGTHS[name]), segments([64])])
    tiled, dense = (outputs(one, numbers >= 0) for one in (Tiled(numbers, queries), Masked.packed(numbers)))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(tiled, dense, strict=True))


def test_groups_of_heads_share_their_keys():
    numbers = segments(LENGTHS["mixed, padded at the end"])[None]
    tiled, dense = (
        outputs(one, numbers >= 0, groups=2) for one in (Tiled(numbers, 16), Masked.packed(numbers))
    )
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(tiled, dense, strict=True))


def test_bf16_is_near_the_exact_result():
    numbers = segments(LENGTHS["long"])[None]
    low = outputs(Tiled(numbers, 16), numbers >= 0, torch.bfloat16)
    exact = outputs(Masked.packed(numbers), numbers >= 0)
    for a, b in zip(low, exact, strict=True):
        assert a.dtype == torch.bfloat16
        assert (a.float() - b).norm() < 0.02 * b.norm()


def test_probabilities_that_are_not_kept_are_computed_again(monkeypatch):
    numbers = segments(LENGTHS["mixed, padded at the end"])[None]
    kept = outputs(Tiled(numbers, 16), numbers >= 0)
    monkeypatch.setattr(tiles, "KEPT_BYTES", 0)
    again = outputs(Tiled(numbers, 16), numbers >= 0)
    assert all(torch.equal(a, b) for a, b in zip(kept, again, strict=True))


def test_a_mask_that_is_left_out_is_noticed():
    numbers = segments(LENGTHS["short"])[None]
    tiled = Tiled(numbers, 16)
    for tile in tiled.tiles[torch.float32]:
        tile.mask.fill_(0.0)
    a, b = (outputs(one, numbers >= 0)[0] for one in (tiled, Masked.packed(numbers)))
    assert not torch.allclose(a, b, atol=1e-2)


def test_little_is_computed_beyond_what_is_seen():
    lengths = np.array([700, 858, 90, 60, 1024, 300])
    numbers = np.repeat(np.arange(len(lengths)), lengths)[None]
    computed = sum(tile.area for tile in Tiled(numbers).tiles[torch.float32])
    assert computed < 1.35 * (lengths * (lengths + 1) // 2).sum()
