"""Rates against their closed form, and against known ones."""

import numpy as np
import pytest
import torch

from sequela.model.hazards import Hazards


def test_the_likelihood_is_that_of_constant_rates_in_pieces():
    rates = Hazards(4, 2, (0.0, 10.0))
    with torch.no_grad():
        rates.events.weight.zero_()
        rates.events.bias.zero_()
        rates.base.copy_(torch.tensor([[0.1, 0.2], [0.3, 0.4]]).log())
    state = torch.zeros(2, 4)
    days, came = torch.tensor([[5.0, 30.0], [12.0, 0.0]]), torch.tensor([[True, False], [True, True]])
    by_hand = [
        0.1 * 5 - np.log(0.1), 0.2 * 10 + 0.4 * 20, 0.1 * 10 + 0.3 * 2 - np.log(0.3), -np.log(0.2),
    ]  # fmt: skip
    assert rates.loss(state, days, came).item() == pytest.approx(np.mean(by_hand), rel=1e-5)
    expected = 1 - np.exp(-np.array([0.1 * 10 + 0.3 * 5, 0.2 * 10 + 0.4 * 5]))
    np.testing.assert_allclose(rates.risk(state, 15.0)[0].detach(), expected, rtol=1e-5)
    assert rates.risk(state, 0.0).abs().max() == 0


def test_known_rates_are_found():
    random = torch.Generator().manual_seed(0)
    group = torch.randint(0, 2, (2000,), generator=random)
    truth = torch.tensor([0.02, 0.1])[group]
    time = torch.empty(2000).exponential_(1.0, generator=random) / truth
    days, came = time.clamp_max(30.0)[:, None], (time < 30)[:, None]
    state, rates = torch.nn.functional.one_hot(group, 2).float() * 3, Hazards(2, 1, (0.0,), rank=4)
    optimizer = torch.optim.Adam(rates.parameters(), 0.05)
    for _ in range(150):
        optimizer.zero_grad()
        rates.loss(state, days, came).backward()
        optimizer.step()
    found = rates(torch.eye(2) * 3).exp().flatten()
    torch.testing.assert_close(found, torch.tensor([0.02, 0.1]), rtol=0.1, atol=0)
