"""A predictor, once and in a row."""

import torch

from sequela.training.objectives.latent.predictor import AGAIN, FIRST, Predictor


def made():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Predictor(8, 3), torch.randn(5, 8), torch.randn(5, 8)


def test_an_action_of_nothing_is_no_action():
    predictor, state, action = made()
    horizon = torch.tensor([0, 1, 2, 0, 1])
    foreseen, came = predictor(state, horizon)
    again, _ = predictor(state, horizon, torch.zeros_like(state))
    other, _ = predictor(state, horizon, action)
    assert foreseen.shape == (5, 8) and came.shape == (5,)
    assert torch.equal(foreseen, again) and not torch.equal(foreseen, other)


def test_windows_in_a_row_are_each_foreseen_from_the_one_before():
    predictor, state, action = made()
    windows = predictor.rolled(state, [None, action, None])
    first, _ = predictor(state, torch.full((5,), FIRST))
    again = torch.full((5,), AGAIN)
    second, _ = predictor(first, again, action)
    third, _ = predictor(second, again)
    torch.testing.assert_close(windows, torch.stack([first, second, third], 1))
    windows[:, 2].sum().backward()
    assert all(weight.grad is not None for name, weight in predictor.named_parameters() if "came" not in name)
