"""A scaling study for people: its plots as files, and a page with the answer, the fits and every run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sequela.serve.pages.chart import Axis, PlotLine, alone, plot
from sequela.serve.pages.page import render

PAGE = "scale.html"
STEPS = 60  # points of a smooth line


def write_scale_report(out: Path, rows: Sequence[dict], study: dict) -> None:
    """Write the plots `*.svg` and `scale.html` into `out`.

    Args:
        rows: the finished runs, as in `runs.parquet`.
        study: the fits, as in `fit.json`.
    """
    plots = {
        "isoflop": (
            _isoflop(rows, study),
            "Each budget spent on models of several sizes, with its parabola.",
        ),
        "loss": (_loss(rows, study), "The loss against compute: every run, and the best of each budget."),
        "optimum": (
            _optimum(study),
            "The best size and number of tokens of each budget, with 95 % intervals.",
        ),
        **_downstream(study),
    }
    drawn = {name: pair for name, pair in plots.items() if pair[0]}
    for name, (svg, _) in drawn.items():
        (out / f"{name}.svg").write_text(alone(svg), encoding="utf-8")
    page = render("scale.html", study=study, runs=rows, plots=list(drawn.values()), law=_law)
    (out / PAGE).write_text(page, encoding="utf-8")


def _isoflop(rows: Sequence[dict], study: dict) -> str:
    budgets = sorted({row["budget"] for row in rows})
    dots = [
        PlotLine(
            f"{budget:.2g} FLOPs",
            [(row["parameters"], row["bits_per_event"]) for row in rows if row["budget"] == budget],
            marks=True,
            line=False,
        )
        for budget in budgets
    ]
    fitted = {one["flops"]: one for one in (study["isoflop"] or {"budgets": []})["budgets"]}
    lines = [PlotLine("", _parabola(fitted[budget]) if budget in fitted else []) for budget in budgets]
    across = Axis.around("parameters", [row["parameters"] for row in rows], log=True)
    up = Axis.around("bits per event", [row["bits_per_event"] for row in rows])
    return plot([*dots, *lines], across, up, colors=len(budgets))


def _parabola(curve: dict) -> list[tuple[float, float]]:
    sizes = np.geomspace(curve["smallest"], curve["largest"], STEPS)
    losses = np.exp(np.polyval(curve["coefficients"][::-1], np.log(sizes / curve["centre"])))
    return list(zip(sizes.tolist(), losses.tolist(), strict=True))


def _loss(rows: Sequence[dict], study: dict) -> str:
    every = [(row["flops"], row["bits_per_event"]) for row in rows]
    best = [
        (one["flops"], one["loss"]["value"], one["loss"]) for one in (study["isoflop"] or {"budgets": []})["budgets"]
        if "loss" in one
    ]  # fmt: skip
    advice, curves = study["advice"], [PlotLine("runs", every, marks=True, line=False)]
    if best:
        spread = [_bar(one) for _, _, one in best]
        curves.append(PlotLine("best of a budget", [(x, y) for x, y, _ in best], spread, marks=True))
    told = advice["loss"]
    answer = [(advice["flops"], told["value"])]
    curves.append(PlotLine("advice", answer, [_bar(told)], marks=True, line=False))
    xs, ys = zip(*(point for curve in curves for point in curve.points), strict=True)
    across = Axis.around("training FLOPs", xs, log=True)
    if study.get("floor"):
        floor = study["floor"]["bits_per_event"]
        curves.append(PlotLine("entropy of the data", [(across.low, floor), (across.high, floor)]))
        ys = (*ys, floor)
    return plot(curves, across, Axis.around("bits per event", ys))


def _bar(interval: dict) -> tuple[float, float]:
    low, high = (math.nan if interval[end] is None else interval[end] for end in ("low", "high"))
    return low, high


def _optimum(study: dict) -> str:
    known = [one for one in (study["isoflop"] or {"budgets": []})["budgets"] if "parameters" in one]
    if not known:
        return ""
    curves = [
        PlotLine(
            name,
            [(one["flops"], one[name]["value"]) for one in known],
            [_bar(one[name]) for one in known],
            marks=True,
        )
        for name in ("parameters", "tokens")
    ]
    values = [value for curve in curves for _, value in curve.points]
    across = Axis.around("training FLOPs", [one["flops"] for one in known], log=True)
    return plot(curves, across, Axis.around("best parameters and tokens", values, log=True))


def _downstream(study: dict) -> dict[str, tuple[str, str]]:
    """AUROC against the loss, and against the number of rollouts, where tasks were asked."""
    asked = study.get("downstream") or []
    if not asked:
        return {}
    by_loss, by_rollouts = [], []
    for task in sorted({one["task"] for one in asked}):
        own = [one for one in asked if one["task"] == task]
        most = max(one["rollouts"] for one in own)
        by_loss.append(_scores(task, [one for one in own if one["rollouts"] == most], "bits_per_event"))
        best = min(own, key=lambda one: one["bits_per_event"])["run"]
        by_rollouts.append(_scores(task, [one for one in own if one["run"] == best], "rollouts"))
    return {
        "auroc_loss": (
            _auroc(by_loss, "bits per event", log=False),
            "Accuracy of the answers, by loss.",
        ),
        "auroc_rollouts": (
            _auroc(by_rollouts, "rollouts per patient", log=True),
            "Accuracy of the best model, by the number of rollouts per patient.",
        ),
    }


def _scores(name: str, answers: Sequence[dict], across: str) -> PlotLine:
    ordered = sorted(answers, key=lambda answer: answer[across])
    spread = [(one["auroc"]["low"], one["auroc"]["high"]) for one in ordered]
    return PlotLine(name, [(one[across], one["auroc"]["value"]) for one in ordered], spread, marks=True)


def _auroc(curves: Sequence[PlotLine], label: str, *, log: bool) -> str:
    xs, ys = zip(*(point for curve in curves for point in curve.points), strict=True)
    ends = [end for curve in curves for bar in curve.spread for end in bar if math.isfinite(end)]
    return plot(curves, Axis.around(label, xs, log=log), Axis.around("AUROC", (*ys, *ends)))


def _law(value: dict | None, digits: int = 3) -> str:
    """A number with its interval, for people."""
    if value is None or value["value"] is None:
        return "-"
    words = f"{value['value']:.{digits}g}"
    return (
        words
        if value["low"] is None
        else f"{words} ({value['low']:.{digits}g} to {value['high']:.{digits}g})"
    )
