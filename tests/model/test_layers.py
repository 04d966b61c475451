import torch

from sequela.model.layers import RMSNorm, rotary, rotate


def test_rms_norm_follows_its_formula():
    norm = RMSNorm(6, 1e-6)
    norm.weight.data = torch.arange(1.0, 7.0)
    x = torch.randn(2, 3, 6)
    assert torch.allclose(
        norm(x), x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight, atol=1e-6
    )


def test_rotated_products_depend_on_the_distance_alone():
    q, k = torch.randn(2, 1, 1, 1, 16)

    def product(i, j):
        at = [rotary(torch.tensor([[p]]), 16, 10000.0) for p in (i, j)]
        return (rotate(q, *at[0]) * rotate(k, *at[1])).sum()

    assert torch.allclose(product(7, 3), product(104, 100), atol=1e-4)
    assert not torch.allclose(product(7, 3), product(104, 101), atol=1e-4)
