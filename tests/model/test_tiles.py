from dataclasses import replace

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


def some_aside(numbers, share=0.3, seed=0):
    """Random places aside; with a share of 1 all of a segment but the first."""
    aside = np.random.default_rng(seed).random(numbers.shape) < share
    return aside & (np.diff(numbers, axis=1, prepend=-2) == 0) if share == 1 else aside


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


@pytest.mark.parametrize("share", [0.05, 0.3, 1])
@pytest.mark.parametrize("queries", [8, 16, 64])
@pytest.mark.parametrize("name", LENGTHS)
def test_tiles_hide_places_aside_as_the_dense_mask_does(name, queries, share):
    numbers = np.stack([segments(LENGTHS[name]), segments([64])])
    aside, groups = some_aside(numbers, share), {8: 1, 16: 2, 64: 4}[queries]
    tiled, dense = (
        outputs(one, numbers >= 0, groups=groups)
        for one in (Tiled(numbers, queries, aside), Masked.packed(numbers, aside))
    )
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(tiled, dense, strict=True))


def test_of_places_aside_nothing_reaches_other_positions_nor_comes_back():
    """To the bit: other keys and values there change no other output, and the others give them no gradient."""
    numbers = segments(LENGTHS["mixed, padded at the end"])[None]
    aside = some_aside(numbers)
    attention, others = Tiled(numbers, 16, aside), torch.from_numpy(~aside[0] & (numbers[0] >= 0))
    q, k, v = (torch.randn(1, 4, 64, 8, requires_grad=True) for _ in range(3))
    seen = attention(0, q, k, v)
    changed = [x + 9 * torch.from_numpy(aside[0])[:, None] for x in (q, k, v)]
    assert torch.equal(attention(0, *changed)[:, :, others], seen[:, :, others])
    seen[:, :, others].square().sum().backward()
    for x in (q, k, v):
        assert (x.grad[:, :, torch.from_numpy(aside[0])] == 0).all()
        assert (x.grad[:, :, others].abs().amax() > 0).all()


def test_bf16_is_near_the_exact_result():
    numbers = segments(LENGTHS["long"])[None]
    aside = some_aside(numbers)
    low = outputs(Tiled(numbers, 16, aside), numbers >= 0, torch.bfloat16)
    exact = outputs(Masked.packed(numbers, aside), numbers >= 0)
    for a, b in zip(low, exact, strict=True):
        assert a.dtype == torch.bfloat16
        assert (a.float() - b).norm() < 0.02 * b.norm()


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_probabilities_that_are_not_kept_are_computed_again(monkeypatch, share):
    numbers = segments(LENGTHS["mixed, padded at the end"])[None]
    aside = some_aside(numbers, share)
    kept = outputs(Tiled(numbers, 16, aside), numbers >= 0)
    monkeypatch.setattr(tiles, "KEPT_BYTES", 0)
    again = outputs(Tiled(numbers, 16, aside), numbers >= 0)
    assert all(torch.equal(a, b) for a, b in zip(kept, again, strict=True))


def test_a_mask_that_is_left_out_is_noticed():
    numbers = segments(LENGTHS["short"])[None]
    tiled = Tiled(numbers, 16)
    for tile in tiled.tiles[torch.float32]:
        tile.mask.fill_(0.0)
    a, b = (outputs(one, numbers >= 0)[0] for one in (tiled, Masked.packed(numbers)))
    assert not torch.allclose(a, b, atol=1e-2)


@pytest.mark.parametrize("where", ["among the last keys", "among those before"])
def test_a_single_hidden_key_that_becomes_visible_is_noticed(where):
    """The last tile of a segment of 64 has queries 48 to 63."""
    numbers = segments([64])[None]
    aside = np.arange(64)[None] == (50 if where == "among the last keys" else 5)
    right, wrong = Tiled(numbers, 16, aside), Tiled(numbers, 16, aside)
    before, last = wrong.tiles[torch.float32][:-1], wrong.tiles[torch.float32][-1]
    open_ = replace(last, mask=torch.full((16, 16), -torch.inf).triu(1), hidden=None)
    wrong.tiles[torch.float32] = [*before, open_]
    dense, a, b = (outputs(one, numbers >= 0)[0] for one in (Masked.packed(numbers, aside), right, wrong))
    assert torch.allclose(a, dense, atol=1e-5)
    assert not torch.allclose(b, dense, atol=1e-2)


def test_tiles_without_places_aside_are_what_they_were():
    """They share the causal mask, and nothing is hidden before the last keys."""
    numbers = segments([40, 24])[None]
    aside = np.arange(64)[None] == 35  # in the last tile of the first segment
    plain, some = (Tiled(numbers, 16, given).tiles[torch.float32] for given in (None, aside))
    assert len(plain) == len(some) == 5
    changed = [not torch.equal(a.mask, b.mask) for a, b in zip(plain, some, strict=True)]
    assert changed == [False, False, True, False, False]
    assert all(tile.hidden is None for tile in plain + some)
    assert some[0].mask.data_ptr() == some[1].mask.data_ptr()


def test_little_is_computed_beyond_what_is_seen():
    lengths = np.array([700, 858, 90, 60, 1024, 300])
    numbers = np.repeat(np.arange(len(lengths)), lengths)[None]
    computed = sum(tile.area for tile in Tiled(numbers).tiles[torch.float32])
    assert computed < 1.35 * (lengths * (lengths + 1) // 2).sum()
