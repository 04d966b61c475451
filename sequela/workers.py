"""Runs one function over many shards: in this process, in several local processes, or on a Ray cluster.

The function takes one item, writes its own files and returns something small. It must be defined at the top level of a
module and be deterministic: on Ray, the shard of a lost worker is run again elsewhere.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from sequela.errors import InputError
from sequela.progress import Progress, silent

Item = TypeVar("Item")
Result = TypeVar("Result")

EXECUTORS = ("local", "ray")
MOST = 1024  # processes: more would bring a machine down
RETRIES = 10  # of a shard whose Ray worker was lost


@dataclass(frozen=True)
class Workers:
    """Where shards are processed."""

    executor: str = "local"
    """local: processes on this machine; ray: a Ray cluster that sees the same files."""
    processes: int = 0
    """Number of worker processes; 0: one per core of this machine or cluster, but no more than there is work for."""
    address: str | None = None
    """Address of the Ray cluster; without one, Ray is started on this machine."""

    def __post_init__(self) -> None:
        if self.executor not in EXECUTORS:
            raise ValueError(f"executor must be one of {', '.join(EXECUTORS)}, not {self.executor!r}")
        if self.processes < 0:
            raise ValueError(f"processes must be 0 or more, not {self.processes}")
        if self.processes > MOST:
            raise ValueError(f"processes must be {MOST} or less, not {self.processes}")


def run(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: Workers | None = None,
    *,
    progress: Progress = silent,
) -> list[Result]:
    """`[function(item) for item in items]`, in parallel.

    Raises:
        InputError: if the executor is not available; also whatever `function` raises, for the first such item in order.
    """
    with worker_pool(workers, len(items)) as run_all:
        return run_all(function, items, progress=progress)


class WorkerPool(Protocol):
    """`run` on workers that have already been started."""

    def __call__(
        self, function: Callable[[Item], Result], items: Sequence[Item], *, progress: Progress = silent
    ) -> list[Result]:
        """`[function(item) for item in items]`."""


@contextmanager
def worker_pool(workers: Workers | None, most: int) -> Iterator[WorkerPool]:
    """Start workers once for several runs over at most `most` items each.

    Raises:
        InputError: if the executor is not available.
    """
    workers = workers or Workers()
    start = _ray if workers.executor == "ray" else _processes
    with start(workers, most) as mapped:

        def run_all(
            function: Callable[[Item], Result], items: Sequence[Item], *, progress: Progress = silent
        ) -> list[Result]:
            results: list[Result] = []
            for result in mapped(function, items):
                results.append(result)
                progress(len(results), len(items))
            return results

        yield run_all


def cores() -> int:
    """The cores that this process may use; where the system does not tell, as macOS does not, all there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _processes(workers: Workers, most: int) -> Iterator[Callable[..., Iterator]]:
    processes = min(workers.processes or cores(), most)
    if processes < 2:
        yield map
        return
    # Imported here because a single process does not need them and would start more slowly.
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    # Spawn, not fork: a fork copies locks held by threads that do not exist in the child.
    spawn = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(processes, mp_context=spawn, initializer=_begin)
    try:
        yield pool.map
    except BrokenProcessPool as error:
        raise InputError(
            "a worker process died, possibly because memory ran out: run again with fewer `processes`."
        ) from error
    except BaseException:  # nobody wants what they are still working on
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """Prepare a worker process.

    It has one thread: with one process per core, more would only compete. Ctrl-C on a terminal reaches every process;
    the one that started it says what happens then. And it does not outlive that one.
    """
    os.environ.update(POLARS_MAX_THREADS="1", OMP_NUM_THREADS="1")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    from multiprocessing import parent_process

    parent = parent_process()
    assert parent is not None, "not a worker process"
    parent.join()
    os._exit(1)


@contextmanager
def _ray(workers: Workers, most: int) -> Iterator[Callable[..., Iterator]]:
    try:
        import ray
    except ImportError as error:
        raise InputError("the executor 'ray' is not installed: pip install 'sequela[ray]'.") from error
    _check_reachable(workers.address)
    started = not ray.is_initialized()
    if started:
        _start(ray, workers)
    # Ray retries the shard of a lost worker, but not a shard whose function raised.
    remote = ray.remote(max_retries=RETRIES)(_call)

    def mapped(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        for reference in [remote.remote(function, item) for item in items]:
            try:
                yield ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except ray.exceptions.RayError as error:
                raise InputError(
                    f"Ray was lost ({type(error).__name__}): look into its logs, and run again with the same cluster, "
                    "another one, or `executor` local."
                ) from error

    try:
        yield mapped
    finally:
        if started:
            ray.shutdown()


def _start(ray: Any, workers: Workers) -> None:
    """Connect to the cluster, or start Ray on this machine.

    Raises:
        InputError: if Ray does not start; it says so in exceptions without a class of their own.
    """
    try:
        ray.init(
            address=workers.address,
            num_cpus=None if workers.address else (workers.processes or None),
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(
            f"Ray did not start ({reason.removesuffix('.')}): look into its logs, or set `executor` to local."
        ) from error


def _call(function: Callable[[Item], Result], item: Item) -> Result:
    return function(item)


def _check_reachable(address: str | None) -> None:
    """Check that something listens at HOST:PORT, because Ray itself would wait for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise InputError(
            f"no Ray cluster at {address} ({error.strerror or error}): start one, or leave out `address`."
        ) from error
