"""`sequela tasks`: the questions that come with the package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sequela.serve.stage import stage

if TYPE_CHECKING:
    from sequela.task.task import Task


def _show(result: list[Task], values: Mapping[str, Any]) -> None:
    from json import dumps

    if values["json"]:
        print(dumps([task.as_dict() for task in result], indent=2))
        return
    for task in result:
        print(f"{task.name:<24} {task.dataset:<14} {task.title}")


@stage(line=None, show=_show, steps=True)
def tasks(*, json: bool = False) -> list[Task]:
    """List the questions that come with sequela, one a line.

    Example: sequela tasks

    Args:
        json: Print one JSON list with every field, for programs.
    """
    from sequela.task.catalog import catalog

    return catalog()
