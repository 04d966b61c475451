"""`sequela simulate`: a model and histories to simulated futures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from sequela.rollout.settings import RULES, SimulateSettings
from sequela.serve.ask import AskSettings
from sequela.serve.stage import StageRun, stage

if TYPE_CHECKING:
    from sequela.record.edit import Edits


@stage(workers=True, distributed=True)
def simulate(
    model: Path,
    meds: Path,
    out: Path,
    *,
    ask: AskSettings = AskSettings(),
    settings: SimulateSettings = SimulateSettings(),
    run: StageRun,
) -> dict:
    """Simulate futures of the patients that a task or a label file asks about.

    The model sees what was known strictly before the prediction time and
    nothing else. Run again, it continues where it stopped; several machines
    share it by torchrun or --executor ray.

    Example: sequela simulate model/ meds/ simulated/ --task death_5y --task
    new_diabetes_5y

    Args:
        model: A checkpoint, such as sequela train writes.
        meds: A MEDS dataset with the histories.
        out: The folder to write: simulated events, MEDS columns plus prediction_time and rollout.

    Raises:
        InputError: for an unknown task, a checkpoint that is not ours, or a split without patients.
    """
    return simulate_edited(model, meds, out, ask, settings, run, None)


def simulate_edited(
    model: Path,
    meds: Path,
    out: Path,
    ask: AskSettings,
    settings: SimulateSettings,
    run: StageRun,
    edits: Edits | None,
) -> dict:
    """`simulate` of histories that are edited first (see `whatif`); `edits` None edits nothing."""
    identity = {**asdict(settings), **ask.identity(), "rules": RULES}
    if edits:
        identity["edits"] = asdict(edits)

    def make(work: Path) -> dict:
        from sequela.record.edit import NO_EDITS
        from sequela.rollout.parts import Execution, simulate

        return simulate(
            model,
            meds,
            work,
            # said once: the same questions are asked of the histories as recorded
            ask.requests(model, meds, run.say if edits is None else None),
            settings,
            edits or NO_EDITS,
            Execution(run.workers, run.group, run.progress),
        )

    return run.folder(
        out,
        "simulate",
        identity,
        {"model": model, "meds": meds, **ask.inputs()},
        make,
        resumable=True,
    )
