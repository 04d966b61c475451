"""A scaling study in a folder: the runs of its grid, each a stage of its own, then fits, plots and advice.

The grid follows from the corpus and the settings, so every process started on the same folder computes the same one.
Each takes the next run that is neither done nor locked; whichever finds all runs done writes the result. Existing runs
are kept, so naming more budgets extends a study.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from sequela.errors import InputError
from sequela.model import flops
from sequela.progress import Progress, silent
from sequela.serve.folder import manifest
from sequela.serve.folder.lock import LOCK, agreed, lock, try_lock
from sequela.serve.folder.place import check_way
from sequela.serve.pages.scale import write_scale_report
from sequela.training.derive import context_of, resolve
from sequela.training.scaling import advice
from sequela.training.scaling.isoflop import isoflop
from sequela.training.scaling.plan import Candidate, PlannedRun, StudyPlan, beyond, expected, grid, ladder
from sequela.training.scaling.runs import FinishedRun
from sequela.training.scaling.settings import ScaleSettings
from sequela.training.settings import REPORT, TrainSettings

RUNS, CENTERS, STUDY, TABLE, FIT = "runs", "centres", "study.json", "runs.parquet", "fit.json"
DEPTHS = range(1, 33)
WIDTHS = (16, 24, 32, 48, *range(64, 512, 32), *range(512, 4097, 64))
STOPPED = "-stopped"  # next to a run whose loss diverged: the batch on which it did
# Settings of a run that the study chooses
CHOSEN = ("preset", "depth", "layers", "width", "epochs", "tokens", "tokens_per_parameter")
ROUNDS = 4  # of adding sizes while the best size of a budget is the smallest or largest tried
BELOW = "The predicted loss is below the entropy of the data, which no model can reach: the law fails that far out."
WAIT = 5.0  # seconds between two looks at the runs of other processes


@dataclass(frozen=True)
class Study:
    """What every process knows about a study.

    Attributes:
        flops: the budgets.
        unique_tokens: tokens of one epoch.
        shapes: the models that could be trained, smallest first.
        train: makes a run from settings and a folder; returns the stage's manifest.
    """

    out: Path
    flops: tuple[float, ...]
    settings: ScaleSettings
    base: TrainSettings
    unique_tokens: int
    vocabulary: int
    shapes: Sequence[Candidate]
    train: Callable[[TrainSettings, Path], dict]

    @staticmethod
    def of(
        corpus: Path,
        out: Path,
        budgets: tuple[float, ...],
        settings: ScaleSettings,
        base: TrainSettings,
        train: Callable[[TrainSettings, Path], dict],
    ) -> Study:
        """Raises InputError if `out` holds a study of another corpus, or with other settings of its runs."""
        from sequela.tokens.corpus import Corpus
        from sequela.training.data import windows_of

        _refuse(base)
        data = Corpus.load(corpus, "train")
        lengths, vocabulary = windows_of(data, context_of(base)).lengths, len(data.tokenizer.vocabulary)
        unique = int(lengths.sum())
        if not len(lengths):
            raise InputError(f"{corpus} has no training patient: tokenize a larger dataset.")
        if not len(Corpus.load(corpus, "tuning").patients):
            raise InputError(
                f"{corpus} has no tuning patient to measure the loss on: tokenize a larger dataset."
            )
        budgets = tuple(float(f"{budget:g}") for budget in budgets)  # as the folders are called
        _begin(out, manifest.describe("scale", base.of_result, {"corpus": corpus}, out))

        def measure(depth: int, width: int) -> tuple[int, float]:
            config = resolve(replace(base, layers=depth, width=width), vocabulary, unique).model
            return config.parameters, flops.train(config, lengths) / unique

        shapes = ladder(measure, DEPTHS, WIDTHS)
        return Study(out, budgets, settings, base, unique, vocabulary, shapes, train)

    def plan(self, *budgets: float, optimum: Callable[[float], float] | None = None) -> StudyPlan:
        """The grid of these budgets, around the sizes from `optimum`, or else those expected to be best."""
        chosen = self.settings
        return grid(
            budgets,
            self.shapes,
            self.unique_tokens,
            sizes=chosen.sizes,
            optimum=optimum or expected(chosen.expected_tokens_per_parameter),
            most_epochs=chosen.most_epochs,
        )

    def center(self, budget: float) -> float:
        """The size at the center of a budget's grid, from what smaller budgets showed; fixed once for all processes."""

        def look() -> dict:
            smaller = [run for run in _runs(self.trained()) if run.budget < budget]
            try:
                return {"parameters": isoflop(smaller).optimum(budget)}
            except InputError:  # too few runs to tell
                return {"parameters": expected(self.settings.expected_tokens_per_parameter)(budget)}

        return agreed(self.out / CENTERS / f"{budget:g}.json", look)["parameters"]

    def folder(self, run: PlannedRun, seed: int) -> Path:
        """The folder of a run."""
        return self.out / RUNS / f"{run.budget:g}-{run.depth}x{run.width}-{seed}"

    def done(self, run: PlannedRun, seed: int) -> bool:
        """Whether a run is finished: trained, or stopped because its loss diverged."""
        folder = self.folder(run, seed)
        return (folder / REPORT).exists() or folder.with_name(f"{folder.name}{STOPPED}").exists()

    def stopped(self) -> list[str]:
        """The names of the runs whose loss diverged."""
        return sorted(path.name.removesuffix(STOPPED) for path in (self.out / RUNS).glob(f"[!.]*{STOPPED}"))

    def trained(self) -> list[dict]:
        """One record per finished run in the folder, by rising budget."""
        rows = [self._row(path) for path in sorted((self.out / RUNS).glob(f"[!.]*/{REPORT}"))]
        return sorted(rows, key=lambda row: (row["budget"], row["parameters"], row["seed"]))

    def _row(self, path: Path) -> dict:
        about = json.loads(path.read_text(encoding="utf-8"))
        model, settings = about["model"], about["settings"]
        return {
            "run": path.parent.name,
            "budget": float(path.parent.name.partition("-")[0]),
            "layers": model["layers"],
            "width": model["hidden_size"],
            "parameters": about["parameters"],
            "parameters_without_embedding": about["parameters"] - self.vocabulary * model["hidden_size"],
            "tokens": about["tokens"],
            "unique_tokens": self.unique_tokens,
            "epochs": about["tokens"] / self.unique_tokens,
            "flops": float(about["flops"]),
            "batch_tokens": settings["batch_tokens"],
            "learning_rate": settings["learning_rate"],
            "bits_per_token": about["tuning"]["bits_per_token"],
            "bits_per_event": about["tuning"]["bits_per_event"],
            "seconds": about["seconds"],
            "seed": settings["seed"],
        }


