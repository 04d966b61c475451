"""One engine for many threads: rollouts of different requests are decoded in one batch.

    engine = SharedDecoding(Engine(decoder))
    engine.extend(prompts, budget, tracker, sampling)      # from any number of threads at once
    engine.close()

A thread of its own decodes. A request whose tracker and sampling equal those of a running batch joins it in the midst
of its work; other requests get a batch of their own, and the batches take turns, one step each. Since a rollout depends
on its model, prompt, and seed alone, every request gets the very rollouts that it would get by itself.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections import deque
from collections.abc import Hashable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np

from sequela.errors import InputError
from sequela.progress import Progress, silent
from sequela.rollout.engine.decoding import DecodingBatch
from sequela.rollout.engine.engine import Engine
from sequela.rollout.engine.queue import PromptAssignment, PromptBudget, Queue
from sequela.rollout.engine.rollouts import Prompts, Rollouts
from sequela.rollout.engine.sampling import Sampling
from sequela.rollout.engine.tracker import Tracker, no_rollouts

CLOSED = "the model was closed while it was in use, or before: load it again."


@dataclass(eq=False)
class SharedRequest:
    """What one thread waits for.

    `alone`: it shares its batch with nobody, because a batch that it was in has failed.
    """

    prompts: Prompts
    budget: PromptBudget
    tracker: Tracker
    sampling: Sampling
    progress: Progress
    result: Future = field(default_factory=Future)
    alone: bool = False

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget what has been made of it."""
        self.queue = Queue(self.prompts, self.budget, self.tracker.scores)

    @property
    def batch_key(self) -> tuple[Hashable, ...]:
        """Requests for which this is equal can be in one batch."""
        return self.tracker.key, self.sampling, id(self) if self.alone else None

    def answer(self) -> None:
        """Give the waiting thread its rollouts."""
        with suppress(InvalidStateError):  # it was interrupted
            self.result.set_result(self.queue.rollouts(no_rollouts(self.tracker, self.prompts)))

    def fail(self, error: BaseException) -> None:
        """Raise the error in the waiting thread."""
        with suppress(InvalidStateError):
            self.result.set_exception(error)


@dataclass(eq=False)
class _AtWork:
    """Rollouts of a request's prompt that have not ended yet."""

    request: SharedRequest
    prompt: int
    rollouts: int


class SharedSource:
    """The queues of several requests as one `Source`: they are asked in turn, so that none waits for all others.

    What a request's own budget or progress raises ends that request alone.
    """

    def __init__(self) -> None:
        self.requests: deque[SharedRequest] = deque()  # those that wait; the next one to be asked is first
        self.at_work: dict[int, _AtWork] = {}  # by the index that the batch knows
        self.assigned = 0

    def add(self, request: SharedRequest) -> None:
        """Take in one more request."""
        self.requests.append(request)

    def take(self, most: int) -> PromptAssignment | None:
        """See `Source`."""
        for request in self.waiting():
            self.requests.rotate(-1)
            try:
                assignment = request.queue.take(most)
            except Exception as error:
                request.fail(error)
                continue
            self._check(request)
            if assignment is not None:
                index, self.assigned = self.assigned, self.assigned + 1
                self.at_work[index] = _AtWork(request, assignment.index, len(assignment.numbers))
                return replace(assignment, index=index)
        return None

    def bring(self, index: int, rollout: Rollouts) -> None:
        """See `Source`."""
        at_work = self.at_work[index]
        at_work.rollouts -= 1
        if not at_work.rollouts:
            del self.at_work[index]
        request = at_work.request
        if request.result.done():
            return
        try:
            request.queue.bring(at_work.prompt, rollout)
            request.progress(request.queue.settled, len(request.prompts), tokens=request.queue.tokens)
        except Exception as error:
            request.fail(error)
        self._check(request)

    def _check(self, request: SharedRequest) -> None:
        """Answer a request that has all its rollouts."""
        if request.queue.settled == len(request.prompts):
            request.answer()

    def waiting(self) -> list[SharedRequest]:
        """The requests that wait; those that were answered, failed, or were given up are forgotten."""
        self.requests = deque(request for request in self.requests if not request.result.done())
        return list(self.requests)


