"""The report: one self-contained HTML file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from sequela.errors import InputError
from sequela.files import system_error
from sequela.progress import Progress, silent
from sequela.serve.folder import manifest
from sequela.serve.folder.lineage import stage_costs
from sequela.serve.pages.chart import PlotLine, unit_plot
from sequela.serve.pages.futures import examples
from sequela.serve.pages.page import render
from sequela.serve.pages.provenance import in_words, sentences, simulation
from sequela.serve.pages.residuals import COLUMNS, residuals, rows, sentence
from sequela.serve.pages.terminal import in_unit, interval, ours_first
from sequela.serve.presets import PRESETS
from sequela.serve.progress import duration
from sequela.task.answers.prediction import SIMULATION as OURS
from sequela.task.baselines.words import BASELINES
from sequela.task.catalog import catalog
from sequela.task.kinds import KINDS
from sequela.task.scoring.curves import calibration, read_scored, roc
from sequela.task.task import Task

PLOTTED = (OURS, "strong", "tokens", "cox", "trees", "logistic", "age_sex")  # of these, the first four that were scored
CALIBRATED = 2
LIMITS = (0.05, 0.1, 0.25, 0.5, 1.0)  # of the axes of a calibration plot

def read_metrics(folder: Path) -> dict:
    """The scores in a folder of `sequela evaluate`.

    Raises:
        InputError: if there are none.
    """
    path = folder / "metrics.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise system_error(error, path) or InputError(
            f"{path} cannot be read: give a folder that `sequela evaluate` wrote."
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}): run `sequela evaluate` again.") from error


def write_report(
    metrics: dict, predictions: Sequence[Path], path: Path, *, progress: Progress = silent
) -> None:
    """Write the report to `path`.

    Args:
        metrics: what metrics.json holds.
        predictions: the folders of predictions that were scored; their manifests lead to the simulated futures and
            to the cost of earlier stages. What is not there is left out.
    """
    progress(0, 3, part="plots")
    tasks = _tasks(metrics, predictions)
    provenance = metrics.get("simulation") or simulation(predictions)
    sections = [
        _section(name, scores, tasks.get(name), predictions, provenance["answers"].get(name))
        for name, scores in metrics["tasks"].items()
    ]
    progress(1, 3, part="example futures")
    shown, kinds = _examples(predictions, [task for name, task in tasks.items() if name in metrics["tasks"]])
    progress(2, 3, part="page")
    page = render(
        "report.html",
        headline=_headline(metrics, tasks),
        note=metrics.get("note", ""),
        compared=metrics.get("comparisons", {}).get("words", ""),
        sections=sections,
        futures=[" ".join(sentences(part)) for part in provenance["futures"]],
        examples=[(example.words, Markup(example.picture)) for example in shown],
        kinds=kinds,
        expected=_expected(metrics.get("residuals") or residuals(predictions)),
        stages=_stage_rows(metrics.get("stages") or stage_costs(predictions)),
        limits=_limits(tasks),
    )
    path.write_text(page, encoding="utf-8")
    progress(3, 3)


def _tasks(metrics: dict, predictions: Sequence[Path]) -> dict[str, Task]:
    """The tasks that were scored, as they were when the predictions were made, or else as in the catalog."""
    known = {task.name: task for task in catalog()}
    for folder in predictions:
        for fields in (manifest.read(folder) or {"settings": {}})["settings"].get("tasks", []):
            task = Task.of(fields)
            known[task.name] = task
    return {name: known[name] for name in metrics["tasks"] if name in known}


def _headline(metrics: dict, tasks: dict[str, Task]) -> str:
    """One sentence about the first task that has a score of ours."""
    for name, scores in metrics["tasks"].items():
        kind = KINDS[scores["kind"]]
        score = scores["models"].get(OURS, {}).get(kind.headline.name) or {}
        if score.get("value") is not None:
            title = tasks[name].title if name in tasks else name
            return f"{title}: {kind.words.score(score['value'])}"
    return "No simulation was scored here; the table shows the models that were."


def _section(
    name: str, scores: dict, task: Task | None, predictions: Sequence[Path], answer: dict | None
) -> dict:
    """What the page shows of one task."""
    kind = KINDS[scores["kind"]]
    columns = [
        metric
        for metric in kind.metrics
        if any(model.get(metric.name) for model in scores["models"].values())
    ]
    return {
        "name": name,
        "title": task.title if task else name,
        "counts": _counts(scores),
        "estimated": "" if answer is None else f"Simulation takes the {in_words(answer)}.",
        "undecidable": scores["undecidable"],
        "verdict": scores.get("verdict", ""),
        "agreement": scores.get("agreement", {}).get("words", ""),
        "columns": [in_unit(metric.page_title or metric.title, metric, kind) for metric in columns],
        "models": [
            (model, model == OURS, [interval(values.get(metric.name)) for metric in columns])
            for model, values in ours_first(scores["models"]).items()
        ],
        "baselines": [(model, BASELINES[model]) for model in scores["models"] if model in BASELINES],
        "plots": [Markup(plot) for plot in _plots(name, scores, predictions)],
    }


def _counts(scores: dict) -> str:
    """The numbers of patients, of known answers, and of simulated futures."""
    parts = [f"{scores['n']:,} patients"]
    if scores["positives"] is not None:
        without = scores["decidable"] - scores["positives"]
        parts += [f"{scores['positives']:,} with the outcome", f"{without:,} without"]
    elif scores.get("without"):
        words = KINDS[scores["kind"]].words.without
        parts.append(f"{scores['without']:,} {words}, who are left out of the scores")
    parts.append(f"{scores['undecidable']:,} censored: their record ends before the answer is known")
    text = ", ".join(parts) + "."
    futures = scores["rollouts"].get(OURS)
    if futures:
        total = futures["decidable"] + futures["undecidable"]
        text += f" {total:,} simulated futures."
        if futures["undecidable"]:
            text += (
                f" Of these, {futures['undecidable']:,} were truncated at the limit of tokens before they gave an "
                "answer: they count with what they had shown, and widen the intervals. Simulate with a higher `limit`."
            )
    return text


def _plots(name: str, scores: dict, predictions: Sequence[Path]) -> list[str]:
    """ROC and calibration of our model and of a few others; empty where the task has no probabilities."""
    scored = {}
    for model in [model for model in PLOTTED if model in scores["models"]][:4]:
        files = [folder / name / f"{model}.parquet" for folder in predictions]
        found = next((read_scored(file) for file in files if file.exists()), None)
        if found is not None:
            scored[model] = found
    if not scored:
        return []
    hits = unit_plot(
        [PlotLine(model, roc(one)) for model, one in scored.items()],
        "share of patients without the outcome above the threshold",
        "share of patients with it",
    )
    groups = {model: calibration(one) for model, one in list(scored.items())[:CALIBRATED]}
    highest = max(
        max(x, high)
        for points, spread in groups.values()
        for (x, _), (_, high) in zip(points, spread, strict=True)
    )
    calibrated = unit_plot(
        [PlotLine(model, points, spread, marks=True) for model, (points, spread) in groups.items()],
        "predicted risk (tenths of the patients)",
        "observed share",
        limit=next(limit for limit in LIMITS if limit >= min(1.0, highest)),
    )
    return [hits, calibrated]


def _examples(predictions: Sequence[Path], tasks: Sequence[Task]) -> tuple[list, dict[str, str]]:
    for folder in predictions:
        simulated, meds = manifest.source(folder, "simulated"), manifest.source(folder, "meds")
        mine = [task for task in tasks if (folder / task.name / f"{OURS}.parquet").exists()]
        if simulated is not None and meds is not None and mine:
            return examples(simulated, meds, folder, mine)
    return [], {}


def _expected(compared: dict | None) -> dict | None:
    """What came over what the model expected."""
    return compared and {"sentence": sentence(compared), "columns": COLUMNS, "rows": rows(compared)}


def _stage_rows(stages: dict[str, dict]) -> list[tuple[str, str, str, str]]:
    """Stage, time, memory, counts; in words."""
    rows = []
    for name, facts in stages.items():
        counts = [
            f"{facts[key]:,.0f} {key}"
            for key in ("patients", "events", "tokens", "parameters")
            if key in facts
        ]
        named = f"{name} ({facts['runs']} runs)" if "runs" in facts else name
        memory = f"{facts.get('peak_rss_mb', 0):,.0f} MB"
        rows.append((named, duration(facts["seconds"]), memory, ", ".join(counts)))
    return rows


def _limits(tasks: dict[str, Task]) -> list[str]:
    """What a reader has to know about the data of these tasks."""
    sources = {task.dataset: None for task in tasks.values()}
    return [sentence for source in sources if source in PRESETS for sentence in PRESETS[source].limits]
