"""An engine in several processes of one machine, a lane in each.

The queue stays with the process that asks. A lane asks it for rollouts whenever it has room, so all are busy to the
end, and what they make does not depend on who made it.
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

import numpy as np
import torch

from sequela.errors import InputError
from sequela.progress import Progress, silent
from sequela.rollout.budget import RolloutBudget
from sequela.rollout.engine.engine import Engine, Rollouts
from sequela.rollout.engine.queue import Ended, Prompt, Prompts, Queue
from sequela.rollout.tracker import Stop, Watch


class Lanes:
    """As an `Engine`, computed by several processes with one thread each.

    They are started at once and load the model while this process goes on. End them with `close`, or leave a `with`
    block.

    Args:
        make: what each process calls to have an engine of its own; a function at the top level of a module that can be
            imported, or a `functools.partial` of one.
        processes: how many.
    """

    def __init__(self, make: Callable[[], Engine], processes: int):
        self.connections: list[Connection] = []
        self.processes: list[subprocess.Popen] = []
        self.close = weakref.finalize(self, _end, self.connections, self.processes)
        # Of threads, since a library reads their number when it is loaded; the path, for who changed it in Python
        own = {
            "OMP_NUM_THREADS": "1",
            "POLARS_MAX_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(map(str, sys.path)),
        }
        for _ in range(processes):
            ours, theirs = multiprocessing.Pipe()
            # Neither a fork, which copies the locks of threads that do not live on in the child, nor a spawn of
            # `multiprocessing`, which runs the main program again.
            command = [sys.executable, "-P", "-c", f"from {__name__} import serve; serve({theirs.fileno()})"]
            given = {"pass_fds": [theirs.fileno()], "env": os.environ | own}
            # A group of its own: Ctrl-C is for who asks, who then ends this process
            self.processes.append(subprocess.Popen(command, process_group=0, **given))
            theirs.close()
            self.connections.append(ours)
            with suppress(_Lost):  # why it is lost is told when it is asked
                _tell(ours, make)

    def __enter__(self) -> Lanes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def extend(
        self,
        prompts: Prompts,
        plan: RolloutBudget,
        stop: Stop,
        watch: Watch,
        *,
        temperature: float = 1.0,
        greedy: bool = False,
        avoid: bool = False,
        rows: int = 128,
        progress: Progress = silent,
    ) -> Rollouts:
        """As `Engine.extend`, with so many `rows` in each process.

        Raises:
            InputError: where a process died, or raised it.
            RuntimeError: where a process failed in another way; its traceback is in the words.
        """
        queue = Queue(prompts, plan, len(watch.horizon), lambda one: one.score(avoided=avoid))
        choice = {"temperature": temperature, "greedy": greedy, "avoid": avoid}
        try:
            for connection in self.connections:
                _tell(connection, (stop, watch, rows, choice))
            self._answer(queue, rows, progress)
        except _Lost as error:
            self.close()
            raise InputError(
                "a process of the simulation died, perhaps for want of memory: run again with fewer --processes "
                "or --rows; what was finished is kept."
            ) from error
        except BaseException:
            self.close()  # they are in the midst of something
            raise
        return Rollouts.of(queue.ended, len(watch.horizon))

    def _answer(self, queue: Queue, rows: int, progress: Progress) -> None:
        """What the lanes ask and tell, until all have ended."""
        total, count = len(queue.prompts.ids), len(self.connections)
        held = dict.fromkeys(self.connections, 0)  # the rollouts that each one has at work
        idle: dict[Connection, int] = {}  # it asked for so many, and has nothing else to do
        busy = set(self.connections)

        def given(connection: Connection, most: int) -> tuple[Prompt, np.ndarray] | None:
            # An even share of all there is, so that one lane does not take what two could
            fair = -(-(queue.ahead(rows * count) + sum(held.values())) // count)
            most = min(most, fair - held[connection])
            taken = queue.take(most) if most > 0 else None
            held[connection] += 0 if taken is None else len(taken[1])
            return taken

        while busy:
            for connection in wait(list(busy)):
                kind, *told = _heard(connection)
                if kind == "take":
                    idle[connection] = told[0]
                elif kind == "bring":
                    held[connection] -= 1
                    queue.bring(*told)
                    progress(queue.settled, total, tokens=queue.tokens)
                elif kind == "end":
                    busy.remove(connection)
                elif kind == "refused":
                    raise InputError(told[0])
                else:
                    raise RuntimeError(f"a process of the simulation failed:\n{told[0]}")
            for connection, most in list(idle.items()):
                taken = given(connection, most)
                # Without anything at work it waits: what others bring may make the plan ask for more
                if taken is not None or held[connection] or queue.settled == total:
                    _tell(connection, taken)
                    del idle[connection]
        progress(queue.settled, total, tokens=queue.tokens)


class _Far:
    """The queue, seen from a lane's process."""

    def __init__(self, connection: Connection):
        self.connection = connection

    def take(self, most: int) -> tuple[Prompt, np.ndarray] | None:
        """As `Queue.take`; a lane that has nothing else to do waits until there is something, or all is done."""
        _tell(self.connection, ("take", most))
        return _heard(self.connection)

    def bring(self, prompt: int, ended: Ended) -> None:
        """As `Queue.bring`."""
        _tell(self.connection, ("bring", prompt, ended))


def serve(handle: int) -> None:
    """What a process does: lanes, one after the other, until nobody is at the other end of the pipe.

    `handle`: the file descriptor of this end. What comes first is `make`.
    """
    torch.set_num_threads(1)
    connection = Connection(handle)
    try:
        engine = _heard(connection)()
        while True:
            stop, watch, rows, choice = _heard(connection)
            lane = engine.lane(_Far(connection), stop, watch, rows, **choice)
            while lane.step():
                pass
            _tell(connection, ("end",))
    except _Lost:
        return
    except InputError as error:
        with suppress(_Lost):
            _tell(connection, ("refused", str(error)))
    except Exception:
        with suppress(_Lost):
            _tell(connection, ("failed", traceback.format_exc()))


class _Lost(Exception):
    """Nobody is at the other end of a pipe."""


def _tell(connection: Connection, what: object) -> None:
    try:
        connection.send(what)
    except OSError as error:
        raise _Lost from error


def _heard(connection: Connection) -> Any:
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
