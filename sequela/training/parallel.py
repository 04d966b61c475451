"""One run on several processes: what they share, and how a module is spread over them. The model knows nothing of it.

torchrun starts the processes. Each passes its own rows
through the module. Gradients are averaged; weights and optimizers are the same in every process ("ddp"), or each
process holds a shard of them ("fsdp": FSDP2, arXiv 2304.11277).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from sequela.errors import InputError
from sequela.training.shutdown import Interrupted

KINDS = ("none", "ddp", "fsdp")
PATIENCE = timedelta(hours=2)  # rank 0 may hash or write for long; the death of a process is noticed at once

Row = TypeVar("Row")
Value = TypeVar("Value")
Module = TypeVar("Module", bound=nn.Module)


def _one_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run, seen from one of them.

    Attributes:
        rank: the number of this process; rank 0 leads: it alone writes, prints, and logs.
        size: number of processes.
        device: where this process computes.
        store: key-value store that all can read and write; None for a single process.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=_one_device)
    store: dist.Store | None = None

    @property
    def leads(self) -> bool:
        """Whether this process speaks for all."""
        return self.rank == 0

    def share(self, rows: Sequence[Row]) -> list[tuple[Row, float]]:
        """The rows of a step that this process takes, and the weight of each.

        Every process takes equally many, because the passes of FSDP2 wait for each other: where the rows of a run's
        last step do not divide evenly, some processes repeat a row with weight 0.

        >>> ProcessGroup(rank=1, size=2).share("abc")
        [('b', 1.0), ('a', 0.0)]
        """
        mine: list[tuple[Row, float]] = [(row, 1.0) for row in rows[self.rank :: self.size]]
        missing = -(-len(rows) // self.size) - len(mine)
        return mine + [(rows[0], 0.0)] * missing

    def sum(self, *numbers: float) -> list[float]:
        """Each number summed over the processes; all get the same result."""
        if self.size == 1:
            return [float(number) for number in numbers]
        summed = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(summed)
        return summed.tolist()

    def broadcast(self, value: Any = None) -> Any:
        """Rank 0's value, on every rank; also a barrier."""
        if self.size == 1:
            return value
        shared = [value]
        dist.broadcast_object_list(shared, 0)
        return shared[0]

    def collect(self, value: Value) -> list[Value]:
        """The values of all ranks, in rank order."""
        if self.size == 1:
            return [value]
        values: list = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def first(self, key: str) -> bool:
        """True on the one rank that asks first."""
        return self.store is None or self.store.add(key, 1) == 1


@contextmanager
def joined() -> Generator[ProcessGroup]:
    """Join the other processes that torchrun started, which it describes in environment variables.

    An error on any rank ends all of them and is reported once: it is raised where it came first, the others exit.
    """
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    store, rank, size = next(dist.rendezvous("env://", timeout=PATIENCE))
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    group = ProcessGroup(rank, size, device, store)
    try:
        yield group
    except BaseException as error:
        if group.first("ended"):
            raise
        raise SystemExit(0 if isinstance(error, Interrupted) else 1) from error
    dist.destroy_process_group()


def parallelize(objective: nn.Module, kind: str | None, group: ProcessGroup) -> nn.Module:
    """The module to call instead of `objective`, so that gradients are averaged over the ranks.

    FSDP2 replaces the weights of `objective` by shards, so build optimizers afterwards.

    Args:
        objective: all of its work happens in `forward`; `objective.decoder.blocks` are sharded one by one, the rest
            together.
        kind: "none", "ddp", or "fsdp"; None: "ddp" for more than one process.

    Raises:
        InputError: for a kind that does not fit the number of processes.
    """
    kind = kind or ("ddp" if group.size > 1 else "none")
    if kind not in KINDS:
        raise InputError(f"parallel must be one of {', '.join(KINDS)}, not {kind!r}.")
    if kind == "none" and group.size > 1:
        raise InputError(
            f"{group.size} processes cannot train with parallel none: choose ddp or fsdp, or start one process."
        )
    if kind == "none":
        return objective
    if group.store is None:
        raise InputError(
            f"parallel {kind} needs several processes: start them with torchrun."
        )
    if kind == "ddp":
        # find_unused_parameters, because otherwise DDP rearranges its buckets after the first step of a run. In which
        # order three or more ranks are added depends on the place in a bucket, and a resumed run has a first step of
        # its own.
        return DistributedDataParallel(objective, gradient_as_bucket_view=True, find_unused_parameters=True)
    mesh = init_device_mesh(group.device.type, (group.size,))
    for block in objective.decoder.blocks:
        fully_shard(block, mesh=mesh)
    return fully_shard(objective, mesh=mesh)


def is_parallel(module: nn.Module) -> bool:
    """Whether `parallelize` made this: FSDP2 changes the objective in place, so comparing the two does not tell."""
    return isinstance(module, FSDPModule | DistributedDataParallel)


@contextmanager
def accumulating(module: nn.Module, last: bool) -> Generator[None]:
    """Around the forward and backward pass of a row: the ranks average gradients only in the `last` row of a step."""
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(last)
    if isinstance(module, DistributedDataParallel) and not last:
        with module.no_sync():
            yield
    else:
        yield


def clip(module: nn.Module, limit: float) -> float:
    """Scale the gradients down to a global norm of at most `limit`; returns the norm before."""
    norm = torch.nn.utils.clip_grad_norm_(module.parameters(), limit)
    return float(_whole(norm))


def whole(module: Module, blank: Callable[[], Module]) -> Module:
    """An objective with whole weights, on every rank: itself unless its weights are sharded. All ranks call this.

    Args:
        blank: makes another one like it, whose weights do not matter; called on the meta device.
    """
    if not any(isinstance(weight, DTensor) for weight in module.parameters()):
        return module
    with torch.device("meta"):
        copy = blank()
    copy.load_state_dict({name: _whole(x.detach()) for name, x in module.state_dict().items()}, assign=True)
    copy.decoder.tie()
    return copy


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
