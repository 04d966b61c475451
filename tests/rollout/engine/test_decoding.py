"""One batch step by step: who is computed together, who takes the places of those that left, and full windows."""

import numpy as np
import pytest
import torch

from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.rollout.budget import FixedBudget
from sequela.rollout.clock.minutes import TokenClock
from sequela.rollout.engine.decoding import DecodingBatch, _filled, _padded
from sequela.rollout.engine.queue import Queue
from sequela.rollout.engine.rollouts import Prompts
from sequela.rollout.engine.sampling import Sampling, keys
from sequela.rollout.engine.step import TokenStep
from sequela.rollout.tracker import OutcomeTracker, StopRule, WatchedOutcomes
from sequela.tokens.ragged import Ragged

V, END = 12, 11


def test_the_last_rows_fill_the_places_of_those_that_left():
    random = np.random.default_rng(0)
    for _ in range(200):
        start, many = random.integers(50), random.integers(1, 12)
        rows = range(start, start + many)
        live = [row for row in rows if random.random() < 0.6]
        order = _filled(rows, live)
        assert sorted(order) == live
        moved = sum(rows.start + place != row for place, row in enumerate(order))
        assert moved == sum(row >= start + len(live) for row in live)  # as few as can be


def test_rows_of_padding_are_zeros_below():
    x = torch.ones(5, 2)
    assert _padded(x).tolist() == [[1, 1]] * 5 + [[0, 0]] * 3
    assert len(_padded(x[:4])) == 4


class Spied(DecodingBatch):
    """A batch that notes, before each step, the rows of each branch, and every take."""

    def __init__(self, *args):
        super().__init__(*args)
        self.steps, self.takes, self.prefills = [], [], []
        self.queue, take = self.source, self.source.take

        def noted(most):
            taken = take(most)
            self.takes.append((len(self.rows), most, 0 if taken is None else len(taken.numbers)))
            return taken

        self.queue.take = noted

    def _firsts(self):
        """The first row of each branch."""
        sizes = [branch.n for branch in self.branches.branches]
        return [self.rows[start] for start in np.cumsum([0, *sizes[:-1]])]

    def _sample(self):
        branches = self.branches.branches
        assert [branch.n for branch in branches] and sum(branch.n for branch in branches) == len(self.rows)
        assert len(self.hidden) == len(self.rows) == len(self.state.seed)
        start, prompts = 0, []
        firsts = zip(self._firsts(), self.used, strict=True)
        self.prefills.append([(row.assignment.index, prefix.prefill) for row, prefix in firsts])
        for branch, prefix in zip(branches, self.used, strict=True):
            of = {row.assignment.index for row in self.rows[start : start + branch.n]}
            assert len(of) == 1 and prefix.prefill is branch.prompt
            assert branch.prompt.length + branch.used <= self.model.config.context
            prompts.append((of.pop(), branch.n))
            start += branch.n
        self.steps.append(prompts)
        super()._sample()


def batch_of(count=5, n=4, rows=8, context=64, limit=20, length=7, ends=True):
    config = ModelConfig(
        V, hidden_size=32, heads=2, kv_heads=1, head_dim=16, intermediate_size=64, context=context
    )
    decoder = Decoder(config).initialize(0).eval()
    random = np.random.default_rng(0)
    asked = Prompts(
        Ragged.of([random.integers(1, V, length + p) for p in range(count)]),
        keys(0, np.arange(count), np.arange(count)),
    )
    stops = np.zeros(V, bool)
    stops[END] = ends
    none = np.zeros((0, V), bool)
    tracker = OutcomeTracker(
        StopRule(stops, 10**9, limit),
        WatchedOutcomes(none, none, np.zeros(0, np.int64)),
        TokenClock.constant(np.zeros(V, np.int64)),
    )
    room = min(limit, context // 2)
    queue = Queue(asked, FixedBudget(n), lambda rollouts: np.zeros((len(rollouts), 1)))
    step = TokenStep(tracker, None, Sampling(rows=rows))
    batch = Spied(decoder, "fp32", step, queue, lambda ids: ids[-(context - room) :])
    while batch.step():
        pass
    return batch


def test_others_take_the_places_of_rows_that_end():
    batch = batch_of()
    assert [len(one) for one in batch.queue.finished] == [4] * 5
    sizes = [sum(n for _, n in step) for step in batch.steps]
    assert max(sizes) <= 8 + 8 // 2  # "about": a whole window's rows may go over
    # As long as there was something to take, an eighth of the places at most was free
    last = max(place for place, step in enumerate(batch.steps) if any(p == 4 for p, _ in step))
    first_of_last = min(place for place, step in enumerate(batch.steps) if any(p == 4 for p, _ in step))
    assert min(sizes[:first_of_last]) > 8 - 1 and last > first_of_last
    assert any(len({p for p, _ in step}) > 2 for step in batch.steps)  # rows of several prompts at once
    assert any(held and got for held, _, got in batch.takes)  # taken in while others went on
    alone = batch_of(rows=1)
    assert max(sum(n for _, n in step) for step in alone.steps) == 1
    for mine, theirs in zip(batch.queue.finished, alone.queue.finished, strict=True):
        assert [one.tokens.flat.tolist() for one in mine] == [one.tokens.flat.tolist() for one in theirs]


@pytest.mark.parametrize(
    ("length", "limit", "context"), [(7, 30, 64), (7, 30, 38), (3, 100, 16), (40, 50, 16), (16, 9, 16)]
)
def test_a_full_window_is_begun_anew(length, limit, context):
    """As often as it must be, reckoned by hand: the room is what a window has beyond what it keeps."""
    batch = batch_of(2, 3, 8, context=context, limit=limit, length=length, ends=False)
    room = min(limit, context // 2)
    for prompt, some in enumerate(batch.queue.finished):
        held, windows = min(length + prompt, context - room), 0
        for _ in range(limit - 1):  # after the last token nothing is computed
            held += 1
            if held > context:
                held, windows = context - room, windows + 1
        assert [one.windows[0] for one in some] == [windows] * 3
        assert all(len(one.tokens.flat) == limit for one in some)
    assert any(one.windows[0] for some in batch.queue.finished for one in some) == (limit in (50, 100))
    assert not batch.rows


def test_a_prompt_is_read_once_however_often_rows_of_it_are_begun():
    """And forgotten when another prompt's rows are begun and none of its own are left."""
    batch = batch_of(count=3, n=9, rows=4, ends=False)
    read = {place: set() for place in range(3)}
    assert len(batch.prefixes.known) <= 2
    for step in batch.prefills:
        for place, prefill in step:
            read[place].add(prefill)
    assert [len(one) for one in read.values()] == [1, 1, 1]
