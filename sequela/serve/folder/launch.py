"""A stage under torchrun: rank 0 makes the folder, and all ranks work in it."""

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
    """Whether torchrun, or a launcher that sets the same variables, started this process."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))


def follows() -> bool:
    """Whether another process reports for this one."""
    return launched() and int(os.environ["RANK"]) > 0


@contextmanager
def process_group() -> Generator[ProcessGroup | None]:
    """The processes of this run; None, without importing torch, if there is this one only."""
    if not launched():
        yield None
        return
    os.environ.setdefault(
        LOG_LEVEL, "ERROR"
    )  # before torch starts: DDP warns about settings that are chosen on purpose
    from sequela.training.parallel import joined

    with joined() as group:
        yield group


def together(group: ProcessGroup | None, lead: Callable[[Make], dict], make: Make) -> dict:
    """Call `lead(make)` on rank 0; the other ranks call `make` in the folder that it works in.

    Returns:
        What rank 0's `lead` returns, on every rank.
    """
    if group is None:
        return lead(make)
    if group.leads:
        return group.broadcast({"result": lead(_leading(group, make))})["result"]
    message = group.broadcast()
    if "work" in message:
        make(Path(message["work"]))
        message = group.broadcast()
    return message["result"]


def _leading(group: ProcessGroup, make: Make) -> Make:
    def make_and_tell(work: Path) -> dict:
        group.broadcast({"work": str(work)})
        return make(work)

    return make_and_tell
