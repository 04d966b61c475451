"""State tokens: the class of a silence, what they put in and read out, and their file."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sequela.errors import InputError
from sequela.model.states import EDGES, FILE, HOUR, YEAR, StateTokens, idle_class

WIDTH = 8


@pytest.fixture
def tokens():
    return StateTokens(WIDTH).initialize(torch.Generator().manual_seed(0))


def test_a_class_begins_at_each_edge():
    edges = EDGES.round(6)
    assert (edges[0], edges[-1]) == (HOUR, 10 * YEAR) and len(edges) == 15
    np.testing.assert_array_equal(idle_class(EDGES), np.arange(1, 16))  # an edge belongs to the class that it begins
    np.testing.assert_array_equal(idle_class(EDGES - 1e-3), np.arange(15))
    assert idle_class(np.array([0, 59, 60, 61, 20 * YEAR])).tolist() == [0, 0, 1, 1, 15]
    random = np.sort(np.random.default_rng(0).integers(0, 12 * YEAR, 200))
    by_hand = [sum(minutes >= edge for edge in EDGES) for minutes in random]
    assert idle_class(random).tolist() == by_hand
    assert idle_class(np.zeros(0, np.int64)).shape == (0,)


def test_the_table_has_a_row_for_each_class(tokens):
    soft = tokens.soft(torch.tensor([3, 5]), torch.from_numpy(idle_class(np.array([0, 20 * YEAR]))))
    torch.testing.assert_close(soft.vectors, tokens.table[[0, 15]])
    assert soft.index.tolist() == [3, 5] and tokens.table.shape == (16, WIDTH)
    assert 0.01 < tokens.table.std() < 0.03 and StateTokens(WIDTH).table.abs().sum() == 0
    again = StateTokens(WIDTH).initialize(torch.Generator().manual_seed(0))
    assert torch.equal(again.table, tokens.table)


def test_they_can_be_like_the_passing_of_time(tokens):
    embedding = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(1))
    minutes, counts = np.array([0, 30, 100, 10**6, 10**9]), np.array([50, 3, 1, 2, 0])
    table = tokens.like_time(embedding, minutes, counts).table.detach()
    torch.testing.assert_close(table[0], (3 * embedding[1] + embedding[2] + 2 * embedding[3]) / 6)
    torch.testing.assert_close(table[1], (embedding[2] + 2 * embedding[3]) / 3)  # an hour has passed
    torch.testing.assert_close(table[15], embedding[3])  # longer than any time of which there is an example
    timeless = tokens.like_time(embedding, np.zeros(5, np.int64), counts).table.detach()
    torch.testing.assert_close(timeless, (torch.from_numpy(counts / 56).float() @ embedding).expand(16, WIDTH))


def test_states_are_the_hidden_states_at_their_places(tokens):
    hidden = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(1)).bfloat16()
    states = tokens.read(hidden, torch.tensor([1, 7]))
    assert states.dtype == torch.float32
    torch.testing.assert_close(states, torch.stack([hidden[0, 1], hidden[1, 2]]).float())


def test_they_are_loaded_as_they_were_saved(tokens, tmp_path):
    assert not StateTokens.kept_in(tmp_path)
    tokens.save(tmp_path)
    assert StateTokens.kept_in(tmp_path)
    loaded = StateTokens.load(tmp_path)
    assert torch.equal(loaded.table, tokens.table) and not loaded.training


def test_none_and_damaged_ones_are_told(tokens, tmp_path):
    with pytest.raises(InputError, match="has no state tokens: train it with the objective `state_jepa`"):
        StateTokens.load(tmp_path)
    tokens.save(tmp_path)
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="is damaged"):
        StateTokens.load(tmp_path)
    save_file({"other": torch.zeros(2)}, tmp_path / FILE)
    with pytest.raises(InputError, match=r"is damaged \('table'\)"):
        StateTokens.load(tmp_path)
