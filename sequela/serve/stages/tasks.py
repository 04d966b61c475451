"""`sequela tasks`: the questions that come with the package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sequela.serve.stage import Finished, stage

if TYPE_CHECKING:
    from sequela.task.task import Task


def _show(done: Finished) -> None:
    from json import dumps

    if done.values["json"]:
        print(dumps([task.as_dict() for task in done.result], indent=2))
        return
    for task in done.result:
        print(f"{task.name:<24} {task.dataset:<14} {task.title}")


@stage(line=None, show=_show, steps=True)
def tasks(*, json: bool = False) -> list[Task]:
    """List the questions that come with sequela, one per line.

    Example: sequela tasks

    Args:
        json: Print one JSON list with every field, for programs.
    """
    from sequela.task.catalog import catalog

    return catalog()
