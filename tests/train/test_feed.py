import threading
import time

import numpy as np
import pytest
import torch

from sequela.model.attention import Masked
from sequela.tokens.pack import Windows, collate
from sequela.tokens.ragged import Ragged
from sequela.train.batches import Batches
from sequela.train.feed import AHEAD, alone, feed, inputs

WINDOWS = Windows.of(Ragged.of([list(range(1, 3 + i % 7)) for i in range(40)]), np.array([0]), (), 16)


def steps(total=500):
    return Batches(WINDOWS.lengths, 16, 2, total, seed=3)


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "feed"]


def test_it_gives_every_step_in_order_with_its_rows_as_inputs():
    given = list(feed(steps(), WINDOWS))
    expected = list(steps())
    assert [step.after for step, _ in given] == [step.after for step in expected]
    for (_, passes), step in zip(given, expected, strict=True):
        for (made, weight), row in zip(passes, step.rows, strict=True):
            assert weight == 1.0
            assert made.ids.tolist() == collate(WINDOWS, row).ids.tolist()


def test_inputs_say_what_is_predicted_where_and_who_sees_whom():
    batch = collate(WINDOWS, [5, 6])
    made = inputs(batch)
    assert made.ids.flatten()[made.places + 1].tolist() == made.targets.tolist()
    assert len(made.targets) == len(WINDOWS[5]) + len(WINDOWS[6]) - 2
    q, k, v = (torch.randn(1, 1, batch.ids.shape[1], 4) for _ in range(3))
    real = torch.from_numpy(batch.segments[0] >= 0)
    dense = Masked.packed(batch.segments)(0, q, k, v)
    assert torch.allclose(made.attention(0, q, k, v)[0, 0, real], dense[0, 0, real], atol=1e-6)


def test_rows_are_padded_to_one_length_where_that_is_asked_for():
    lengths = {made.ids.shape[1] for _, passes in feed(steps(), WINDOWS, multiple=16) for made, _ in passes}
    assert lengths == {16}


def test_a_process_gets_its_own_rows():
    def second(rows):
        return [(row, 0.5) for row in rows[1::2]]

    (step, passes), *_ = feed(steps(), WINDOWS, share=second)
    assert len(passes) == 1 and passes[0][1] == 0.5
    assert passes[0][0].ids.tolist() == collate(WINDOWS, step.rows[1]).ids.tolist()
    assert [weight for _, weight in alone(step.rows)] == [1.0, 1.0]


def test_it_works_no_more_than_so_many_steps_ahead_and_ends_with_its_reader():
    taken = []

    def counted():
        for step in steps(10_000):
            taken.append(step)
            yield step

    reader = feed(counted(), WINDOWS)
    next(reader)
    time.sleep(0.3)
    assert len(taken) <= AHEAD + 3 and threads()
    reader.close()
    assert not threads()


def test_what_goes_wrong_in_the_thread_is_raised_at_the_reader():
    def broken():
        yield next(steps())
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="the disk is gone"):
        list(feed(broken(), WINDOWS))
    assert not threads()
