"""Hidden states from the cache against those of whole sequences."""

import pytest
import torch

from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.rollout.engine import cache
from sequela.rollout.engine.cache import Branch, Branches, Prefill

V = 40


def decoder(family="qwen2", kv_heads=2):
    config = ModelConfig(
        V, family=family, hidden_size=32, heads=4, kv_heads=kv_heads, head_dim=8, intermediate_size=64
    )
    model = Decoder(config).initialize(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(5)  # else attention is nearly flat, and another prefix makes little difference
    return model.eval()


class Grown:
    """Branches over one model, and beside them the whole sequence of every row, in the order of rows."""

    def __init__(self, model, seed=0):
        self.model, self.branches = model, Branches()
        self.whole: list[list[list[int]]] = []  # of each branch, of each row
        self.random = torch.Generator().manual_seed(seed)

    def tokens(self, count):
        return torch.randint(1, V, (count,), generator=self.random).tolist()

    def begin(self, length, n, prompt=None):
        prompt = prompt or self.tokens(length)
        prefill = Prefill()
        hidden = self.model.hidden(torch.tensor([prompt]), None, prefill)
        assert prefill.length == len(prompt)
        assert torch.allclose(hidden, self.model.hidden(torch.tensor([prompt])), atol=1e-5)
        self.branches.branches.append(Branch(self.model.config, prefill, n))
        self.whole.append([list(prompt) for _ in range(n)])

    def keep(self, branch, rows):
        self.branches.branches[branch].keep(rows)
        self.whole[branch] = [self.whole[branch][row] for row in rows]

    def step(self, padding=0):
        """One new token of every row; the hidden states there, [R, C]."""
        for rows in self.whole:
            for row in rows:
                row.extend(self.tokens(1))
        rows = [row for rows in self.whole for row in rows]
        ids = torch.tensor([[row[-1]] for row in rows] + [[0]] * padding)
        places = torch.tensor([[len(row) - 1] for row in rows] + [[0]] * padding)
        hidden = self.model.hidden(ids, places, self.branches)[:, 0]
        self.branches.advance()
        assert torch.isfinite(hidden).all()
        return hidden[: len(rows)]

    def expected(self, wrong=False):
        """The hidden state at the end of every whole sequence; `wrong`: its second token is another one."""
        out = []
        for rows in self.whole:
            for row in rows:
                row = [row[0], row[1] % (V - 1) + 1, *row[2:]] if wrong else row
                out.append(self.model.hidden(torch.tensor([row]))[0, -1])
        return torch.stack(out)

    def check(self, padding=0):
        hidden = self.step(padding)
        assert torch.allclose(hidden, self.expected(), atol=2e-5)
        return hidden


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@torch.inference_mode()
def test_branches_give_the_hidden_states_of_whole_sequences(family, kv_heads):
    grown = Grown(decoder(family, kv_heads))
    grown.begin(9, 5)
    grown.begin(1, 2)  # so short that its products need rows of padding
    grown.check(padding=1)
    grown.begin(4, 1)  # others begin later, and have fewer new positions
    grown.check()
    grown.keep(0, [4, 1, 3])  # some leave, in another order
    grown.check(padding=2)
    grown.keep(1, [1])
    hidden = grown.check(padding=3)
    difference = (hidden - grown.expected(wrong=True)).abs().amax(1)
    assert (difference > 1e-2).all()  # negative control
    del grown.branches.branches[0], grown.whole[0]
    grown.check()


@torch.inference_mode()
def test_rows_that_stay_must_be_those_that_were_kept():
    """Negative control of `keep`: two rows in the other order, or one row's past given to another."""
    grown = Grown(decoder())
    grown.begin(6, 4)
    for _ in range(3):
        grown.check()
    grown.branches.branches[0].keep([2, 1])
    rows = grown.whole[0]
    grown.whole[0] = [list(rows[1]), list(rows[2])]
    assert ((grown.step() - grown.expected()).abs().amax(1) > 1e-2).all()


@torch.inference_mode()
def test_a_branch_grows_beyond_its_room():
    """Twice, with rows that leave before, at, and after the edge."""
    grown = Grown(decoder())
    grown.begin(3, 6)
    edge = cache.CHUNK
    leaving = {edge - 2: [5, 1, 2, 3, 4], edge - 1: [0, 4, 2, 3], edge: [3, 1, 2], edge + 5: [2, 1]}
    for step in range(2 * edge + 3):
        grown.check() if step % edge in (0, 1, edge - 2, edge - 1) else grown.step()
        if step in leaving:
            grown.keep(0, leaving[step])
    branch = grown.branches.branches[0]
    assert branch.added.shape[4] == 3 * edge and branch.added.shape[2] == branch.n == 2


@torch.inference_mode()
def test_a_row_does_not_depend_on_the_rows_beside_it():
    """Bit for bit, however many there are."""
    model = decoder()

    def states(n, leave):
        grown = Grown(model, seed=1)
        grown.begin(7, n, prompt=[3, 1, 4, 1, 5, 9, 2])
        out = []
        for step in range(4):
            grown.random.manual_seed(step)  # the first row gets the same tokens whatever there is beside it
            ids = torch.tensor([[int(x)] for x in grown.tokens(n)])[: len(grown.whole[0])]
            ids = torch.cat([ids, torch.zeros(-len(ids) % cache.FEWEST, 1, dtype=ids.dtype)])
            place = torch.full_like(ids, 7 + step)
            out.append(model.hidden(ids, place, grown.branches)[0, 0])
            grown.branches.advance()
            if leave and step == 1:
                grown.keep(0, list(range(n // 2)))
        return torch.stack(out)

    alone = states(1, leave=False)
    for n in (2, 3, 8, 17):
        for leave in (False, True):
            assert torch.equal(states(n, leave), alone)
