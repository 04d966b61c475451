"""Scores and losses as tables in the terminal."""

from __future__ import annotations

import math

from rich import box
from rich.console import Console
from rich.table import Table

from sequela.serve.pages.provenance import in_words, sentences
from sequela.task.answers.prediction import SIMULATION as OURS
from sequela.task.answers.prediction import model_order
from sequela.task.kinds import KINDS, Kind
from sequela.task.scoring.metric import Metric

WIDTH = 100  # at least; narrower terminals wrap
TITLE = "Held-out patients; 95 % intervals by bootstrap over patients"
COUNTS = {"n": "n", "positives": "events", "without": "without", "undecidable": "censored"}


def print_summary(metrics: dict) -> None:
    """Print the scores of every task and model on stdout, and where the simulation loses."""
    console = Console()
    console = Console(width=max(WIDTH, console.width)) if console.is_terminal else Console(width=WIDTH)
    if metrics.get("note"):
        console.print(metrics["note"], highlight=False, markup=False)
    for name, kind in KINDS.items():
        tasks = {title: task for title, task in metrics["tasks"].items() if task["kind"] == name}
        if tasks:
            console.print(table(tasks, kind))
    for name, task in metrics["tasks"].items():
        console.print(f"{name}: {task['verdict']}", highlight=False)
        if words := task.get("agreement", {}).get("words"):
            console.print(f"{name}: {words}", highlight=False)
    if words := metrics.get("comparisons", {}).get("words"):
        console.print(words, highlight=False)
    told = metrics.get("simulation", {"answers": {}, "futures": []})
    for estimator in dict.fromkeys(answer["estimator"] for answer in told["answers"].values()):
        same = {name: one for name, one in told["answers"].items() if one["estimator"] == estimator}
        console.print(f"Simulation of {', '.join(same)}: {in_words(*same.values())}.", highlight=False)
    for line in (line for futures in told["futures"] for line in sentences(futures)):
        console.print(line, highlight=False)


def table(tasks: dict[str, dict], kind: Kind) -> Table:
    """One row per task with its counts, and below it one row per model with its scores, the simulation first."""
    result = Table(title=TITLE, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    result.add_column("task, model", no_wrap=True)
    counted = [name for name in COUNTS if name != ("positives" if kind.numeric else "without")]
    for column in (*(COUNTS[name] for name in counted), *(heading(metric, kind) for metric in kind.summary)):
        result.add_column(column, justify="right", no_wrap=True)
    nothing = [""] * len(counted)
    for name, task in tasks.items():
        counts = (task.get(one) for one in counted)
        result.add_row(f"[bold]{name}[/]", *("" if count is None else f"{count:,}" for count in counts))
        for model, scores in ours_first(task["models"]).items():
            label = f"  [bold]{model}[/]" if model == OURS else f"  {model}"
            result.add_row(label, *nothing, *(interval(scores.get(metric.name)) for metric in kind.summary))
        result.add_section()
    return result


def heading(metric: Metric, kind: Kind) -> str:
    """The heading of a column of scores, with the unit of the kind if the metric has it.

    >>> from sequela.task.scoring import metric
    >>> heading(metric.MAE, KINDS["time"]), heading(metric.AUROC, KINDS["binary"])
    ('MAE, days', 'AUROC')
    """
    return in_unit(metric.title, metric, kind)


def in_unit(title: str, metric: Metric, kind: Kind) -> str:
    """A title with the unit of the kind, if the metric has it."""
    return f"{title}, {kind.words.heading}" if metric.in_units and kind.words.heading else title


def print_losses(losses: dict) -> None:
    """Print how well a trained model predicts patients that it has not seen, by kind of event, on stdout."""
    result = Table(
        title="Tuning patients: {bits_per_event:.3f} bits per event, {bits_per_token:.3f} per token".format(
            **losses
        ),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    result.add_column("kind", no_wrap=True)
    for column in ("events", "bits per event", "share of all bits"):
        result.add_column(column, justify="right", no_wrap=True)
    kinds = sorted(losses["kinds"].items(), key=lambda item: -item[1]["share"])
    for name, one in kinds:
        result.add_row(
            name, f"{one['events']:,}", f"{one['bits_per_event']:.3f}", f"{100 * one['share']:.1f} %"
        )
    Console(width=WIDTH).print(result)


def ours_first(models: dict[str, dict]) -> dict[str, dict]:
    """The same models, the simulation first."""
    return {name: models[name] for name in sorted(models, key=model_order)}


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


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
