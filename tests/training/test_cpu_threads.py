import numpy as np
import pytest
import torch

from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.tokens.packing import Windows, collate
from sequela.tokens.ragged import Ragged
from sequela.training.cpu_threads import ParallelRows
from sequela.training.data import inputs
from sequela.training.objectives.next_token import NextToken

LENGTHS = [30, 4, 17], [2, 45], [64], [5, 5, 5, 5], [33, 31], [50]


@pytest.fixture(autouse=True)
def one_thread_a_product():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def objective():
    config = ModelConfig(50, hidden_size=32, heads=2, kv_heads=2, head_dim=16, intermediate_size=64)
    return NextToken(Decoder(config).initialize(3))


def rows(seed=0):
    random = np.random.default_rng(seed)
    made = []
    for lengths in LENGTHS:
        patients = [random.integers(1, 50, length) for length in lengths]
        windows = Windows.of(Ragged.of(patients), np.array([1]), (), 64)
        made.append(inputs(collate(windows, np.arange(len(lengths)), 8)))
    return made


def returned(loss):
    return loss, loss.detach()


def one_by_one(module, rows):
    losses = []
    for row in rows:
        loss = module(row).total
        loss.backward()
        losses.append(loss.detach())
    return losses, [weight.grad for weight in module.parameters()]


def in_parallel(module, rows, most):
    losses = ParallelRows(module, most).backward(lambda row: returned(module(row).total), rows)
    return losses, [weight.grad for weight in module.parameters()]


@pytest.mark.parametrize("most", [1, 2, 3, 9])
def test_gradients_have_the_bits_of_rows_one_by_one(most):
    losses, gradients = one_by_one(objective(), rows())
    found, others = in_parallel(objective(), rows(), most)
    assert torch.equal(torch.stack(found), torch.stack(losses))
    assert all(torch.equal(one, other) for one, other in zip(gradients, others, strict=True))


def test_gradients_of_other_rows_are_others():
    """The control."""
    _, gradients = one_by_one(objective(), rows())
    _, others = in_parallel(objective(), rows(seed=1), 2)
    assert not any(torch.equal(one, other) for one, other in zip(gradients, others, strict=True))


def test_they_are_added_to_what_is_there():
    module = objective()
    for _ in range(2):
        _, twice = in_parallel(module, rows(), 2)
    _, once = in_parallel(objective(), rows(), 2)
    for one, other in zip(once, twice, strict=True):
        torch.testing.assert_close(2 * one, other)


def test_weights_without_a_part_in_the_loss_keep_no_gradient():
    used, unused = torch.nn.Linear(3, 1), torch.nn.Linear(3, 1)
    module = torch.nn.ModuleList([used, unused])
    ParallelRows(module, 2).backward(lambda row: returned(used(row).sum()), [torch.ones(3), torch.ones(3)])
    assert used.weight.grad.tolist() == [[2, 2, 2]] and unused.weight.grad is None


@pytest.mark.parametrize(("rows", "each"), [(1, 6), (2, 3), (3, 2), (4, 1), (9, 1)])
def test_the_threads_are_divided_among_the_rows_there_are(rows, each):
    torch.set_num_threads(6)
    weight = torch.nn.Linear(1, 1)
    seen = []

    def loss(row):
        seen.append(torch.get_num_threads())
        return returned(weight(row).sum())

    ParallelRows(weight).backward(loss, [torch.ones(1)] * rows)
    assert seen == [each] * rows
    assert torch.get_num_threads() == 6


def test_what_goes_wrong_in_a_row_is_raised():
    def loss(row):
        raise FloatingPointError(f"row {row}")

    with pytest.raises(FloatingPointError, match="row 0"):
        ParallelRows(torch.nn.Linear(1, 1), 2).backward(loss, range(5))
