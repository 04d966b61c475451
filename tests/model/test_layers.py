import torch

from sequela.model.layers import RMSNorm, computed_in, rotary, rotate


def norm_of(width=6):
    norm = RMSNorm(width, 1e-6)
    norm.weight.data = torch.arange(1.0, width + 1.0)
    return norm


def by_formula(x, weight):
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def test_rms_norm_follows_its_formula():
    norm, x = norm_of(), torch.randn(2, 3, 6)
    assert torch.allclose(norm(x), by_formula(x, norm.weight), atol=1e-6)


def test_rms_norm_has_the_gradients_of_its_formula():
    norm, x = norm_of(), torch.randn(2, 3, 6, requires_grad=True)
    wanted = torch.randn(2, 3, 6)
    ours = torch.autograd.grad((norm(x) * wanted).sum(), (x, norm.weight))
    exact = torch.autograd.grad((by_formula(x, norm.weight) * wanted).sum(), (x, norm.weight))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours, exact, strict=True))


def test_rms_norm_keeps_the_stream_in_fp32_under_autocast():
    norm, x = norm_of(), torch.randn(2, 3, 6, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        low = norm(x)
    assert low.dtype == torch.bfloat16
    (of_x,) = torch.autograd.grad(low.sum(), x)
    assert of_x.dtype == torch.float32


def test_rms_norm_of_bf16_heads_has_nearly_the_gradients_of_fp32():
    norm, wanted = norm_of(), torch.randn(2, 3, 6)
    exact_x = torch.randn(2, 3, 6).bfloat16().float().requires_grad_()
    low_x = exact_x.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        low = norm(low_x)
    low = torch.autograd.grad((low * wanted).sum(), (low_x, norm.weight))
    exact = torch.autograd.grad((norm(exact_x) * wanted).sum(), (exact_x, norm.weight))
    assert [a.dtype for a in low] == [torch.bfloat16, torch.float32]
    assert all((a - b).norm() < 0.02 * b.norm() for a, b in zip(low, exact, strict=True))


def test_what_is_computed_in_is_lower_under_autocast_alone():
    x = torch.ones(1)
    assert computed_in(x) == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert computed_in(x) == torch.bfloat16


def test_rotated_products_depend_on_the_distance_alone():
    q, k = torch.randn(2, 1, 1, 1, 16)

    def product(i, j):
        at = [rotary(torch.tensor([[p]]), 16, 10000.0) for p in (i, j)]
        return (rotate(q, *at[0]) * rotate(k, *at[1])).sum()

    assert torch.allclose(product(7, 3), product(104, 100), atol=1e-4)
    assert not torch.allclose(product(7, 3), product(104, 101), atol=1e-4)


def test_rotation_has_the_gradients_of_its_formula():
    angles = rotary(torch.arange(5)[None], 8, 10000.0)
    x = torch.randn(1, 2, 5, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: rotate(x, *(a.double() for a in angles)), x)
