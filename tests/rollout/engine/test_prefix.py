"""Prompts of equal content share what the model made of them; others never do."""

import numpy as np
import pytest

from sequela.rollout.budget import FixedBudget
from sequela.rollout.engine.engine import Engine
from sequela.rollout.engine.prefix import WholePrefixes
from sequela.rollout.engine.queue import Queue
from sequela.rollout.engine.rollouts import Prompts
from sequela.rollout.engine.sampling import Sampling
from sequela.tokens.ragged import Ragged
from tests.rollout.engine.test_engine import model, tracked


def prompts(*rows):
    return Prompts(Ragged.of([list(row) for row in rows]), np.arange(len(rows)) * 1009)


TWINS = prompts([1, 5, 6, 7], [1, 5, 6, 7], [1, 5, 6, 8], [1, 5, 6], [1, 5, 6, 7, 7])


@pytest.fixture
def reads(monkeypatch):
    """What was read, in order."""
    seen, read = [], WholePrefixes.__init__

    def spied(self, given):
        read(self, lambda ids: (seen.append(ids.tolist()), given(ids))[1])

    monkeypatch.setattr(WholePrefixes, "__init__", spied)
    return seen


def extended(asked, rows=128, n=3):
    engine, tracker = Engine(model()), tracked()
    queue = Queue(asked, FixedBudget(n), tracker.scores)
    batch = engine.batch(queue, tracker, Sampling(rows=rows))
    while batch.step():
        pass
    return [[rollout.tokens.flat.tolist() for rollout in some] for some in queue.finished], batch


@pytest.mark.parametrize("rows", [4, 128])
def test_equal_prompts_share_one_prefill_and_get_what_each_gets_alone(reads, rows):
    together, _ = extended(TWINS, rows)
    assert sorted(reads) == sorted([[1, 5, 6, 7], [1, 5, 6, 8], [1, 5, 6], [1, 5, 6, 7, 7]])
    assert together[0] != together[1]  # each with its own seeds
    reads.clear()
    alone = [extended(TWINS.take(np.array([p])), rows)[0][0] for p in range(len(TWINS))]
    assert together == alone and len(reads) == 5


def test_a_prefix_is_confirmed_by_its_tokens(reads):
    """Other lengths and other integers of the same bytes are other tokens."""
    made = WholePrefixes(lambda ids: (None, None))
    one = made.give(np.array([1, 2]))
    assert made.give(np.array([1, 2], np.int32)) is one and one.users == 2
    assert made.give(np.array([1, 2, 0])) is not one
    assert made.give(np.array([1 + (2 << 32)])) is not one
    assert reads == [[1, 2], [1, 2, 0], [1 + (2 << 32)]]


def test_a_prefix_is_kept_while_it_is_used_and_until_another_comes(reads):
    made = WholePrefixes(lambda ids: (None, None))
    first, second = made.give(np.array([1])), made.give(np.array([2]))
    made.release(second)
    assert made.give(np.array([2])) is second  # rollouts of one prompt come one after another
    made.release(second)
    made.give(np.array([3]))
    assert set(made.known) == {np.array([n]).tobytes() for n in (1, 3)}
    assert made.give(np.array([1])) is first and made.give(np.array([2])) is not second
    assert reads == [[1], [2], [3], [2]]


def test_nothing_is_in_use_at_the_end():
    _, batch = extended(TWINS, rows=4)
    known = batch.prefixes.known
    assert all(prefix.users == 0 for prefix in known.values()) and 1 <= len(known) < 4
