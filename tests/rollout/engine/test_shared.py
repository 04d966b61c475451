"""Many threads, one batch: everybody gets the very rollouts of a request made alone."""

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sequela.errors import InputError
from sequela.rollout.budget import AdaptiveBudget, FixedBudget
from sequela.rollout.engine.engine import Engine
from sequela.rollout.engine.rollouts import Prompts
from sequela.rollout.engine.sampling import Sampling
from sequela.rollout.engine.shared import SharedDecoding
from sequela.tokens.ragged import Ragged
from tests.rollout.engine.test_engine import ALONE, model, prompts, tracked
from tests.rollout.engine.test_processes import same

MANY = 8


class Observed(Engine):
    """Notes of each step which prompts (by key) have rows in the batch; begins when all requests have come."""

    def __init__(self, decoder):
        super().__init__(decoder)
        self.begin, self.steps, self.batches = threading.Event(), [], 0

    def batch(self, source, tracker, sampling):
        assert self.begin.wait(60)
        batch, self.batches = super().batch(source, tracker, sampling), self.batches + 1
        sample = batch._sample

        def noted():
            self.steps.append((id(batch), {int(row.assignment.prompt.key[0]) for row in batch.rows}))
            sample()

        batch._sample = noted
        return batch


def questions(count=MANY, context=32):
    """One prompt each, some longer than a window."""
    asked = prompts(count, longest=40)
    return [asked.take(np.array([p])) for p in range(count)]


def together(shared, work, ready):
    """The results of all calls, each from its own thread; `ready` is set when all wait."""
    with ThreadPoolExecutor(len(work)) as pool:
        futures = [pool.submit(call) for call in work]
        deadline = time.monotonic() + 60
        while shared._arrivals.qsize() < len(work) - 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        ready.set()
        return futures


def test_eight_threads_get_what_each_gets_alone_from_one_batch():
    engine, asked = Observed(model(context=32)), questions()
    with SharedDecoding(engine) as shared:
        work = [lambda one=one: shared.extend(one, FixedBudget(5), tracked()) for one in asked]
        out = [future.result() for future in together(shared, work, engine.begin)]
    alone = Engine(model(context=32))
    for one, rollouts in zip(asked, out, strict=True):
        same(rollouts, alone.extend(one, FixedBudget(5), tracked()))
    assert engine.batches == 1
    assert max(len(keys) for _, keys in engine.steps) == MANY  # rows of all requests at the same time
    # Negative control: another request's seeds give other rollouts
    assert (
        out[0].tokens.flat.tolist() != alone.extend(asked[1], FixedBudget(5), tracked()).tokens.flat.tolist()
    )


def test_a_request_joins_in_the_midst_of_a_batch():
    engine, joined = Observed(model()), threading.Event()
    engine.begin.set()
    first, second = questions(2)
    with SharedDecoding(engine) as shared, ThreadPoolExecutor(1) as pool:
        later = []

        def progress(*_, **__):
            if not joined.is_set():
                joined.set()
                later.append(pool.submit(shared.extend, second, FixedBudget(3), tracked()))
                deadline = time.monotonic() + 60
                while shared._arrivals.empty() and time.monotonic() < deadline:
                    time.sleep(0.01)

        out = shared.extend(first, FixedBudget(40), tracked(), progress=progress)
        same(later[0].result(), Engine(model()).extend(second, FixedBudget(3), tracked()))
    same(out, Engine(model()).extend(first, FixedBudget(40), tracked()))
    assert engine.batches == 1 and max(len(keys) for _, keys in engine.steps) == 2


