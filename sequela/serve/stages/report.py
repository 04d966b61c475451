"""`sequela report`: scores to the page that people read."""

from __future__ import annotations

from pathlib import Path

from sequela.serve.folder import manifest
from sequela.serve.stage import StageRun, stage


@stage()
def report(evaluation: Path, out: Path, *, run: StageRun) -> dict:
    """Write the page for people: scores, plots, example futures, limits. One HTML
    file that needs no network.

    Predictions, simulated futures and what the stages took are found through
    the manifests; what was deleted or moved is left out of the page.

    Example: sequela report evaluation/ report/

    Args:
        evaluation: A folder of sequela evaluate, or of a demo.
        out: The folder to write: report.html.

    Raises:
        InputError: where the folder holds no metrics.json.
    """
    folder = evaluation
    if (folder / "evaluation" / "metrics.json").exists():
        folder /= "evaluation"

    def make(work: Path) -> dict:
        from sequela.serve.pages.report import read_metrics, write_report

        roles = (manifest.read(folder) or {"inputs": {}})["inputs"]
        sources = [path for role in roles if (path := manifest.source(folder, role)) is not None]
        write_report(read_metrics(folder), sources, work / "report.html", progress=run.progress)
        return {}

    return run.folder(out, "report", {}, {"evaluation": folder}, make)
