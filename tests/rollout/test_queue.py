"""Who gets which rollouts, in which order, and that every one is made exactly once."""

import numpy as np
import pytest

from sequela.rollout.queue import Ended, Prompts, Queue, Window
from sequela.tokens.ragged import Ragged


def prompts(count):
    return Prompts(
        Ragged.of([[1, 10 + p] for p in range(count)]), np.zeros(count, np.int64), np.ones((count, 3), bool),
        np.arange(count), np.zeros((count, 0), bool),
    )  # fmt: skip


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
    return Queue(prompts(count), plan, lambda ids: ids[-1:], lambda ended: np.array([ended.hazard[0]]))


def ended(row, score=0.0):
    one = np.array([score], np.float32)
    return Ended(row.number, [0] * (row.number + 1), 0, 0, one, one, one, one > 0, 0.0, 0)


def granted(queue, most):
    """(prompt, numbers) of what is granted, and the rows."""
    taken = queue.take(most)
    if taken is None:
        return None
    window, rows = taken
    assert window.ids.tolist() == [10 + rows[0].prompt]  # cut
    assert len({row.prompt for row in rows}) == 1
    return (rows[0].prompt, [row.number for row in rows]), rows


def names(queue, most):
    out = []
    while (taken := granted(queue, most)) is not None:
        out.append(taken[0])
    return out


def test_prompts_come_in_their_order_and_rollouts_by_number():
    queue = queue_of(3, Waves(5))
    assert names(queue, 2) == [(p, some) for p in range(3) for some in ([0, 1], [2, 3], [4])]
    assert queue.settled == 0


def test_rows_of_one_prompt_share_a_window():
    queue = queue_of(2, Waves(4))
    first, _ = queue.take(3)
    second, _ = queue.take(3)
    third, _ = queue.take(3)
    assert first is second and third is not first


def test_a_prompt_that_wants_nothing_is_settled_at_once():
    queue = queue_of(4, Waves([2, 0, 0, 1]))
    assert names(queue, 9) == [(0, [0, 1]), (3, [0])]
    assert queue.settled == 2
    empty = queue_of(0, Waves(3))
    assert empty.take(4) is None


def test_a_plan_that_asks_for_more():
    """It sees all scores by number, whatever the order in which they came; the same prompt's window serves again."""
    plan = Waves(3, 2)
    queue = queue_of(2, plan)
    (_, rows), _ = granted(queue, 9), granted(queue, 9)
    window = queue.begun[0]
    for row in (rows[2], rows[0]):
        queue.bring(0, ended(row, row.number / 8))
    assert queue.take(9) is None and queue.settled == 0
    queue.bring(0, ended(rows[1], 0.5))
    assert plan.asked[-1] == (0, [0, 1, 2], [0, 0.5, 0.25])
    (what, rows), again = granted(queue, 9), queue.begun[0]
    assert what == (0, [3, 4]) and again is window
    for row in rows:
        queue.bring(0, ended(row))
    assert queue.settled == 1 and 0 not in queue.begun and 1 in queue.begun
    assert [one.number for one in queue.ended[0]] == [0, 1, 2, 3, 4]
    assert queue.tokens == 1 + 2 + 3 + 4 + 5


def test_more_rollouts_go_before_prompts_that_nobody_has_begun():
    queue = queue_of(3, Waves(1, 1))
    _, (row,) = granted(queue, 1)
    queue.bring(0, ended(row))
    assert names(queue, 1) == [(0, [1]), (1, [0]), (2, [0])]


def test_a_row_that_goes_on_in_a_new_window_is_next():
    queue = queue_of(2, Waves(2))
    _, rows = granted(queue, 2)
    rows[0].windows += 1
    queue.again(Window(np.array([10]), [rows[0]]))
    window, (row,) = queue.take(5)
    assert row is rows[0] and window.prefill is None


@pytest.mark.parametrize("most", [1, 3, 50])
def test_every_rollout_is_made_exactly_once(most):
    """With prompts that ask for more, and rows that go on in new windows; they end in any order."""
    random = np.random.default_rng(most)
    count, waves = 40, [random.integers(0, 9, 40).tolist(), random.integers(0, 5, 40).tolist()]
    queue, made, held = queue_of(count, Waves(*waves)), [], []
    while True:
        taken = queue.take(most)
        if taken is None and not held:
            break
        held.extend(taken[1] if taken else [])
        random.shuffle(held)
        for row in [held.pop() for _ in range((len(held) + 1) // 2)]:
            if (row.prompt + row.number) % 5 == 0 and row.windows < 2:
                row.windows += 1
                queue.again(Window(queue.cut(queue.prompts.ids[row.prompt]), [row]))
                continue
            made.append((row.prompt, row.number, row.windows))
            queue.bring(row.prompt, ended(row))
    # A prompt without a first wave gets none at all
    wanted = [a + b if a else 0 for a, b in zip(*waves, strict=True)]
    expected = [(p, n, 2 if (p + n) % 5 == 0 else 0) for p, many in enumerate(wanted) for n in range(many)]
    assert sorted(made) == expected
    assert [[one.number for one in some] for some in queue.ended] == [list(range(n)) for n in wanted]
    assert queue.settled == count and not queue.begun and not queue.waiting