def test_other_trackers_and_samplings_take_turns():
    engine, asked = Observed(model()), questions(4)
    plan = AdaptiveBudget("reach", 0.05, None, pilot=2, cap=40)
    choices = [
        (FixedBudget(5), tracked(), Sampling()),
        (plan, tracked(watch=ALONE, avoid=True), Sampling()),
        (FixedBudget(5), tracked(), Sampling(temperature=2.0)),
        (FixedBudget(2), tracked(), Sampling()),
    ]
    with SharedDecoding(engine) as shared:
        work = [lambda one=one, c=c: shared.extend(one, *c) for one, c in zip(asked, choices, strict=True)]
        out = [future.result() for future in together(shared, work, engine.begin)]
    for one, choice, rollouts in zip(asked, choices, out, strict=True):
        same(rollouts, Engine(model()).extend(one, *choice))
    assert engine.batches == 3  # the first and the last share one
    order = [batch for batch, _ in engine.steps]
    assert len(set(order[:3])) == 3  # no batch waits for another to end


def test_an_error_is_raised_where_it_belongs_and_hurts_no_other():
    """From a budget, from a progress, and from the model, in the midst of a batch."""

    class Failing:
        def more(self, question, numbers, scores):
            if len(numbers):
                raise RuntimeError("a budget failed")
            return np.arange(3)

    def failing(*_, **__):
        raise KeyError("a progress failed")

    engine, asked = Observed(model()), questions(4)
    windows = engine.window
    engine.window = lambda ids, limit: 1 // 0 if ids[1] == 666 else windows(ids, limit)
    broken = Prompts(Ragged.of([[1, 666]]), np.zeros(1, np.int64))
    with SharedDecoding(engine) as shared:
        shared.vocabulary = 1000  # what is refused at the door is tested below
        work = [
            lambda: shared.extend(asked[0], FixedBudget(6), tracked()),
            lambda: shared.extend(asked[1], Failing(), tracked()),
            lambda: shared.extend(asked[2], FixedBudget(6), tracked(), progress=failing),
            lambda: shared.extend(broken, FixedBudget(6), tracked()),
            lambda: shared.extend(asked[3], FixedBudget(6), tracked()),
        ]
        futures = together(shared, work, engine.begin)
        for future, error in zip(futures[1:4], (RuntimeError, KeyError, ZeroDivisionError), strict=True):
            with pytest.raises(error):
                future.result()
        for number, future in ((0, futures[0]), (3, futures[4])):
            same(future.result(), Engine(model()).extend(asked[number], FixedBudget(6), tracked()))
        same(  # and it goes on
            shared.extend(asked[1], FixedBudget(2), tracked()),
            Engine(model()).extend(asked[1], FixedBudget(2), tracked()),
        )


@pytest.mark.parametrize(
    ("ids", "complaint"), [([[1, 12]], "outside of 0 to 11"), ([[1], []], "at least one token")]
)
def test_prompts_that_cannot_be_read_are_refused_at_once(ids, complaint):
    with SharedDecoding(Engine(model())) as shared, pytest.raises(ValueError, match=complaint):
        shared.extend(Prompts(Ragged.of(ids), np.zeros(len(ids), np.int64)), FixedBudget(1), tracked())


def test_nothing_asked_for_is_answered_at_once():
    with SharedDecoding(Engine(model())) as shared:
        assert len(shared.extend(prompts(0), FixedBudget(3), tracked())) == 0


def test_closing_ends_the_thread_and_whoever_waits():
    shared, entered = SharedDecoding(Engine(model())), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        endless = pool.submit(
            shared.extend,
            prompts(4),
            FixedBudget(10_000),
            tracked(),
            Sampling(rows=4),
            lambda *_, **__: entered.set(),
        )
        assert entered.wait(60)
        shared.close()
        assert not shared._worker.is_alive()
        with pytest.raises(InputError, match="closed"):
            endless.result(timeout=60)
    with pytest.raises(InputError, match="closed"):
        shared.extend(prompts(1), FixedBudget(1), tracked())
    shared.close()  # twice is once


def test_the_thread_ends_when_it_is_forgotten():
    shared = SharedDecoding(Engine(model()))
    worker = shared._worker
    shared.extend(prompts(1), FixedBudget(1), tracked())
    del shared
    gc.collect()
    worker.join(60)
    assert not worker.is_alive()