def scale(
    study: Study, progress: Progress = silent, asked: Callable[[Sequence[dict]], list[dict]] | None = None
) -> dict:
    """Make every run of the study that does not exist yet, and write the result; returns what `fit.json` holds.

    Args:
        asked: scores the models of the finished runs on tasks.

    Raises:
        InputError: for a grid that cannot be made, or runs that cannot be fitted.
    """
    study.plan(*study.flops)  # fail now rather than after the first runs
    notes = [note for budget in sorted(study.flops) for note in _finish(study, budget, progress)]
    rows = study.trained()
    notes += [
        f"The run {name} stopped because its loss diverged: see runs/{name}{STOPPED}." for name in study.stopped()
    ]
    setting = advice.Setting(study.shapes, study.unique_tokens, study.settings.most_epochs)
    chosen, speed = study.settings, max(row["flops"] / row["seconds"] for row in rows)
    target = speed * 3600 * chosen.target_hours if chosen.target_hours else chosen.target_flops
    result: dict[str, Any] = {
        "settings": {"flops": study.flops, **asdict(chosen)},
        **advice.study(_runs(rows), setting, target),
        "notes_on_plan": notes,
        "flops_per_second": speed,
        "floor": _above_floor(rows, chosen.floor),
        "downstream": asked(rows) if asked else [],
    }
    if chosen.floor and result["advice"]["loss"]["value"] < chosen.floor:
        result["advice"]["notes"].append(BELOW)
    with lock(study.out / f"{FIT}{LOCK}"):
        pl.DataFrame(rows).write_parquet(study.out / TABLE)
        (study.out / FIT).write_text(json.dumps(result, indent=1), encoding="utf-8")
        write_scale_report(study.out, rows, result)
    return result


