import pytest
import torch

from sequela.training.muon import Muon, orthogonal


def _after(
    optimizer: type[torch.optim.Optimizer], shapes: list[tuple[int, int]], dtype=torch.float32
) -> list:
    torch.manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(shape, dtype=dtype)) for shape in shapes]
    optimizer = optimizer(weights, 0.1, 0.2, adjust_lr_fn="match_rms_adamw")
    before = [weight.detach().clone() for weight in weights]
    for _ in range(3):
        for weight in weights:
            weight.grad = torch.randn_like(weight)
        optimizer.step()
    return [weight.detach() - old for weight, old in zip(weights, before, strict=True)]


def test_steps_are_those_of_pytorch_up_to_bf16():
    shapes = [(8, 8), (32, 8), (8, 32), (8, 8), (24, 8)]
    for ours, theirs in zip(_after(Muon, shapes), _after(torch.optim.Muon, shapes), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.03, atol=0.03 * theirs.abs().max().item())
        assert (
            ours - theirs
        ).abs().max() > 0  # theirs is rounded to bf16: the comparison is not of one with itself


def test_a_matrix_does_not_depend_on_those_beside_it():
    torch.manual_seed(0)
    x = torch.randn(3, 8, 16)
    several = orthogonal(x, (3.4445, -4.775, 2.0315), 5, 1e-7)
    for one, of_several in zip(x, several, strict=True):
        torch.testing.assert_close(orthogonal(one[None], (3.4445, -4.775, 2.0315), 5, 1e-7)[0], of_several)


@pytest.mark.parametrize("shape", [(16, 16), (16, 64), (64, 16)])
def test_singular_values_come_near_one(shape):
    torch.manual_seed(1)
    made = orthogonal(torch.randn(2, *shape), (3.4445, -4.775, 2.0315), 5, 1e-7)
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.3 and values.max() < 1.3
    wild = torch.linalg.svdvals(torch.randn(2, *shape) / shape[1] ** 0.5)
    assert not (wild.min() > 0.3 and wild.max() < 1.3)


def test_state_is_pytorchs_own():
    weight = torch.nn.Parameter(torch.ones(4, 4))
    ours, theirs = Muon([weight], 0.1), torch.optim.Muon([weight], 0.1)
    weight.grad = torch.eye(4)
    ours.step()
    theirs.load_state_dict(ours.state_dict())
    assert torch.equal(theirs.state[weight]["momentum_buffer"], ours.state[weight]["momentum_buffer"])


def test_a_closure_is_called_and_its_loss_returned():
    weight = torch.nn.Parameter(torch.ones(4, 4))
    optimizer = Muon([weight], 0.1)

    def loss():
        optimizer.zero_grad()
        total = (weight**2).sum()
        total.backward()
        return total.item()

    assert optimizer.step(loss) == 16.0
