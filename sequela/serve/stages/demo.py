"""The main job in one call: real patients in, risks with intervals out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from sequela.errors import InputError
from sequela.progress import Progress
from sequela.record.cohort import nafld
from sequela.serve import commands
from sequela.serve.folder import manifest
from sequela.serve.folder.lineage import in_words
from sequela.serve.folder.stage import copy_whole, stage
from sequela.serve.progress import Display, duration
from sequela.serve.stages.presets import Preset, preset, read_toml, with_file

BUNDLED = ("nafld",)


def demo(
    source: str = "nafld",
    raw: str | Path | None = None,
    out: str | Path = "demo-output",
    *,
    seed: int = 0,
    config: str | Path | None = None,
    quiet: bool = True,
) -> dict:
    """Run every stage on real patients and write metrics.json, report.html and all that lies between.

    Args:
        source: "nafld", which comes with the package, or "physionet2012".
        raw: the folder of the raw files; not needed for bundled data.
        out: the folder to write. Stages that are up to date there are skipped.
        seed: seed of training, simulation and bootstrap.
        config: a TOML file with sections [tokenize], [train] and [simulate] that change the demo's settings.
        quiet: show no progress.

    Returns:
        What metrics.json holds: the scores of every task and model, and what each stage took.

    Raises:
        InputError: where the raw files are missing or wrong, or `out` holds something else.
    """
    chosen = preset(source)
    if config is not None:
        chosen = with_file(chosen, Path(config), read_toml(Path(config)))
    chosen = replace(
        chosen, train=replace(chosen.train, seed=seed), simulate=replace(chosen.simulate, seed=seed)
    )
    _check_raw(source, raw)
    folder = Path(out)
    _claim(folder, {"source": source, "seed": seed, **asdict(chosen)})
    display = Display(quiet)
    meds, corpus, model = folder / "meds", folder / "corpus", folder / "model"
    simulated, predictions, evaluation = folder / "simulated", folder / "predictions", folder / "evaluation"

    def run(name: str, work: Callable[[Progress], dict]) -> None:
        with display.stage(name) as progress:
            done = work(progress)
        took = "up to date" if done["skipped"] else duration(done["seconds"])
        display.say(f"{name:<9} {took:>12}   {in_words(done)}")

    run("ingest", lambda progress: _ingest(source, raw, meds, progress))
    run(
        "tokenize",
        lambda progress: commands.tokenize(meds, corpus, settings=chosen.tokenize, progress=progress),
    )
    run("train", lambda progress: commands.train(corpus, model, settings=chosen.train, progress=progress))
    run("simulate", lambda progress: _simulate(model, meds, simulated, chosen, progress))
    run("predict", lambda progress: _predict(simulated, meds, predictions, chosen, progress))
    run("evaluate", lambda progress: commands.evaluate(predictions, evaluation, seed=seed, progress=progress))
    for name in ("metrics.json", "report.html"):
        copy_whole(evaluation / name, folder / name)
    return json.loads((folder / "metrics.json").read_text())


def _check_raw(source: str, raw: str | Path | None) -> None:
    if raw is None and source not in BUNDLED:
        raise InputError(
            f"the data of {source} does not come with the package: give its folder with --raw FOLDER."
        )
    if raw is not None and not Path(raw).exists():
        raise InputError(f"{raw} does not exist: check the path after --raw.")


def _claim(folder: Path, settings: dict) -> None:
    """Mark `folder` as a demo's, unless something else is in it."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        facts = manifest.read(folder) if folder.is_dir() else None
        if facts is None or facts["stage"] != "demo":
            raise InputError(
                f"{folder} exists and is no demo's folder: move it away or choose another with --out."
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        manifest.write(folder, manifest.describe("demo", settings, {}, folder))
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written to ({error.strerror}): choose another with --out."
        ) from error


def _ingest(source: str, raw: str | Path | None, meds: Path, progress: Progress) -> dict:
    if raw is not None:
        return commands.ingest(source, raw, meds, progress=progress)
    bundled = nafld()

    def copy(work: Path) -> dict:
        shutil.copytree(bundled, work, dirs_exist_ok=True)
        return {}

    return stage(meds, "ingest", {"source": source}, {"bundled": bundled}, copy)


def _simulate(model: Path, meds: Path, out: Path, chosen: Preset, progress: Progress) -> dict:
    return commands.simulate(
        model,
        meds,
        out,
        task=chosen.tasks,
        patients=chosen.patients,
        settings=chosen.simulate,
        progress=progress,
    )


def _predict(simulated: Path, meds: Path, out: Path, chosen: Preset, progress: Progress) -> dict:
    return commands.predict(
        simulated,
        meds,
        out,
        task=chosen.tasks,
        settings=chosen.simulate,
        seed=chosen.train.seed,
        progress=progress,
    )