def _refuse(base: TrainSettings) -> None:
    given = [name for name in CHOSEN if getattr(base, name) is not None]
    if given:
        raise InputError(f"a scaling study chooses sizes and tokens itself: leave out {', '.join(given)}.")


def _begin(out: Path, identity: dict) -> None:
    """Record what the folder holds, or check that it holds this study."""
    check_way(out)
    try:
        others = (
            [path for path in out.iterdir() if not path.name.startswith((".", STUDY))] if out.exists() else []
        )
        if any(path.name != CENTERS for path in others) and not (out / STUDY).exists():
            raise InputError(f"{out} exists and is not a scaling study: choose another folder.")
        (out / CENTERS).mkdir(parents=True, exist_ok=True)
        there = agreed(out / STUDY, lambda: identity)
    except OSError as error:
        raise InputError(f"{out} cannot be written to ({error.strerror}): choose another folder.") from error
    for what in ("version", "settings", "inputs"):
        if there.get(what) != identity[what]:
            raise InputError(
                f"{out} holds a scaling study with another {'corpus' if what == 'inputs' else what}: choose another "
                "folder. Budgets, sizes and seeds can be added to a study; everything else is the same for all runs."
            )


def _finish(study: Study, budget: float, progress: Progress) -> tuple[str, ...]:
    """Make all runs of a budget, and more if the best is at an edge; returns notes on its grid."""
    try:
        plan = study.plan(budget, optimum=lambda _: study.center(budget))
    except InputError as error:
        return (f"Budget {budget:.3g}: left out. {error}",)
    runs = plan.runs
    for _ in range(ROUNDS):
        _make(study, runs, progress)
        runs = _beyond(study, budget)
        if not runs:
            break
    return plan.notes


def _make(study: Study, runs: Sequence[PlannedRun], progress: Progress) -> None:
    """Train what is neither done nor locked, smallest budget first; then wait for other processes."""
    wanted = [(run, seed) for run in runs for seed in range(study.settings.seeds)]
    while left := [run for run in wanted if not study.done(*run)]:
        if not any(_take(study, *run) for run in left):
            time.sleep(WAIT)
        progress(len(wanted) - len(left), len(wanted))


def _take(study: Study, run: PlannedRun, seed: int) -> bool:
    """Make this run unless another process is at it; returns whether it was ours."""
    folder = study.folder(run, seed)
    with try_lock(folder.with_name(f"{folder.name}{LOCK}")) as mine:
        if mine and not study.done(run, seed):
            settings = replace(
                study.base, layers=run.depth, width=run.width, tokens=run.tokens,
                seed=study.base.seed + seed, checks=0, patience=0,
            )  # fmt: skip
            try:
                study.train(settings, folder)
            except InputError:
                if not study.done(run, seed):
                    raise
    return mine


def _beyond(study: Study, budget: float) -> list[PlannedRun]:
    """More sizes for a budget whose best size is the smallest or largest tried."""
    made = [run for run in _runs(study.trained()) if run.budget == budget]
    if len({run.parameters for run in made}) < 3:
        return []
    edge = isoflop(made).curves[0].edge
    tried = {int(run.parameters) for run in made}
    most = study.settings.most_epochs
    return beyond(budget, tried, edge, study.shapes, study.unique_tokens, most_epochs=most) if edge else []


def _runs(rows: Sequence[dict]) -> list[FinishedRun]:
    return [
        FinishedRun(
            row["budget"],
            row["parameters"],
            row["tokens"],
            row["bits_per_event"],
            row["unique_tokens"],
            row["seed"],
        )
        for row in rows
    ]


def _above_floor(rows: Sequence[dict], floor: float | None) -> dict | None:
    """How far the best run stays above the entropy of the data."""
    if floor is None:
        return None
    best = min(row["bits_per_event"] for row in rows)
    return {"bits_per_event": floor, "best_run": best, "above": best - floor, "share_above": best / floor - 1}
