"""The stages as functions: each reads folders, writes one folder, and is one call of the floor that does the work.

A stage whose folder was already made from the same inputs with the same settings is skipped. Every function returns
the manifest of the folder it wrote, and whether it was skipped (see `sequela.serve.folder.stage`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sequela.errors import InputError
from sequela.progress import Progress, silent
from sequela.record.schema import FRACTIONS
from sequela.rollout.settings import SimulateSettings
from sequela.serve.folder import launch, manifest
from sequela.serve.folder.lineage import spent
from sequela.serve.folder.stage import copy_whole, stage
from sequela.tokens.ehr.settings import MAPS, TokenSettings
from sequela.training.scaling.settings import ScaleSettings
from sequela.training.settings import TrainSettings
from sequela.training.shutdown import stopping
from sequela.workers import Workers

if TYPE_CHECKING:
    from sequela.model.decoder import Decoder
    from sequela.record.edit import Edits
    from sequela.task.task import Task

Folder = str | Path


def ingest(
    source: Folder,
    raw: Folder,
    out: Folder,
    *,
    fractions: tuple[float, float, float] = FRACTIONS,
    memory: str = "2GB",
    workers: Workers | None = None,
    progress: Progress = silent,
) -> dict:
    """Turn raw tables, or a MEDS dataset of others, into a MEDS dataset.

    Args:
        source: the name of a mapping that comes with the package, the path of one (TOML), or "meds" for a MEDS dataset.
        raw: the folder of raw files, a DuckDB file, or the URI of a PostgreSQL server, which is read anew each time.
        out: the folder to write; `ingest.json` in it counts every row in, out and dropped, `ingest.html` shows it.
        fractions: shares of the patients for train, tuning and held_out.
        memory: how much of the tables is kept in memory; the rest lies on disk meanwhile.
        workers: where the shards are worked on; the result does not depend on it.

    Raises:
        InputError: where the raw files do not fit the mapping.
    """

    from sequela.record.ingest.mapping_file import MEDS, fingerprint
    from sequela.record.ingest.tables.database import Database, raw_place

    place = raw_place(raw)

    def make(work: Path) -> dict:
        from sequela.record.ingest.run import ingest as run
        from sequela.serve.pages.ingest import write_ingest_report

        made = run(
            source, place, work, fractions=fractions, memory=memory, workers=workers, progress=progress
        )
        write_ingest_report(work)
        return made

    settings, inputs = {"source": str(source), "fractions": fractions}, {}
    if isinstance(place, Database) and place.kind == "postgresql":
        # Nothing tells whether a server still holds the same, so no two runs are the same
        settings |= {"raw": str(place), "read_at": datetime.now(UTC).isoformat()}
    else:
        inputs["raw"] = Path(str(place))
    if source != MEDS:
        settings["mapping"] = fingerprint(source)  # its text, and that of the mappings that it extends
    if str(source).endswith(".toml"):
        inputs["mapping"] = Path(source)
    return stage(Path(out), "ingest", settings, inputs, make)


def tokenize(
    meds: Folder,
    out: Folder,
    *,
    settings: TokenSettings | None = None,
    maps: tuple[Folder, ...] = MAPS,
    workers: Workers | None = None,
    progress: Progress = silent,
) -> dict:
    """Turn a MEDS dataset into a corpus: a vocabulary fitted on the training patients, and token rows per split.

    A run that was cut short goes on where it stopped.

    Args:
        maps: what codes are translated by, one map after the other: "mimic-meds" (as MEDS-Extract spells MIMIC's),
            "gem" (ICD-9-CM diagnoses to ICD-10-CM), or CSV or Parquet files with columns from and to.
        workers: where the shards are worked on; the result does not depend on it.

    Raises:
        InputError: where the dataset is not valid MEDS.
    """
    settings = settings or TokenSettings()

    def make(work: Path) -> dict:
        from sequela.tokens.ehr.tokenize import tokenize as run

        return run(Path(meds), work, settings, tuple(maps), workers, progress=progress)

    files = {f"map-{Path(one).stem}": Path(one) for one in maps if Path(one).is_file()}
    asked = {**asdict(settings), "maps": [Path(one).stem for one in maps]}
    return stage(Path(out), "tokenize", asked, {"meds": Path(meds), **files}, make, resumable=True)


def train(
    corpus: Folder,
    out: Folder,
    *,
    settings: TrainSettings | None = None,
    resume: bool = True,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda line: None,
) -> dict:
    """Pretrain a decoder on a corpus and write a checkpoint folder that `transformers` can load too.

    A run that was cut short goes on from its last checkpoint. Under torchrun every process calls this.

    Args:
        out: the folder to write. Metrics, where settings ask for them, go into OUT-log; the batch on which the loss ran
            away into OUT-stopped.
        resume: False: begin anew.
        say: gets the settings as they were filled in, a line each.

    Raises:
        InputError: where the folder is no corpus, or the loss runs away.
        Interrupted: after SIGTERM, when the run is saved.
    """
    settings = settings or TrainSettings()
    with launch.world() as world, stopping() as stop:

        def make(work: Path) -> dict:
            from sequela.training.loop import train as run

            heard = {"progress": progress, "say": say, "world": world, "stop": stop}
            return _scalars(run(Path(corpus), work, settings, resume=resume, beside=Path(out), **heard))

        def lead(make: launch.Make) -> dict:
            inputs = {"corpus": Path(corpus)}
            return stage(
                Path(out), "train", settings.of_result, inputs, make, resumable=True, fresh=not resume
            )

        return launch.together(world, lead, make)


def scale(
    corpus: Folder,
    out: Folder,
    *,
    flops: Iterable[float],
    settings: ScaleSettings | None = None,
    base: TrainSettings | None = None,
    meds: Folder | None = None,
    task: str | Iterable[str] = (),
    patients: int | None = None,
    simulation: SimulateSettings | None = None,
    progress: Progress = silent,
) -> dict:
    """Study how the loss falls with compute, and tell what to train with more of it.

    Trains models of several sizes at each budget, skipping runs that are there already. Several processes, on several
    machines too, may be started on the same folder and share the runs.

    Args:
        out: the folder: `runs.parquet`, `fit.json`, plots and `scale.html`; the models in `runs`.
        flops: budgets, the training FLOPs of each group of runs.
        settings: how many sizes, and what is asked.
        base: what all runs have in common, such as the context; sizes and tokens follow from the study.
        meds: the dataset with the patients whom `task` asks about.
        task: names of tasks, or paths of task files, which the best model of each budget answers.
        patients: ask about at most so many.
        simulation: how they are simulated.

    Returns:
        What `fit.json` holds.

    Raises:
        InputError: where the folder holds another study, or budgets and corpus make no study.
    """
    from sequela.serve.stages.scaling import study

    if launch.launched():
        raise InputError(
            "a study is not started by torchrun: start `sequela scale` as often as there are machines, on one folder."
        )

    def make(chosen: TrainSettings, folder: Path) -> dict:
        return train(corpus, folder, settings=chosen)

    names = [task] if isinstance(task, str) else list(task)
    asked = None
    if names and meds is not None:
        from sequela.serve.stages.scaling.downstream import downstream

        asked = partial(
            downstream, Path(out), meds=Path(meds), tasks=names, settings=simulation or SimulateSettings(),
            patients=patients, progress=progress,
        )  # fmt: skip
    elif names or meds is not None:
        raise InputError("a study asks tasks about patients: give both --task and --meds, or neither.")
    one = study.Study.of(
        Path(corpus), Path(out), tuple(flops), settings or ScaleSettings(), base or TrainSettings(), make
    )
    return study.scale(one, progress, asked)


def simulate(
    model: Folder,
    meds: Folder,
    out: Folder,
    *,
    task: str | Iterable[str],
    split: str = "held_out",
    patients: int | None = None,
    settings: SimulateSettings | None = None,
    edits: Edits | None = None,
    workers: Workers | None = None,
    progress: Progress = silent,
) -> dict:
    """Imagine futures of the patients whom the tasks ask about, from what was known before the prediction time.

    A simulation that was cut short goes on where it stopped. Under torchrun every process calls this and takes a share.

    Args:
        model: a checkpoint folder of `train`.
        meds: the MEDS dataset with the patients' histories.
        out: the folder to write: imagined events in the MEDS schema plus `prediction_time` and `rollout`.
        task: names of tasks or paths of task files; one pool of rollouts serves all of them.
        split: which patients: train, tuning or held_out.
        patients: simulate at most so many, the first by number; None for all.
        edits: made to every history first (see `whatif`); None: none.
        workers: how many processes of this machine simulate, or a Ray cluster; None: one for each thread, if there is
            enough to do. The result does not depend on it.

    Raises:
        InputError: for an unknown task, a foreign checkpoint, or a split without patients.
    """
    settings = settings or SimulateSettings()
    asked = _load_tasks(task)
    with launch.world() as world:

        def make(work: Path) -> dict:
            from sequela.record.edit import NO_EDITS
            from sequela.rollout.parts import simulate as run
            from sequela.task.cohort import requests
            from sequela.tokens.ehr.tokenizer import EhrTokenizer

            maps = EhrTokenizer.load(Path(model)).maps
            return run(
                Path(model),
                Path(meds),
                work,
                requests(asked, Path(meds), split, patients, maps),
                settings,
                edits=edits or NO_EDITS,
                workers=workers,
                crew=world,
                progress=progress,
            )

        def lead(make: launch.Make) -> dict:
            chosen = {**asdict(settings), "tasks": [one.as_dict() for one in asked]}
            if edits:
                chosen["edits"] = asdict(edits)
            return stage(
                Path(out),
                "simulate",
                {**chosen, "split": split, "patients": patients},
                {"model": Path(model), "meds": Path(meds)},
                make,
                resumable=True,
            )

        return launch.together(world, lead, make)


def predict(
    model: Folder,
    meds: Folder,
    out: Folder = "predictions",
    *,
    task: str | Iterable[str],
    rollouts: int | None = None,
    estimator: str | None = None,
    baselines: bool = True,
    split: str = "held_out",
    patients: int | None = None,
    seed: int = 0,
    settings: SimulateSettings | None = None,
    progress: Progress = silent,
) -> dict:
    """Turn imagined futures into a risk per patient and task, with its Monte Carlo standard error.

    Args:
        model: a checkpoint, from which futures are simulated first (they are kept beside `out`, in a folder of the same
            name plus "-simulated"); or the folder of a simulation that was already run.
        meds: the MEDS dataset, which holds the true answers.
        out: the folder to write: one file a task and model in the meds-evaluation schema.
        task: names of tasks or paths of task files.
        rollouts: how many futures a patient; None takes the one of `settings`, or all that were simulated.
        estimator: "scope", "mc", "reach" or "auto" (docs/explain/estimators.md); None takes the one of `settings`;
            without settings either, the one that a folder was simulated for. Where that folder holds no such futures,
            those that it holds.
        baselines: also fit and apply the plain models that simulation is measured against.
        seed: seed of the baselines; that of the simulation is in `settings`.

    Raises:
        InputError: for an unknown task or estimator, or a folder of another kind.
    """
    from sequela.rollout.folder import SimulatedFolder
    from sequela.rollout.settings import ESTIMATORS

    simulated, first = Path(model), rollouts
    ready = SimulatedFolder(simulated).exists
    if estimator is None and settings is None and ready:
        estimator = SimulatedFolder(simulated).estimator()
    settings = settings or SimulateSettings()
    estimator = estimator or settings.estimator
    if estimator not in ESTIMATORS:
        raise InputError(f"there is no estimator '{estimator}': choose one of {', '.join(ESTIMATORS)}.")
    asked = _load_tasks(task)
    if not ready:
        first = None
        simulated = Path(out).with_name(Path(out).name + "-simulated")
        settings = replace(settings, rollouts=rollouts or settings.rollouts, estimator=estimator)
        simulate(
            model,
            meds,
            simulated,
            task=task,
            split=split,
            patients=patients,
            settings=settings,
            progress=progress,
        )

    def make(work: Path) -> dict:
        from sequela.task.answers.predict import predict as run

        return run(
            simulated,
            Path(meds),
            work,
            asked,
            estimator=estimator,
            first=first,
            baselines=baselines,
            seed=seed,
            progress=progress,
        )

    return stage(
        Path(out),
        "predict",
        {
            "tasks": [one.as_dict() for one in asked],
            "estimator": estimator,
            "rollouts": first,
            "baselines": baselines,
            "seed": seed,
        },
        {"simulated": simulated, "meds": Path(meds)},
        make,
    )


def whatif(
    model: Folder,
    meds: Folder,
    out: Folder,
    *,
    task: str | Iterable[str],
    add: Iterable[str] = (),
    remove: Iterable[str] = (),
    set: Iterable[str] = (),
    split: str = "held_out",
    patients: int | None = None,
    everyone: bool = False,
    settings: SimulateSettings | None = None,
    workers: Workers | None = None,
    progress: Progress = silent,
) -> dict:
    """Simulate patients as recorded and with an edited history, with the same random numbers, and compare the answers.

    What comes out is what the model associates with such a record. It is not the effect of doing it.

    Args:
        model: a checkpoint folder of `train`.
        meds: the MEDS dataset with the histories, in which nothing is changed.
        out: the folder to write: `contrast.parquet` (one row a task and patient), `whatif.json` (means with intervals,
            whom the edits changed, and what this does not mean), and what they were made from: `as-recorded`,
            `what-if` (as of `simulate`) and `contrast`, each of which is skipped where it is up to date.
        task: names of tasks or paths of task files.
        add: "CODE @ 1 hour" or "CODE = 1.2 @ 30 minutes": an event so long before the prediction time.
        remove: "CODE" or "PREFIX*", and "@ 30 days" for the last so long only.
        set: "CODE = 1.2": another number for the latest such value. Removals come first, then these, then additions;
            codes are those that the model speaks.
        split: which patients: train, tuning or held_out.
        patients: ask about at most so many, the first by number; None for all.
        everyone: let means be over all, not over those alone whose history the model reads otherwise.
        settings: of both simulations; `seed` is that of the bootstrap too.
        workers: how many processes of this machine simulate, or a Ray cluster; None: one for each thread, if there is
            enough to do.

    Raises:
        InputError: for no edit, one that cannot be made, or what `simulate` refuses.
    """
    from sequela.record.edit import Edits

    if launch.launched():
        raise InputError(
            "sequela whatif is not started by torchrun: share it by --processes or --executor ray."
        )
    settings, folder = settings or SimulateSettings(), Path(out)
    edits = Edits.parse(*([one] if isinstance(one, str) else one for one in (add, remove, set)))
    if not edits:
        raise InputError("nothing is edited: say what with --add, --remove or --set.")
    asked = _load_tasks(task)
    _refuse_stage(folder)
    arms = {"what_if": (folder / "what-if", edits), "as_recorded": (folder / "as-recorded", None)}
    done = []
    for arm, changes in arms.values():  # the edited one first: it may be refused
        made = simulate(
            model, meds, arm, task=task, split=split, patients=patients, settings=settings, edits=changes,
            workers=workers, progress=progress,
        )  # fmt: skip
        done.append(made)
    inputs = {role: arm for role, (arm, _) in arms.items()}

    def make(work: Path) -> dict:
        from sequela.serve.pages.whatif import write_contrasts
        from sequela.task.cohort import requests
        from sequela.tokens.ehr.tokenizer import EhrTokenizer

        maps = EhrTokenizer.load(Path(model)).maps
        times = [one.times for one in requests(asked, Path(meds), split, patients, maps)]
        return write_contrasts(
            work, asked, times, **inputs, estimator=settings.estimator, everyone=everyone, seed=settings.seed
        )

    chosen = {
        "tasks": [one.as_dict() for one in asked],
        "split": split,
        "patients": patients,
        "everyone": everyone,
        "estimator": settings.estimator,
        "seed": settings.seed,
    }
    done.append(stage(folder / "contrast", "whatif", chosen, {**inputs, "meds": Path(meds)}, make))
    for name in ("contrast.parquet", "whatif.json"):
        copy_whole(folder / "contrast" / name, folder / name)
    spent_now = sum(one["seconds"] for one in done if not one["skipped"])
    return {**done[-1], "seconds": spent_now, "skipped": all(one["skipped"] for one in done)}


def evaluate(
    predictions: Folder | Iterable[Folder],
    out: Folder,
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> dict:
    """Score predictions: `metrics.json` with 95 % intervals, and `report.html`.

    Args:
        predictions: a folder of `predict`, or any folder of the same layout; several are scored side by side.
        seed: seed of the bootstrap.

    Raises:
        InputError: where a file is not in the meds-evaluation schema.
    """
    folders = (
        [Path(predictions)] if isinstance(predictions, str | Path) else [Path(one) for one in predictions]
    )
    roles = ["predictions", *(f"predictions_{number}" for number in range(2, len(folders) + 1))]

    def make(work: Path) -> dict:
        from sequela.serve.pages.provenance import simulation
        from sequela.serve.pages.report import write_report
        from sequela.task.scoring.evaluate import evaluate as run

        metrics = run(folders, work, seed=seed) | {
            "simulation": simulation(folders),
            "stages": spent(folders),
        }
        (work / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
        write_report(metrics, folders, work / "report.html", progress=progress)
        return {"tasks": sorted(metrics["tasks"])}

    return stage(Path(out), "evaluate", {"seed": seed}, dict(zip(roles, folders, strict=True)), make)


def report(
    evaluation: Folder,
    out: Folder,
    *,
    progress: Progress = silent,
) -> dict:
    """Write the page that people read, `report.html`, from the folder of `evaluate`.

    The folder of a demo will do too. Predictions, imagined timelines and what the stages took are found through the
    manifests; what was deleted or moved away since is left out of the page.

    Raises:
        InputError: where the folder holds no `metrics.json`.
    """
    folder = Path(evaluation)
    if (folder / "evaluation" / "metrics.json").exists():
        folder /= "evaluation"

    def make(work: Path) -> dict:
        from sequela.serve.pages.report import read_metrics, write_report

        roles = (manifest.read(folder) or {"inputs": {}})["inputs"]
        found = [path for role in roles if (path := manifest.source(folder, role)) is not None]
        write_report(read_metrics(folder), found, work / "report.html", progress=progress)
        return {}

    return stage(Path(out), "report", {}, {"evaluation": folder}, make)


def load(model: Folder) -> Decoder:
    """The decoder in a checkpoint folder: one of ours, or a Qwen2, Qwen3 or Llama folder of `transformers`.

    `load("model/").logits(ids)` scores the next token: int64 [B, T] -> float32 [B, T, V].

    Raises:
        InputError: where a file of the checkpoint is missing, cut short or of another architecture.
    """
    from sequela.model.checkpoint import load as run

    return run(Path(model))


def tasks() -> list[Task]:
    """The tasks that come with the package, by name."""
    from sequela.task.catalog import catalog

    return catalog()


def _refuse_stage(folder: Path) -> None:
    """Refuse a folder that a stage wrote: what is put into it would change it."""
    facts = manifest.read(folder) if folder.is_dir() else None
    if facts is not None:
        raise InputError(
            f"{folder} holds the result of `sequela {facts['stage']}`: choose another folder for the what-if."
        )


def _load_tasks(names: str | Iterable[str]) -> list[Task]:
    from sequela.task.catalog import load_task

    return [load_task(name) for name in ([names] if isinstance(names, str) else names)]


def _scalars(facts: dict) -> dict:
    """The facts without curves, which stay in the stage's own file."""
    return {name: value for name, value in facts.items() if not isinstance(value, list)}
