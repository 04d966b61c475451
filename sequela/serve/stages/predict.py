"""`sequela predict`: simulated futures to one answer per patient."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sequela.errors import InputError
from sequela.rollout.settings import HEAD, SimulateSettings
from sequela.serve.ask import AnswerSettings, AskSettings
from sequela.serve.folder import manifest
from sequela.serve.stage import StageRun, stage
from sequela.serve.stages.simulate import simulate

if TYPE_CHECKING:
    from sequela.task.task import Task


@stage(workers=True)
def predict(
    model: Path,
    meds: Path,
    out: Path = Path("predictions"),
    *,
    ask: AskSettings = AskSettings(),
    answer: AnswerSettings = AnswerSettings(),
    settings: SimulateSettings = SimulateSettings(),
    run: StageRun,
) -> dict:
    """Turn simulated futures into one answer per patient, next to those of plain
    baselines.

    A checkpoint is simulated first. A folder that sequela simulate wrote is
    read as it is: --rollouts N uses only the first N futures of each patient,
    --estimator replaces the estimator it was simulated for, and the other
    simulation settings have no effect. --seed also seeds the baselines.

    With --estimator head nothing is simulated: a checkpoint that was trained
    with the objective time_to_event reads risks straight off each history.
    Beside a simulation, such a model answers so too, as the model
    sequela_head, and sequela evaluate says where both agree.

    Models trained on one corpus with several seeds are averaged: give the
    others with --also. The answers of each stand beside their mean, as the
    models sequela_1, sequela_2, and so on.

    Example: sequela predict model/ meds/ predictions/ --task death_5y

    Args:
        model: A checkpoint, which is simulated into OUT-simulated first; or a folder of sequela simulate.
        meds: The MEDS dataset with the true answers.
        out: The folder to write: one file per task and model, in the meds-evaluation schema.

    Raises:
        InputError: for an unknown task or estimator, a folder of another kind, or a calibration of another model.
    """
    from sequela.rollout.folder import SimulatedFolder
    from sequela.task.answers.calibration import Calibration, Simulated

    first, tasks = None, ask.tasks()
    if settings.estimator == HEAD:
        return _by_head([model, *answer.also], meds, out, ask, answer, settings.seed, run)
    calibration = None if answer.calibration is None else Calibration.load(answer.calibration)
    folder = SimulatedFolder(model)
    if folder.exists:
        first = settings.rollouts if "rollouts" in run.given else None
        if not run.given & {"estimator", "settings"}:
            settings = replace(settings, estimator=folder.estimator() or settings.estimator)
    models = [model, *answer.also]
    _refuse_one_model_twice(models)
    if calibration is not None and not any(SimulatedFolder(one).exists for one in models):
        calibration.check(Simulated.planned(models, settings), tasks)
        settings = calibration.known_to(settings)
    simulated = futures(models, meds, out, ask, settings, run)

    def make(work: Path) -> dict:
        from sequela.task.answers.predict import PredictSettings, predict
        from sequela.task.unmatched import unmatched

        if simulated["simulated"] is model:  # else the simulation has said it
            for line in unmatched(tasks, meds, folder.maps()):
                run.say(line)
        chosen = PredictSettings(
            settings.estimator, first, answer.baselines, settings.seed, calibration=calibration,
            strong=answer.strong, model=manifest.source(simulated["simulated"], "model"),
        )  # fmt: skip
        return predict(list(simulated.values()), meds, work, tasks, chosen, run.progress, run.say)

    identity = {
        "tasks": [task.as_dict() for task in tasks],
        "estimator": settings.estimator,
        "rollouts": first,
        "baselines": answer.baselines,
        "strong": answer.baselines and answer.strong,
        "seed": settings.seed,
    }
    inputs = {**simulated, "meds": meds}
    if answer.calibration is not None:
        inputs["calibration"] = answer.calibration
    return run.folder(out, "predict", identity, inputs, make)


def _by_head(
    models: list[Path], meds: Path, out: Path, ask: AskSettings, answer: AnswerSettings, seed: int, run: StageRun
) -> dict:
    """Predictions of value heads, without a simulation."""
    from sequela.rollout.folder import SimulatedFolder

    for model in models:
        if SimulatedFolder(model).exists:
            raise InputError(f"{model} holds futures, which the estimator head does not read: give the checkpoint.")
    if answer.calibration is not None:
        raise InputError(
            f"{answer.calibration} is a calibration of simulated risks, and the estimator head simulates none: leave "
            "out `calibration`, or choose the estimator it was made for."
        )
    _refuse_one_model_twice(models)

    def make(work: Path) -> dict:
        from sequela.task.answers.predict import PredictSettings, predict_by_head

        asked = ask.requests(models[0], meds, run.say)
        chosen = PredictSettings(
            HEAD, baselines=answer.baselines, seed=seed, strong=answer.strong, model=models[0]
        )
        return predict_by_head(models, meds, work, ask.tasks(), asked, chosen, run.progress, run.say)

    identity = {
        **ask.identity(),
        "estimator": HEAD,
        "baselines": answer.baselines,
        "strong": answer.baselines and answer.strong,
        "seed": seed,
    }
    roles = manifest.roles("model", len(models))
    return run.folder(
        out, "predict", identity, {**dict(zip(roles, models, strict=True)), "meds": meds, **ask.inputs()}, make
    )


def futures(
    models: list[Path], meds: Path, out: Path, ask: AskSettings, settings: SimulateSettings, run: StageRun
) -> dict[str, Path]:
    """The simulated folder of each model, by its role in a manifest: itself, or a checkpoint simulated beside `out`."""
    roles = manifest.roles("simulated", len(models))
    return {
        role: _futures(one, meds, out.with_name(f"{out.name}-{role.replace('_', '-')}"), number, ask, settings, run)
        for number, (one, role) in enumerate(zip(models, roles, strict=True))
    }


def _futures(
    model: Path, meds: Path, out: Path, number: int, ask: AskSettings, settings: SimulateSettings, run: StageRun
) -> Path:
    """The simulated folder `model`, or that of a checkpoint, simulated into `out`: the one of that `number`.

    Each of several is simulated with random numbers of its own, so that their errors of sampling are independent.
    """
    from sequela.rollout.folder import SimulatedFolder

    if SimulatedFolder(model).exists:
        _refuse_other_patients(model, ask, run.given)
        _refuse_other_tasks(model, ask.tasks())
        return model
    own = replace(settings, seed=settings.seed + number)
    simulate(model, meds, out, ask=ask, settings=own, workers=run.workers, progress=run.progress, say=run.say)
    return out


def _refuse_one_model_twice(models: list[Path]) -> None:
    """One model is no other seed, whose training moves its answers."""
    known: dict[str, Path] = {}
    for model in models if len(models) > 1 else []:
        made = manifest.read(model) if model.is_dir() else None
        mark = (made or {"inputs": {}})["inputs"].get("model", {}).get("sha256") or manifest.fingerprint(model)
        if mark in known:
            raise InputError(
                f"{known[mark]} and {model} are one model, not two of different seeds: leave out one of them."
            )
        known[mark] = model


def _refuse_other_patients(folder: Path, ask: AskSettings, given: frozenset[str]) -> None:
    """Who was simulated, and when, is decided: refuse settings that would choose others."""
    for name in ("labels", "split", "patients"):
        value = getattr(ask, name)
        if value is not None and (name in given or value != getattr(AskSettings(), name)):
            raise InputError(
                f"{folder} was simulated for certain patients and times already: leave out `{name}`, or give the "
                "checkpoint."
            )


def _refuse_other_tasks(folder: Path, tasks: list[Task]) -> None:
    """What was recorded for a task stands in the folder under its name: refuse another task of the same name."""
    from sequela.task.task import Task

    made = manifest.read(folder) or {"settings": {}}
    simulated = {fields["name"]: Task.of(fields) for fields in made["settings"].get("tasks", [])}
    for task in tasks:
        other = simulated.get(task.name, task)
        if (other.asks, other.cohort, other.event) != (task.asks, task.cohort, task.event):
            raise InputError(
                f"{folder} was simulated for another task of the name '{task.name}': give this one another name, or "
                "simulate it again."
            )
