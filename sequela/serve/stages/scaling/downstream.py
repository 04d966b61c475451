"""How well the models of a scaling study answer questions: AUROC against the loss, and against rollouts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from sequela.progress import Progress, silent
from sequela.rollout.settings import SimulateSettings
from sequela.serve import commands
from sequela.serve.folder.lock import CLAIM, held

COUNTS = (1, 2, 5, 10, 25, 50, 100)  # rollouts at which the best model is scored


def downstream(
    out: Path,
    rows: Sequence[dict],
    meds: Path,
    tasks: Sequence[str],
    settings: SimulateSettings,
    *,
    patients: int | None = None,
    progress: Progress = silent,
) -> list[dict]:
    """Simulate futures with the best run of each budget, and score the answers on held-out patients.

    Args:
        out: the folder of the study; what is simulated is kept in `out`/downstream.
        rows: the finished runs, as in `runs.parquet`.
        patients: ask about at most so many.

    Returns:
        By model, number of rollouts and task: run, bits_per_event, rollouts, task, AUROC with its interval. All models
        with all rollouts, the best one with fewer too.
    """
    best = [min(some, key=lambda row: row["bits_per_event"]) for some in _budgets(rows)]
    first = min(best, key=lambda row: row["bits_per_event"])
    found = []
    for number, row in enumerate(best):
        progress(number, len(best), task="downstream")
        folder = out / "downstream" / row["run"]
        with held(folder.with_name(f"{folder.name}{CLAIM}")):
            commands.simulate(
                out / "runs" / row["run"],
                meds,
                folder / "simulated",
                task=tasks,
                patients=patients,
                settings=settings,
            )
            counts = [count for count in COUNTS if count < settings.rollouts] if row is first else []
            for count in (*counts, settings.rollouts):
                found += _scored(row, folder, meds, tasks, count)
    return found


def _budgets(rows: Sequence[dict]) -> Iterator[list[dict]]:
    for budget in sorted({row["budget"] for row in rows}):
        yield [row for row in rows if row["budget"] == budget]


def _scored(row: dict, folder: Path, meds: Path, tasks: Sequence[str], count: int) -> list[dict]:
    predictions, scores = folder / f"predictions-{count}", folder / f"evaluation-{count}"
    commands.predict(folder / "simulated", meds, predictions, task=tasks, rollouts=count, baselines=False)
    commands.evaluate(predictions, scores)
    metrics = json.loads((scores / "metrics.json").read_text())["tasks"]
    return [
        {
            "run": row["run"],
            "bits_per_event": row["bits_per_event"],
            "rollouts": count,
            "task": task,
            "auroc": about["models"]["sequela"]["auroc"],
        }
        for task, about in metrics.items()
        if "auroc" in about["models"]["sequela"]
    ]
