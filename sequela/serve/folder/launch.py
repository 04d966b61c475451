"""A stage by the processes that torchrun started: one has the folder, the others work in it with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sequela.serve.folder.work import Make

if TYPE_CHECKING:
    from sequela.training.parallel import ProcessGroup

LOG_LEVEL = "TORCH_CPP_LOG_LEVEL"


def launched() -> bool:
    """Whether torchrun (or another launcher that speaks as it does) started this process."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))


def follows() -> bool:
    """Whether another process speaks for this one."""
    return launched() and int(os.environ["RANK"]) > 0


@contextmanager
def process_group() -> Generator[ProcessGroup | None]:
    """The processes of this run; None where there is this one only, and torch need not be there yet."""
    if not launched():
        yield None
        return
    os.environ.setdefault(
        LOG_LEVEL, "ERROR"
    )  # before torch starts: DDP would advise against what it is told to do
    from sequela.training.parallel import joined

    with joined() as many:
        yield many


def together(many: ProcessGroup | None, stage: Callable[[Make], dict], make: Make) -> dict:
    """Call `stage(make)`; of many processes rank 0 does, and the others `make` in the folder that it works in.

    Returns:
        What rank 0's `stage` returns, on every rank.
    """
    if many is None:
        return stage(make)
    if many.leads:
        return many.broadcast({"facts": stage(_leading(many, make))})["facts"]
    heard = many.broadcast()
    if "work" in heard:
        make(Path(heard["work"]))
        heard = many.broadcast()
    return heard["facts"]


def _leading(many: ProcessGroup, make: Make) -> Make:
    def lead(work: Path) -> dict:
        many.broadcast({"work": str(work)})
        return make(work)

    return lead
