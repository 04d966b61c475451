"""A what-if on disk and in the terminal: both arms side by side, and in words what the difference is not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from sequela.errors import InputError
from sequela.rollout.folder import SimulatedFolder
from sequela.task.answers.contrast import MEANING, contrast, summary
from sequela.task.task import Task

WIDTH = 120  # at least; narrower terminals wrap
PARQUET, JSON = "contrast.parquet", "whatif.json"
COLUMNS = ("task", "unit", "changed", "recorded", "what if", "difference", "sampling", "paired")
LEGEND = (
    "Means over {over}. Beside the difference its 95 % interval by bootstrap of patients; sampling: the standard error "
    "that the number of futures leaves in it; paired: the share of that variance which common random numbers took away."
)


def write_contrasts(
    folder: Path,
    tasks: Sequence[Task],
    times: Sequence[pl.DataFrame],
    *,
    as_recorded: Path,
    what_if: Path,
    estimator: str,
    everyone: bool,
    seed: int,
) -> dict:
    """Write `contrast.parquet` and `whatif.json` into `folder`.

    Args:
        times: the cohort of each task.
        as_recorded, what_if: the folders of both simulations.
        estimator, everyone, seed: see `sequela.task.answers.contrast`.

    Returns:
        `patients` and `changed`, over the tasks.
    """
    frames, found = [], {}
    for task, asked in zip(tasks, times, strict=True):
        one = contrast(task, asked, as_recorded, what_if, estimator)
        frames.append(one.select(pl.lit(task.name).alias("task"), pl.all()))
        found[task.name] = summary(one, task.kind, everyone=everyone, seed=seed)
    whole = pl.concat(frames)
    whole.write_parquet(folder / PARQUET)
    edits = SimulatedFolder(what_if).edits()
    facts = {"meaning": MEANING, "edits": edits, "everyone": everyone, "tasks": found}
    (folder / JSON).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    return {name: sum(one[name] for one in found.values()) for name in ("patients", "changed")}


def read_whatif(folder: Path) -> dict:
    """What `whatif.json` in `folder` holds.

    Raises:
        InputError: where it is not there.
    """
    path = Path(folder) / JSON
    if not path.exists():
        raise InputError(f"{path} is not there: make the folder with `sequela whatif`.")
    return json.loads(path.read_text())


def print_whatif(facts: dict) -> None:
    """Print what was edited in how many histories, a row a task, and what the difference is not, on stdout."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console = Console(width=max(WIDTH, console.width)) if console.is_terminal else Console(width=WIDTH)
    for edit, histories in facts["edits"].items():
        console.print(f"{edit}: {histories:,} histories", highlight=False, markup=False)
    over = "all patients" if facts["everyone"] else "the patients whose history the model reads otherwise"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in ("task", "unit") else "right", no_wrap=True)
    for name, one in facts["tasks"].items():
        table.add_row(name, one["unit"], *cells(one))
    console.print(LEGEND.format(over=over), highlight=False)
    console.print(table)
    for name, one in facts["tasks"].items():
        for line in remarks(one):
            console.print(f"{name}: {line}", highlight=False, markup=False)
    console.print(facts["meaning"], highlight=False, markup=False)


def cells(one: dict) -> list[str]:
    """What a row of the table says of one task's summary.

    >>> cells({"changed": 3, "patients": 4, "as_recorded": 0.12, "what_if": 0.3456, "standard_error": 0.01,
    ...     "difference": {"value": 0.2256, "low": 0.2, "high": 0.25}, "variance_removed": 0.305})
    ['3 of 4', '0.120', '0.346', '+0.226 [+0.200, +0.250]', '0.010', '30 %']
    """
    difference = one["difference"]
    text = "-"
    if difference:
        text = _signed(difference["value"])
        if difference["low"] is not None:
            text += f" [{_signed(difference['low'])}, {_signed(difference['high'])}]"
    removed = one["variance_removed"]
    return [
        f"{one['changed']:,} of {one['patients']:,}",
        *("-" if one[arm] is None else f"{one[arm]:.3f}" for arm in ("as_recorded", "what_if")),
        text,
        "-" if one["standard_error"] is None else f"{one['standard_error']:.3f}",
        "-" if removed is None else f"{100 * removed:.0f} %",
    ]


def remarks(one: dict) -> list[str]:
    """What must be said beside one task's row: that nothing changed, or that somebody has no answer.

    >>> remarks({"changed": 0, "unanswered": 2})
    ['the edits change nothing that the model reads, so there is nothing to compare.', '2 without an answer in an arm.']
    """
    found = []
    if not one["changed"]:
        found.append("the edits change nothing that the model reads, so there is nothing to compare.")
    if one["unanswered"]:
        found.append(f"{one['unanswered']:,} without an answer in an arm.")
    return found


def _signed(value: float) -> str:
    return f"{value:+.3f}"
