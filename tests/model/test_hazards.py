"""Rates against their closed form, and against known ones."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sequela.errors import InputError
from sequela.model.hazards import FILE, ForeseenEvents, Hazards


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


EVENTS = ForeseenEvents(("death", "stroke"), ((3,), (4, 7)), "vocabulary")


def test_they_are_loaded_as_they_were_saved(tmp_path):
    torch.manual_seed(0)
    rates = Hazards(8, 2, (0.0, 0.25, 30.0), rank=4)
    assert not Hazards.kept_in(tmp_path)
    rates.save(tmp_path, EVENTS)
    assert Hazards.kept_in(tmp_path)
    loaded, events = Hazards.load(tmp_path)
    state = torch.randn(5, 8)
    assert events == EVENTS and not loaded.training and torch.equal(loaded(state), rates(state))
    assert torch.equal(loaded.risk(state, 40.0), rates.risk(state, 40.0))


def test_none_and_damaged_ones_are_told(tmp_path):
    with pytest.raises(InputError, match="has no value head: train it with the objective `time_to_event`"):
        Hazards.load(tmp_path)
    Hazards(8, 2, (0.0,), rank=4).save(tmp_path, EVENTS)
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[:-7])
    with pytest.raises(InputError, match="is damaged"):
        Hazards.load(tmp_path)
    save_file({"base": torch.zeros(1, 2)}, tmp_path / FILE)
    with pytest.raises(InputError, match=r"is damaged \('events'\)"):
        Hazards.load(tmp_path)
    Hazards(8, 3, (0.0,), rank=4).save(tmp_path, ForeseenEvents(("a",) * 3, ((1,),) * 2, ""))
    with pytest.raises(InputError, match="its parts do not fit each other"):
        Hazards.load(tmp_path)
