"""The tasks that come with the package, and those of users, by name or by file."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path

from sequela.errors import InputError, nearest
from sequela.task.task import Task
from sequela.task.task_file import read_task

CATALOG = Path(__file__).parent / "catalog"


def catalog() -> list[Task]:
    """The tasks that come with the package, by name."""
    return [read_task(path) for path in sorted(CATALOG.glob("*.yaml"))]


def load_task(name_or_path: str | Path) -> Task:
    """The task of that name in the catalog, or the one in that YAML file.

    Raises:
        InputError: if there is no such task, or the file is not a task.
    """
    text = str(name_or_path)
    if text.endswith((".yaml", ".yml")):
        path = Path(text)
        if not path.is_file():
            raise InputError(f"{path} is not there: give a task file, or the name of a task.")
        return read_task(path)
    known = sorted(path.stem for path in CATALOG.glob("*.yaml"))
    if text not in known:
        raise InputError(
            f"there is no task '{text}'{nearest(text, known)}: choose one of {', '.join(known)}, or give the path of a "
            ".yaml file."
        )
    return read_task(CATALOG / f"{text}.yaml")


def load_tasks(names_or_paths: Iterable[str | Path]) -> list[Task]:
    """The tasks, in order; one that is given twice is one task.

    Raises:
        InputError: if there is no such task, a file is not a task, or two tasks have one name: results go by name.
    """
    given: dict[str, tuple[Task, str | Path]] = {}
    for name_or_path in names_or_paths:
        task = load_task(name_or_path)
        # some disks take two spellings of a name for one
        key = unicodedata.normalize("NFC", task.name).casefold()
        other, place = given.setdefault(key, (task, name_or_path))
        if other != task:
            raise InputError(
                f"{place} and {name_or_path} are two tasks of one name, '{task.name}', and one would replace the "
                "other: give one of them another name."
            )
    return [task for task, _ in given.values()]
