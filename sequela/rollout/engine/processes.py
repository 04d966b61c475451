"""An engine in several processes of one machine, with a decoding batch in each.

The queue stays in the parent process. A batch asks it for rollouts whenever it has room, so all processes are busy to
the end, and what they make does not depend on which of them made it.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import traceback
import weakref
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from sequela.errors import InputError
from sequela.progress import Progress, silent
from sequela.rollout.engine.engine import Engine
from sequela.rollout.engine.queue import PromptAssignment, PromptBudget, Queue
from sequela.rollout.engine.rollouts import Prompts, Rollouts
from sequela.rollout.engine.sampling import Sampling
from sequela.rollout.engine.tracker import Tracker, no_rollouts


class EngineProcesses:
    """An `Extender` that computes in several processes, with one thread each.

    The processes start at once and load the model while this process goes on. End them with `close`, or leave a `with`
    block.

    Args:
        make: what each process calls to make an engine of its own: a function at the top level of a module that can be
            imported, or a `functools.partial` of one.
        processes: how many.
    """

    def __init__(self, make: Callable[[], Engine], processes: int):
        self.connections: list[Connection] = []
        self.processes: list[subprocess.Popen] = []
        self.close = weakref.finalize(self, _end, self.connections, self.processes)
        # Set here because a library reads its number of threads when it is loaded. The path may have been changed in
        # Python.
        environment = {
            "OMP_NUM_THREADS": "1",
            "POLARS_MAX_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(map(str, sys.path)),
        }
        for _ in range(processes):
            ours, theirs = multiprocessing.Pipe()
            # Neither a fork, which copies the locks of threads that do not exist in the child, nor a spawn of
            # `multiprocessing`, which runs the main program again.
            command = [sys.executable, "-P", "-c", f"from {__name__} import serve; serve({theirs.fileno()})"]
            options = {"pass_fds": [theirs.fileno()], "env": os.environ | environment}
            # In a process group of its own: Ctrl-C interrupts the parent, which then ends this process
            self.processes.append(subprocess.Popen(command, process_group=0, **options))
            theirs.close()
            self.connections.append(ours)
            with suppress(_Lost):  # `extend` says why
                _send(ours, make)

    def __enter__(self) -> EngineProcesses:
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
        """See `Extender`; `sampling.rows` is for each process.

        Raises:
            InputError: if a process died, or raised it.
            RuntimeError: if a process failed in another way; the message holds its traceback.
        """
        queue = Queue(prompts, budget, tracker.scores)
        try:
            for connection in self.connections:
                _send(connection, (tracker, sampling))
            self._answer(queue, sampling.rows, progress)
        except _Lost as error:
            self.close()
            raise InputError(
                "a process of the simulation died, perhaps because memory ran out: run again with fewer processes or "
                "rows; what was finished is kept."
            ) from error
        except BaseException:
            self.close()  # they are busy with something nobody wants any more
            raise
        return queue.rollouts(no_rollouts(tracker, prompts))

    def _answer(self, queue: Queue, rows: int, progress: Progress) -> None:
        """Hand out rollouts and take in results until all have ended."""
        total, count = len(queue.prompts), len(self.connections)
        held = dict.fromkeys(self.connections, 0)  # rollouts at work in each process
        idle: dict[Connection, int] = {}  # it asked for so many, and has not been answered
        busy = set(self.connections)

        def assigned(connection: Connection, most: int) -> PromptAssignment | None:
            # An even share of all there is, so that one process does not take what two could work on
            fair = -(-(queue.ahead(rows * count) + sum(held.values())) // count)
            most = min(most, fair - held[connection])
            assignment = queue.take(most) if most > 0 else None
            held[connection] += 0 if assignment is None else len(assignment.numbers)
            return assignment

        while busy:
            for connection in wait(list(busy)):
                verb, *content = _receive(connection)
                if verb == "take":
                    idle[connection] = content[0]
                elif verb == "bring":
                    held[connection] -= 1
                    queue.bring(*content)
                    progress(queue.settled, total, tokens=queue.tokens)
                elif verb == "end":
                    busy.remove(connection)
                elif verb == "refused":
                    raise InputError(content[0])
                else:
                    raise RuntimeError(f"a process of the simulation failed:\n{content[0]}")
            for connection, most in list(idle.items()):
                assignment = assigned(connection, most)
                # A process without any work waits: results of others may make the budget ask for more
                if assignment is not None or held[connection] or queue.settled == total:
                    _send(connection, assignment)
                    del idle[connection]
        progress(queue.settled, total, tokens=queue.tokens)


class _RemoteQueue:
    """The queue, seen from a process that decodes: a `Source`."""

    def __init__(self, connection: Connection):
        self.connection = connection

    def take(self, most: int) -> PromptAssignment | None:
        """As `Queue.take`; if this process has no other work, it waits until there is some, or all is done."""
        _send(self.connection, ("take", most))
        return _receive(self.connection)

    def bring(self, index: int, rollout: Rollouts) -> None:
        """As `Queue.bring`."""
        _send(self.connection, ("bring", index, rollout))


def serve(handle: int) -> None:
    """What a process does: one batch after another, until nobody is at the other end of the pipe.

    The first message is `make`, each further one the tracker and the sampling of a run.

    Args:
        handle: the file descriptor of this end.
    """
    torch.set_num_threads(1)
    connection = Connection(handle)
    try:
        engine = _receive(connection)()
        while True:
            tracker, sampling = _receive(connection)
            batch = engine.batch(_RemoteQueue(connection), tracker, sampling)
            while batch.step():
                pass
            _send(connection, ("end",))
    except _Lost:
        return
    except InputError as error:
        with suppress(_Lost):
            _send(connection, ("refused", str(error)))
    except Exception:
        with suppress(_Lost):
            _send(connection, ("failed", traceback.format_exc()))


class _Lost(Exception):
    """Nobody is at the other end of a pipe."""


def _send(connection: Connection, message: object) -> None:
    try:
        connection.send(message)
    except OSError as error:
        raise _Lost from error


def _receive(connection: Connection) -> Any:
    try:
        return connection.recv()
    except (EOFError, OSError) as error:
        raise _Lost from error


def _end(connections: list[Connection], processes: list[subprocess.Popen]) -> None:
    for connection in connections:
        connection.close()
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait()
