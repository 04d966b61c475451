"""The scores as a table in the terminal."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table

WIDTH = 110  # where the output is no terminal
COLUMNS = {"auroc": "AUROC", "oe": "O/E", "calibration_slope": "slope", "brier": "Brier", "mae": "MAE, days"}


def print_summary(metrics: dict) -> None:
    """Print the scores of every task and model on stdout, and where simulation loses."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    console.print(table(metrics))
    for name, task in metrics["tasks"].items():
        if task.get("verdict"):
            console.print(f"{name}: {task['verdict']}", highlight=False)


def table(metrics: dict) -> Table:
    """One row a task and model: the counts, and every metric with its 95 % interval."""
    shown = [key for key in COLUMNS if any(_has(task, key) for task in metrics["tasks"].values())]
    result = Table(title="Held-out patients; 95 % intervals by bootstrap over patients", title_justify="left")
    for column in ("task", "n", "events", "undecidable", "model"):
        result.add_column(
            column, justify="right" if column in ("n", "events", "undecidable") else "left", no_wrap=True
        )
    for key in shown:
        result.add_column(COLUMNS[key], justify="right", no_wrap=True)
    for name, task in metrics["tasks"].items():
        counts = [name, f"{task['n']:,}", f"{task['positives']:,}", f"{task['undecidable']:,}"]
        for model, scores in task["models"].items():
            label = f"[bold]{model}[/]" if model == "sequela" else model
            result.add_row(*counts, label, *(interval(scores.get(key)) for key in shown))
            counts = [""] * len(counts)
        result.add_section()
    return result


def interval(score: dict | None) -> str:
    """A score with its interval.

    >>> interval({"value": 0.8361, "low": 0.81, "high": 0.8589})
    '.836 [.810, .859]'
    >>> interval({"value": 6.44, "low": 6.1, "high": 6.8})
    '6.44 [6.10, 6.80]'
    """
    if not score or not _is_number(score.get("value")):
        return "-"
    text = number(score["value"])
    if _is_number(score.get("low")) and _is_number(score.get("high")):
        text += f" [{number(score['low'])}, {number(score['high'])}]"
    return text


def number(value: float) -> str:
    """Three digits, without the zero before the point.

    >>> number(0.8361), number(1.0), number(-0.012)
    ('.836', '1.00', '-.012')
    """
    return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 0.9995 else f"{value:.2f}"


def _has(task: dict, key: str) -> bool:
    return any(scores.get(key) for scores in task["models"].values())


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
