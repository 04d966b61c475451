"""One run by many processes: what they share, and how a module is spread over them. The model does not know.

torchrun starts the processes (`torchrun --nproc-per-node 2 -m sequela train corpus/ model/`). Each passes its own rows
through the module. Their gradients are averaged, weights and optimizers stay the same everywhere ("ddp"), or lie in
pieces, one a process ("fsdp": FSDP2, arXiv 2304.11277).
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
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
from sequela.model.decoder import Decoder
from sequela.training.shutdown import Interrupted

KINDS = ("none", "ddp", "fsdp")
PATIENCE = timedelta(hours=2)  # rank 0 may hash or write for long; of a process that died all know at once

Row = TypeVar("Row")
Thing = TypeVar("Thing")


def _one_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run, seen from one of them.

    Attributes:
        rank: its number; rank 0 leads: it alone writes, prints and logs.
        size: how many there are.
        device: where it computes.
        store: what all can read and write; None where there is one process.
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
        last step do not divide, some take a row again with weight 0.

        >>> ProcessGroup(rank=1, size=2).share("abc")
        [('b', 1.0), ('a', 0.0)]
        """
        own: list[tuple[Row, float]] = [(row, 1.0) for row in rows[self.rank :: self.size]]
        missing = -(-len(rows) // self.size) - len(own)
        return own + [(rows[0], 0.0)] * missing

    def sum(self, *numbers: float) -> list[float]:
        """Each number, summed over the processes; all get the same."""
        if self.size == 1:
            return [float(number) for number in numbers]
        held = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(held)
        return held.tolist()

    def tell(self, thing: Any = None) -> Any:
        """What rank 0 says, on every rank; also the place where all wait for each other."""
        if self.size == 1:
            return thing
        held = [thing]
        dist.broadcast_object_list(held, 0)
        return held[0]

    def gather(self, own: Thing) -> list[Thing]:
        """What every rank says, in their order."""
        if self.size == 1:
            return [own]
        held: list = [None] * self.size
        dist.all_gather_object(held, own)
        return held

    def first(self, what: str) -> bool:
        """True on the one rank that asks first."""
        return self.store is None or self.store.add(what, 1) == 1


@contextmanager
def joined() -> Generator[ProcessGroup]:
    """Join the other processes that torchrun started: where they are, it wrote into this one's environment.

    An error on any rank ends all of them and is told once: it is raised where it came first, the others leave.
    """
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    store, rank, size = next(dist.rendezvous("env://", timeout=PATIENCE))
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    world = ProcessGroup(rank, size, device, store)
    try:
        yield world
    except BaseException as error:
        if world.first("ended"):
            raise
        raise SystemExit(0 if isinstance(error, Interrupted) else 1) from error
    dist.destroy_process_group()


def parallelize(objective: nn.Module, kind: str | None, world: ProcessGroup) -> nn.Module:
    """The module to call instead of `objective`, so that gradients are averaged over the ranks.

    FSDP2 replaces the weights of `objective` by pieces, so optimizers come after this.

    Args:
        objective: all of the model's work happens in its `forward`; `objective.decoder.blocks` are sharded one by one.
        kind: "none", "ddp" or "fsdp"; None: ddp for more than one process.

    Raises:
        InputError: for a kind that does not go with the number of processes.
    """
    kind = kind or ("ddp" if world.size > 1 else "none")
    if kind not in KINDS:
        raise InputError(f"--parallel must be one of {', '.join(KINDS)}, not {kind!r}.")
    if kind == "none" and world.size > 1:
        raise InputError(
            f"{world.size} processes with --parallel none: choose ddp or fsdp, or start one process."
        )
    if kind == "none":
        return objective
    if world.store is None:
        raise InputError(
            f"--parallel {kind} needs torchrun: `torchrun --nproc-per-node N -m sequela train ...`."
        )
    if kind == "ddp":
        # Otherwise DDP rearranges its buckets after a run's first step. In which order three ranks or more are added
        # depends on the place in a bucket, and a run that is taken up again has a first step of its own.
        return DistributedDataParallel(objective, gradient_as_bucket_view=True, find_unused_parameters=True)
    mesh = init_device_mesh(world.device.type, (world.size,))
    for block in objective.decoder.blocks:
        fully_shard(block, mesh=mesh)
    return fully_shard(objective, mesh=mesh)


@contextmanager
def accumulating(module: nn.Module, last: bool) -> Generator[None]:
    """Around the two passes of one row: gradients are averaged over the ranks in the `last` of a step."""
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(last)
    if isinstance(module, DistributedDataParallel) and not last:
        with module.no_sync():
            yield
    else:
        yield


def clip(module: nn.Module, limit: float) -> float:
    """Scale the gradients down to a global norm of at most `limit`; returns the norm they had."""
    norm = torch.nn.utils.clip_grad_norm_(module.parameters(), limit)
    return float(_whole(norm))


def whole(decoder: Decoder) -> Decoder:
    """The decoder with whole weights, on every rank: a copy where they lie in pieces. All ranks call this."""
    if not any(isinstance(weight, DTensor) for weight in decoder.parameters()):
        return decoder
    with torch.device("meta"):
        copy = Decoder(decoder.config)
    weights = {name: _whole(weight.detach()) for name, weight in decoder.named_parameters()}
    copy.load_state_dict(weights, assign=True, strict=False)
    if decoder.config.tied_embeddings:
        copy.head.weight = copy.embedding.weight
    return copy


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
