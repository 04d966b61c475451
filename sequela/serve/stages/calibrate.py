"""`sequela calibrate`: what tuning patients say of a model's risks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sequela.rollout.settings import SimulateSettings
from sequela.serve.ask import AskSettings
from sequela.serve.stage import StageRun, stage
from sequela.serve.stages.predict import futures


@stage(workers=True)
def calibrate(
    model: Path,
    meds: Path,
    out: Path = Path("calibration"),
    *,
    also: tuple[Path, ...] = (),
    ask: AskSettings = AskSettings(split="tuning"),
    settings: SimulateSettings = SimulateSettings(),
    run: StageRun,
) -> dict:
    """Learn from the tuning patients how a model's risks should move, and how
    much the scores of its rollouts vary.

    Simulates the patients of the split "tuning" as sequela predict would
    simulate others, and fits maps from risks to what happened. Give the folder
    to sequela predict with --calibration: the recalibrated risks then stand
    beside the raw ones, and the intervals of single patients are narrower.
    Calibrate with the settings that you predict with.

    Example: sequela calibrate model/ meds/ calibration/ --task death_5y

    Args:
        model: A checkpoint, which is simulated into OUT-simulated first; or a folder of sequela simulate, of tuning
            patients.
        meds: The MEDS dataset with the tuning patients and what happened to them.
        out: The folder to write: calibration.json, and the predictions that it comes from.
        also: A model like the first but trained with another seed, or its simulated folder; repeat for several. Their
            mean is calibrated.

    Raises:
        InputError: for an unknown task or estimator, tasks that ask for numbers alone, or a folder of another kind.
    """
    from sequela.rollout.folder import SimulatedFolder

    tasks, folder = ask.tasks(), SimulatedFolder(model)
    if folder.exists:
        settings = replace(settings, estimator=folder.estimator() or settings.estimator)
        if not run.given & {"split", "ask"}:  # it was chosen when the folder was simulated
            ask = replace(ask, split=AskSettings.split)
    simulated = futures([model, *also], meds, out, ask, settings, run)

    def make(work: Path) -> dict:
        from sequela.task.answers.calibrate import calibrate

        return calibrate(list(simulated.values()), meds, work, tasks, settings.estimator, run.progress, run.say)

    identity = {"tasks": [task.as_dict() for task in tasks], "estimator": settings.estimator}
    return run.folder(out, "calibrate", identity, {**simulated, "meds": meds}, make)
