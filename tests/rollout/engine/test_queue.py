"""Who gets which rollouts, in which order, and that every one is made exactly once."""

from dataclasses import replace

import numpy as np
import pytest

from sequela.rollout.engine.queue import Queue
from sequela.rollout.engine.rollouts import Prompts, Rollouts
from sequela.tokens.ragged import Ragged


def prompts(count):
    return Prompts(
        Ragged.of([[1, 10 + p] for p in range(count)]), np.arange(count), np.ones((count, 3), bool)
    )


class Waves:
    """A plan of so many rollouts for each prompt, wave after wave; keeps what it was asked with."""

    def __init__(self, *waves):
        self.waves, self.asked = waves, []

    def more(self, question, numbers, scores):
        self.asked.append((question, numbers.tolist(), scores[:, 0].tolist()))
        done = 0
        for wave in self.waves:
            size = wave[question] if isinstance(wave, list) else wave
            if len(numbers) == done:
                return np.arange(done, done + size)
            done += size
        return np.zeros(0, np.int64)


def queue_of(count, plan):
    return Queue(prompts(count), plan, lambda rollouts: rollouts.account["score"])


def ended(number, score=0.0):
    zero, account = np.zeros(1, np.int64), {"score": np.array([[score]], np.float32)}
    return Rollouts(zero, zero + number, Ragged.of([[0] * (number + 1)]), zero.astype(np.int8), zero, account)


def granted(queue, most):
    """(prompt, numbers) of what is granted."""
    taken = queue.take(most)
    if taken is None:
        return None
    assert taken.prompt.ids[0].tolist() == [1, 10 + taken.index] and taken.prompt.key == taken.index
    assert len(taken.prompt) == 1 and taken.prompt.watched is None
    return taken.index, taken.numbers.tolist()


def names(queue, most):
    out = []
    while (taken := granted(queue, most)) is not None:
        out.append(taken)
    return out


def test_prompts_come_in_their_order_and_rollouts_by_number():
    queue = queue_of(3, Waves(5))
    assert names(queue, 2) == [(p, some) for p in range(3) for some in ([0, 1], [2, 3], [4])]
    assert queue.settled == 0


def test_a_prompt_comes_with_what_it_is_asked():
    asked = np.array([[True, False], [False, True]])
    one = replace(prompts(2), watched=asked, clock=np.array([-5, -6])).take(np.array([1]))
    assert (one.ids[0].tolist(), one.clock.tolist(), one.key.tolist()) == ([1, 11], [-6], [1])
    assert (
        one.watched_in(np.array([0]), 2).tolist() == [[False, True]] and one.first.all() and one.bits is None
    )
    assert prompts(2).watched_in(np.array([0, 1, 1]), 2).all()


def test_a_prompt_that_wants_nothing_is_settled_at_once():
    queue = queue_of(4, Waves([2, 0, 0, 1]))
    assert names(queue, 9) == [(0, [0, 1]), (3, [0])]
    assert queue.settled == 2
    empty = queue_of(0, Waves(3))
    assert empty.take(4) is None


def test_looking_ahead_changes_no_order():
    plan = Waves([3, 0, 2, 4, 1])
    queue = queue_of(5, plan)
    assert queue.ahead(4) == 5 and [asked[0] for asked in plan.asked] == [0, 1, 2]
    assert granted(queue, 2) == (0, [0, 1])
    assert queue.ahead(1) == 3 and len(plan.asked) == 3  # there are as many: nobody else is begun
    assert queue.ahead(50) == 8 and len(plan.asked) == 5
    assert names(queue, 9) == [(0, [2]), (2, [0, 1]), (3, [0, 1, 2, 3]), (4, [0])]
    assert queue.ahead(1) == 0 and queue.settled == 1


def test_a_plan_that_asks_for_more():
    """It sees all scores by number, whatever the order in which they came."""
    plan = Waves(3, 2)
    queue = queue_of(2, plan)
    assert names(queue, 9) == [(0, [0, 1, 2]), (1, [0, 1, 2])]
    for number in (2, 0):
        queue.bring(0, ended(number, number / 8))
    assert queue.take(9) is None and queue.settled == 0
    queue.bring(0, ended(1, 0.5))
    assert plan.asked[-1] == (0, [0, 1, 2], [0, 0.5, 0.25])
    assert granted(queue, 9) == (0, [3, 4])
    for number in (3, 4):
        queue.bring(0, ended(number))
    assert queue.settled == 1
    assert [one.number[0] for one in queue.finished[0]] == [0, 1, 2, 3, 4]
    assert queue.tokens == 1 + 2 + 3 + 4 + 5


def test_more_rollouts_go_before_prompts_that_nobody_has_begun():
    queue = queue_of(3, Waves(1, 1))
    assert granted(queue, 1) == (0, [0])
    queue.bring(0, ended(0))
    assert names(queue, 1) == [(0, [1]), (1, [0]), (2, [0])]


@pytest.mark.parametrize("ahead", [0, 30])
@pytest.mark.parametrize("most", [1, 3, 50])
def test_every_rollout_is_made_exactly_once(most, ahead):
    """With prompts that ask for more; they end in any order."""
    random = np.random.default_rng(most)
    count, waves = 40, [random.integers(0, 9, 40).tolist(), random.integers(0, 5, 40).tolist()]
    queue, made, held = queue_of(count, Waves(*waves)), [], []
    while True:
        queue.ahead(ahead)
        taken = granted(queue, most)
        if taken is None and not held:
            break
        held.extend([(taken[0], number) for number in taken[1]] if taken else [])
        random.shuffle(held)
        for prompt, number in [held.pop() for _ in range((len(held) + 1) // 2)]:
            made.append((prompt, number))
            queue.bring(prompt, ended(number))
    # A prompt without a first wave gets none at all
    wanted = [a + b if a else 0 for a, b in zip(*waves, strict=True)]
    assert sorted(made) == [(p, n) for p, many in enumerate(wanted) for n in range(many)]
    assert [[one.number[0] for one in some] for some in queue.finished] == [list(range(n)) for n in wanted]
    assert queue.settled == count and not queue.waiting
