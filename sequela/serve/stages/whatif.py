"""`sequela whatif`: how far the model's answers move when histories are edited."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sequela.errors import InputError
from sequela.rollout.settings import SimulateSettings
from sequela.serve.ask import AskSettings
from sequela.serve.folder import launch, manifest
from sequela.serve.folder.work import copy_whole
from sequela.serve.stage import Finished, StageRun, stage
from sequela.serve.stages.simulate import simulate_edited

if TYPE_CHECKING:
    import polars as pl

    from sequela.task.task import Task

CONTRAST, SUMMARY = "contrast.parquet", "whatif.json"


@dataclass(frozen=True)
class EditSettings:
    """Which edits are made, and whose answers are compared. Codes are those that the model speaks."""

    add: tuple[str, ...] = ()
    """An event some time before the prediction time: "CODE @ 1 hour" or "CODE = 1.2 @ 30 minutes"; repeatable."""
    remove: tuple[str, ...] = ()
    """Events to leave out: "CODE" or "PREFIX*", with "@ 30 days" only those of the last 30 days; repeatable."""
    set: tuple[str, ...] = ()
    """Another number for the latest value of a code: "CODE = 1.2"; repeatable."""
    everyone: bool = False
    """Average over all patients, not only over those whose history the model reads differently."""


def _show(done: Finished) -> None:
    from sequela.serve.pages.whatif import print_whatif

    print_whatif(read_whatif(done.values["out"]))


@stage(show=_show, workers=True)
def whatif(
    model: Path,
    meds: Path,
    out: Path,
    *,
    edit: EditSettings = EditSettings(),
    ask: AskSettings = AskSettings(),
    settings: SimulateSettings = SimulateSettings(),
    run: StageRun,
) -> dict:
    """Edit histories, and see how far the model's answers move.

    Simulates patients as recorded and with an edited history, with the same
    random numbers, and compares. The difference is what the model associates
    with such a record; it is not the effect of doing it. Removals come first,
    then new values, then additions. Run again, it continues where it stopped.

    Example: sequela whatif model/ meds/ whatif/ --task death_5y --set
    "LAB//HDL = 20" --remove "DIAGNOSIS//DIABETES"

    Args:
        model: A checkpoint, such as sequela train writes.
        meds: A MEDS dataset with the histories; nothing in it is changed.
        out: The folder to write: contrast.parquet (one row per task and patient), whatif.json, and both simulations.

    Raises:
        InputError: for no edit, one that cannot be made, or what `simulate` refuses.
    """
    from sequela.record.edit import Edits
    from sequela.rollout.folder import SimulatedFolder
    from sequela.task.answers.contrast import contrast

    if launch.launched():
        raise InputError(
            "sequela whatif is not started by torchrun: share it by `processes` or `executor` ray."
        )
    edits = Edits.parse(edit.add, edit.remove, edit.set)
    if not edits:
        raise InputError("nothing is edited: say what with `add`, `remove` or `set`.")
    tasks = ask.tasks()
    _refuse_stage(out)
    inputs = {"what_if": out / "what-if", "as_recorded": out / "as-recorded"}
    changes = {"what_if": edits, "as_recorded": None}  # the edited one first: it may be refused
    done = [
        simulate_edited(model, meds, arm, ask, settings, run, changes[role]) for role, arm in inputs.items()
    ]

    def make(work: Path) -> dict:
        questions = {request.name: request.times for request in ask.requests(model, meds)}
        frames = {
            task.name: contrast(task, questions[task.name], **inputs, estimator=settings.estimator)
            for task in tasks
        }
        return _write(work, tasks, frames, SimulatedFolder(inputs["what_if"]).edits(), edit, settings.seed)

    identity = {
        **ask.identity(),
        "everyone": edit.everyone,
        "estimator": settings.estimator,
        "seed": settings.seed,
    }
    done.append(run.folder(out / "contrast", "whatif", identity, {**inputs, "meds": meds, **ask.inputs()}, make))
    for name in (CONTRAST, SUMMARY):
        copy_whole(out / "contrast" / name, out / name)
    seconds = sum(part["seconds"] for part in done if not part["skipped"])
    return {**done[-1], "seconds": seconds, "skipped": all(part["skipped"] for part in done)}


def read_whatif(folder: Path) -> dict:
    """What `whatif.json` in `folder` holds.

    Raises:
        InputError: if it is not there.
    """
    path = folder / SUMMARY
    if not path.exists():
        raise InputError(f"{path} is not there: make the folder with `sequela whatif`.")
    return json.loads(path.read_text(encoding="utf-8"))


def _write(
    folder: Path,
    tasks: list[Task],
    contrasts: dict[str, pl.DataFrame],
    edits: dict[str, int],
    edit: EditSettings,
    seed: int,
) -> dict:
    """Write the contrasts of the tasks, and their means; returns the `patients` and those `changed`, over all tasks."""
    import polars as pl

    from sequela.task.answers.contrast import MEANING, summary

    pl.concat(
        [frame.select(pl.lit(name).alias("task"), pl.all()) for name, frame in contrasts.items()]
    ).write_parquet(folder / CONTRAST)
    summaries: dict[str, dict[str, Any]] = {
        task.name: summary(contrasts[task.name], task.kind, everyone=edit.everyone, seed=seed) for task in tasks
    }
    result = {"meaning": MEANING, "edits": edits, "everyone": edit.everyone, "tasks": summaries}
    (folder / SUMMARY).write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return {name: sum(means[name] for means in summaries.values()) for name in ("patients", "changed")}


def _refuse_stage(folder: Path) -> None:
    """Refuse a folder that a stage wrote: what is put into it would change it."""
    written = manifest.read(folder) if folder.is_dir() else None
    if written is not None:
        raise InputError(
            f"{folder} holds the result of `sequela {written['stage']}`: choose another folder for the what-if."
        )
