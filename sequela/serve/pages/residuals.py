"""What came over what a model expected, for people (`sequela.training.outcomes.residual`)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from sequela.serve.folder.lineage import behind
from sequela.training.settings import RESIDUALS

SHOWN = 5  # rows of outcomes, and of groups
COLUMNS = ("outcome", "among positions", "came", "expected", "observed / expected", "elsewhere")


def residuals(folders: Iterable[Path]) -> dict | None:
    """What the training of the model behind these folders recorded, if it is still there."""
    trained = (record["result"] for record in behind(folders) if record["stage"] == "train")
    return next((result[RESIDUALS] for result in trained if result.get(RESIDUALS)), None)


def sentence(compared: dict) -> str:
    """How many comparisons there were, and how many of them are off.

    >>> sentence({"patients": 1758, "comparisons": 394, "outcomes": [{"off": False}], "groups": [{"off": True}]})
    'On 1,758 tuning patients, 1 of 394 comparisons of what came with what the model expected is off (5 % level, Holm).'
    """
    off = sum(one["off"] for one in (*compared["outcomes"], *compared["groups"]))
    return (
        f"On {compared['patients']:,} tuning patients, {f'{off:,}' if off else 'none'} of {compared['comparisons']:,} "
        f"comparisons of what came with what the model expected {'are' if off > 1 else 'is'} off (5 % level, Holm)."
    )


def rows(compared: dict) -> list[tuple[str, ...]]:
    """The strongest of what is off, under COLUMNS: first outcomes as a whole, then in groups; none where nothing is."""
    whole = sorted((one for one in compared["outcomes"] if one["off"]), key=lambda one: one["p"])
    parts = [one for one in compared["groups"] if one["off"]]
    return [_row(one) for one in (*whole[:SHOWN], *parts[:SHOWN])]


def _row(line: dict) -> tuple[str, ...]:
    ratio = f"{line['ratio']:.2f} [{line['low']:.2f}, {line['high']:.2f}]"
    elsewhere = f"{line['elsewhere']:.2f}" if "elsewhere" in line else ""
    counts = f"{line['observed']:,}", f"{line['expected']:,.1f}"
    return line["outcome"], line.get("group", "all"), *counts, ratio, elsewhere


def print_residuals(compared: dict) -> None:
    """Print what is off, in a few lines, on stdout."""
    console = Console(width=120)
    console.print(sentence(compared), highlight=False)
    if found := rows(compared):
        result = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in COLUMNS:
            result.add_column(column, justify="left" if column in COLUMNS[:2] else "right")
        for row in found:
            result.add_row(*row)
        console.print(result)
