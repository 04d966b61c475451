"""The same function over many shards: in this process, in processes of this machine, or on a Ray cluster.

A function takes one item, writes its own files and returns something small. It must be defined at the top level of a
module, and give the same result wherever and however often it runs: on Ray a shard whose worker was lost runs again.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from sequela.errors import InputError
from sequela.progress import Progress, silent

Item = TypeVar("Item")
Result = TypeVar("Result")

ENGINES = ("local", "ray")
RETRIES = 10  # of a shard whose Ray worker was lost


@dataclass(frozen=True)
class Workers:
    """Where the shards are worked on."""

    engine: str = "local"
    """local: processes of this machine; ray: a Ray cluster, which must see the same files."""
    processes: int = 0
    """How many work at once; 0: one for each core of this machine, or of the cluster, if there is work enough."""
    address: str | None = None
    """The address of the Ray cluster; none starts one on this machine."""

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ValueError(f"engine must be one of {', '.join(ENGINES)}, not {self.engine!r}")
        if self.processes < 0:
            raise ValueError(f"processes must be 0 or more, not {self.processes}")


def run(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: Workers | None = None,
    *,
    progress: Progress = silent,
) -> list[Result]:
    """`[function(item) for item in items]`, several at once.

    Raises:
        InputError: where the engine is not to be had; whatever `function` raises, for the first item in order.
    """
    with at_work(workers, len(items)) as each:
        return each(function, items, progress=progress)


class Each(Protocol):
    """`run` with workers that are already there."""

    def __call__(
        self, function: Callable[[Item], Result], items: Sequence[Item], *, progress: Progress = silent
    ) -> list[Result]:
        """`[function(item) for item in items]`."""


@contextmanager
def at_work(workers: Workers | None, most: int) -> Iterator[Each]:
    """Workers for several runs over at most so many items: they are started once.

    Raises:
        InputError: where the engine is not to be had.
    """
    workers = workers or Workers()
    start = _ray if workers.engine == "ray" else _processes
    with start(workers, most) as mapped:

        def each(
            function: Callable[[Item], Result], items: Sequence[Item], *, progress: Progress = silent
        ) -> list[Result]:
            results: list[Result] = []
            for result in mapped(function, items):
                results.append(result)
                progress(len(results), len(items))
            return results

        yield each


@contextmanager
def _processes(workers: Workers, most: int) -> Iterator[Callable[..., Iterator]]:
    processes = min(workers.processes or len(os.sched_getaffinity(0)), most)
    if processes < 2:
        yield map
        return
    # Imported here: one process alone does without, and is spared a share of its start.
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    # Spawned, not forked: a fork copies the locks of threads that do not live on in the child.
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=spawn, initializer=_one_thread)
    try:
        yield pool.map
    except BrokenProcessPool as error:
        raise InputError(
            "a worker process died, perhaps for want of memory: run again with fewer --processes."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _one_thread() -> None:
    """One thread a process: with as many processes as cores, more would only wait for each other."""
    os.environ.update(POLARS_MAX_THREADS="1", OMP_NUM_THREADS="1")


@contextmanager
def _ray(workers: Workers, most: int) -> Iterator[Callable[..., Iterator]]:
    try:
        import ray
    except ImportError as error:
        raise InputError("the engine 'ray' is not installed: pip install 'sequela[ray]'.") from error
    _check_reachable(workers.address)
    started = not ray.is_initialized()
    if started:
        ray.init(
            address=workers.address,
            num_cpus=None if workers.address else (workers.processes or None),
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
    # A lost worker's shard runs again, elsewhere; what the function itself raises does not.
    remote = ray.remote(max_retries=RETRIES)(_call)

    def mapped(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        for asked in [remote.remote(function, item) for item in items]:
            try:
                yield ray.get(asked)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error

    try:
        yield mapped
    finally:
        if started:
            ray.shutdown()


def _call(function: Callable[[Item], Result], item: Item) -> Result:
    return function(item)


def _check_reachable(address: str | None) -> None:
    """Somebody listens at HOST:PORT: Ray itself would wait for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise InputError(
            f"there is no Ray cluster at {address} ({error.strerror or error}): start one, or leave --address out."
        ) from error
