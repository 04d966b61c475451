"""The page of a probe: each task along its course, an arm a line, a landmark a column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from markupsafe import Markup

from sequela.serve.pages.chart import Axis, PlotLine, plot
from sequela.serve.pages.page import render
from sequela.serve.pages.terminal import in_unit, interval
from sequela.task.baselines.words import BASELINES
from sequela.task.kinds import KINDS

DRAWN = ("strong", "trees", "last_values")  # baselines on the plots, of those there are
PAGE = "report.html"


def write_page(metrics: Mapping, titles: Mapping[str, str], folder: Path) -> None:
    """Write the page into `folder`.

    Args:
        metrics: what `sequela.task.probing.compare` made.
        titles: of tasks by name.
    """
    by_task: dict[str, list[dict]] = {}
    for cell in metrics["tasks"].values():
        by_task.setdefault(cell["task"], []).append(cell)
    sections = [_section(titles.get(name, name), cells, metrics["probe"]) for name, cells in by_task.items()]
    page = render(
        "probe.html",
        reference=metrics["probe"]["reference"],
        seeded=any(len(models) > 1 for models in metrics["probe"]["arms"].values()),
        compared=metrics["comparisons"]["words"],
        sections=sections,
        wins=_wins(metrics["probe"]),
        courses=[(entry["arm"], entry["what"], entry["of"], interval(entry)) for entry in metrics["probe"]["courses"]],
        baselines=[(model, BASELINES[model]) for model in _models(metrics["tasks"].values()) if model in BASELINES],
    )
    (folder / PAGE).write_text(page, encoding="utf-8")


def _models(cells: Iterable[dict]) -> list[str]:
    """All that were scored."""
    return list(dict.fromkeys(model for cell in cells for model in cell["models"]))


def _section(title: str, cells: list[dict], probe: Mapping) -> dict:
    """A task: scores by model and landmark, and gains to the reference."""
    kind = KINDS[cells[0]["kind"]]
    headline = kind.headline
    rows = [
        (model, model in probe["arms"], [_score(cell, model, headline.name) for cell in cells])
        for model in _models(cells)
    ]
    return {
        "title": title,
        "measured": in_unit(headline.page_title or headline.title, headline, kind),
        "better": "higher" if headline.higher_is_better else "lower",
        "landmarks": [cell["landmark"] for cell in cells],
        "counts": [_counts(cell) for cell in cells],
        "rows": rows,
        "verdicts": [(cell["landmark"], cell["verdict"]) for cell in cells],
        "plot": Markup(_along(cells, headline.name, in_unit(headline.title, headline, kind), probe)),
    }


def _score(cell: dict, model: str, metric: str) -> tuple[str, str]:
    """A score with its interval, and how it compares with the reference."""
    if model not in cell["models"]:
        return "-", ""
    less = cell["difference"].get(model)
    return interval(cell["models"][model].get(metric)), "" if less is None else f"{less['word']} ({interval(less)})"


def _counts(cell: dict) -> str:
    with_it = "" if cell["positives"] is None else f", {cell['positives']:,} with the outcome"
    return f"{cell['n']:,} patients{with_it}"


def _along(cells: list[dict], metric: str, label: str, probe: Mapping) -> str:
    """Scores over the landmarks that have a time; empty with fewer than two."""
    timed = [cell for cell in cells if cell["landmark_days"] is not None]
    if len(timed) < 2:
        return ""
    hours = max(cell["landmark_days"] for cell in timed) < 7
    times = [cell["landmark_days"] * (24 if hours else 1) for cell in timed]
    lines = []
    for model in (*probe["arms"], *(name for name in DRAWN if name in _models(timed))):
        scores = [cell["models"].get(model, {}).get(metric) or {} for cell in timed]
        points = [(at, score.get("value")) for at, score in zip(times, scores, strict=True)]
        if points := [(at, value) for at, value in points if value is not None]:
            lines.append(PlotLine(model, points, marks=True))
    if not lines:
        return ""
    up = Axis.around(label, [value for line in lines for _, value in line.points])
    return plot(lines, Axis.around("hours" if hours else "days", times), up)


def _wins(probe: Mapping) -> list[tuple[str, str, str]]:
    """Of each arm in what share of all cells it is ahead, and its mean gain."""
    return [(name, interval(won["win_rate"]), interval(won["mean_gain"])) for name, won in probe["wins"].items()]