class SharedDecoding:
    """An `Extender` for many threads at once.

    Args:
        engine: used by nobody else from now on.
    """

    def __init__(self, engine: Engine):
        self.vocabulary = engine.model.config.vocab_size
        self._arrivals: queue.SimpleQueue[SharedRequest | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        worker = threading.Thread(
            target=_Worker(engine, self._arrivals).run, name="shared decoding", daemon=True
        )
        worker.start()
        # The worker knows nothing of this object: where it is forgotten, the worker ends too
        self._end = weakref.finalize(self, self._arrivals.put, None)
        self._worker = worker

    def __enter__(self) -> SharedDecoding:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def extend(
        self,
        prompts: Prompts,
        budget: PromptBudget,
        tracker: Tracker,
        sampling: Sampling = Sampling(),
        progress: Progress = silent,
    ) -> Rollouts:
        """See `Extender`; waits until the rollouts are there. `progress` is called by another thread.

        Raises:
            InputError: if this is closed, or while it waits.
            ValueError: for prompts that the model cannot read.
        """
        _refuse_unreadable(prompts, self.vocabulary)
        request = SharedRequest(prompts, budget, tracker, sampling, progress)
        with self._lock:  # no request comes after the end
            if self._closed.is_set():
                raise InputError(CLOSED)
            self._arrivals.put(request)
        try:
            return request.result.result()
        finally:
            request.result.cancel()  # interrupted: nobody waits any more

    def close(self) -> None:
        """End the thread that decodes; requests that still wait get an InputError."""
        with self._lock:
            self._closed.set()
        self._end()
        self._worker.join()


class _Worker:
    """The thread that decodes: takes requests in and steps one batch after another."""

    def __init__(self, engine: Engine, arrivals: queue.SimpleQueue[SharedRequest | None]):
        self.engine, self.arrivals = engine, arrivals
        self.batches: dict[tuple, tuple[DecodingBatch, SharedSource]] = {}

    def run(self) -> None:
        """Decode until the end is among the arrivals."""
        while self._take_in():
            for key in list(self.batches):
                self._step(key)
        for _, source in self.batches.values():
            for request in source.waiting():
                request.fail(InputError(CLOSED))

    def _take_in(self) -> bool:
        """Take in all requests that have come, and wait for one where there is nothing else to do; False at the end."""
        while not self.batches or not self.arrivals.empty():
            request = self.arrivals.get()
            if request is None:
                return False
            self._begin(request)
        return True

    def _begin(self, request: SharedRequest) -> None:
        try:
            key = request.batch_key
            if key not in self.batches:
                source = SharedSource()
                batch = self.engine.batch(source, request.tracker, request.sampling)
                self.batches[key] = batch, source
            self.batches[key][1].add(request)
        except Exception as error:  # such as a tracker for another vocabulary
            request.fail(error)

    def _step(self, key: tuple) -> None:
        batch, source = self.batches[key]
        try:
            if batch.step():
                return
            error: Exception = RuntimeError("a budget asked for nothing, yet was not done")
        except Exception as raised:
            error = raised
        del self.batches[key]
        waiting = source.waiting()
        for request in waiting:
            if len(waiting) == 1:
                request.fail(error)
            else:  # one of them is to blame: each begins again by itself
                request.alone = True
                request.restart()
                self._begin(request)


def _refuse_unreadable(prompts: Prompts, vocabulary: int) -> None:
    lengths, flat = prompts.ids.lengths, prompts.ids.flat
    if len(flat) and not 0 <= np.min(flat) <= np.max(flat) < vocabulary:
        raise ValueError(f"prompts have tokens outside of 0 to {vocabulary - 1}")
    if not lengths.all():
        raise ValueError("prompts have at least one token each")
