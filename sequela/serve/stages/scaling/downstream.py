"""How well the models of a scaling study answer questions: AUROC against the loss, and against rollouts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sequela.progress import Progress, silent
from sequela.rollout.settings import SimulateSettings
from sequela.serve.folder.lock import LOCK, lock
from sequela.serve.stages.evaluate import evaluate
from sequela.serve.stages.predict import predict
from sequela.serve.stages.simulate import simulate

COUNTS = (1, 2, 5, 10, 25, 50, 100)  # rollouts at which the best model is scored


@dataclass(frozen=True)
class DownstreamSettings:
    """Which tasks the best model of each budget answers, and about whom."""

    meds: Path | None = None
    """The dataset with the patients whom the tasks ask about."""
    task: tuple[str, ...] = ()
    """Also let the best model of each budget answer this, by simulation."""
    patients: int | None = None
    """Ask about at most this many held-out patients."""
    rollouts: int = 10
    """Futures per patient."""


def downstream(
    out: Path,
    rows: Sequence[dict],
    ask: DownstreamSettings,
    settings: SimulateSettings,
    *,
    progress: Progress = silent,
) -> list[dict]:
    """Simulate futures with the best run of each budget, and score the answers on held-out patients.

    Args:
        out: the folder of the study; the simulations are kept in `out`/downstream.
        rows: the finished runs, as in `runs.parquet`.
        settings: how futures are simulated; the best model is scored with fewer rollouts too.

    Returns:
        By model, number of rollouts and task: run, bits_per_event, rollouts, task, AUROC with its interval. All models
        with all rollouts, the best one with fewer too.
    """
    assert ask.meds is not None
    best = [min(runs, key=lambda row: row["bits_per_event"]) for runs in _budgets(rows)]
    first = min(best, key=lambda row: row["bits_per_event"])
    result = []
    for number, row in enumerate(best):
        progress(number, len(best), task="downstream")
        folder = out / "downstream" / row["run"]
        with lock(folder.with_name(f"{folder.name}{LOCK}")):
            simulate(
                out / "runs" / row["run"], ask.meds, folder / "simulated",
                task=ask.task, patients=ask.patients, settings=settings,
            )  # fmt: skip
            counts = [count for count in COUNTS if count < settings.rollouts] if row is first else []
            for count in (*counts, settings.rollouts):
                result += _scored(row, folder, ask, count)
    return result


def _budgets(rows: Sequence[dict]) -> Iterator[list[dict]]:
    for budget in sorted({row["budget"] for row in rows}):
        yield [row for row in rows if row["budget"] == budget]


def _scored(row: dict, folder: Path, ask: DownstreamSettings, count: int) -> list[dict]:
    predictions, scores = folder / f"predictions-{count}", folder / f"evaluation-{count}"
    predict(folder / "simulated", ask.meds, predictions, task=ask.task, rollouts=count, baselines=False)
    evaluate(predictions, scores)
    metrics = json.loads((scores / "metrics.json").read_text(encoding="utf-8"))["tasks"]
    return [
        {
            "run": row["run"],
            "bits_per_event": row["bits_per_event"],
            "rollouts": count,
            "task": task,
            "auroc": scored["models"]["sequela"]["auroc"],
        }
        for task, scored in metrics.items()
        if "auroc" in scored["models"]["sequela"]
    ]
