"""`sequela evaluate`: predictions to scores with intervals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sequela.serve.folder import manifest
from sequela.serve.folder.lineage import stage_costs
from sequela.serve.stage import Finished, StageRun, stage


def _show(done: Finished) -> None:
    from sequela.serve.pages.terminal import print_summary

    print_summary(json.loads((done.values["out"] / "metrics.json").read_text(encoding="utf-8")))


@stage(show=_show)
def evaluate(
    predictions: Path,
    out: Path,
    *,
    also: tuple[Path, ...] = (),
    seed: int = 0,
    margin: float = 0.02,
    note: str = "",
    run: StageRun,
) -> dict:
    """Score predictions against what happened, with 95 % intervals.

    Example: sequela evaluate predictions/ evaluation/

    Args:
        predictions: A folder of predictions, such as sequela predict writes, or another one of the same layout.
        out: The folder to write: metrics.json and report.html.
        also: Another folder of predictions to score side by side; repeat for several.
        seed: Seed of the bootstrap.
        margin: Models match if the 95 % interval of their difference lies within so much of AUROC, or within that share
            of the other model's error.
        note: A sentence to show above the scores, on the page and on the terminal.

    Raises:
        InputError: where a file is not in the meds-evaluation schema, or the margin is not above 0.
    """
    folders = [predictions, *also]
    settings = {"seed": seed, "margin": margin, **({"note": note} if note else {})}
    roles = manifest.roles("predictions", len(folders))

    def make(work: Path) -> dict:
        from sequela.serve.pages.provenance import simulation
        from sequela.serve.pages.report import write_report
        from sequela.serve.pages.residuals import residuals
        from sequela.task.scoring.evaluate import evaluate

        metrics: dict[str, Any] = evaluate(folders, work, seed=seed, margin=margin) | {
            "simulation": simulation(folders),
            "stages": stage_costs(folders),
            "residuals": residuals(folders),
        }
        if note:
            metrics["note"] = note
        (work / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
        write_report(metrics, folders, work / "report.html", progress=run.progress)
        return {"tasks": sorted(metrics["tasks"])}

    return run.folder(out, "evaluate", settings, dict(zip(roles, folders, strict=True)), make)
