"""`sequela demo`: the main job in one call, real patients in, risks with intervals out."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sequela.errors import InputError
from sequela.progress import Progress
from sequela.record.cohort import nafld
from sequela.serve import presets
from sequela.serve.folder import manifest
from sequela.serve.folder.lineage import in_words
from sequela.serve.folder.place import check_way
from sequela.serve.folder.work import copy_whole, make_folder
from sequela.serve.presets import SeedSettings, preset, with_file
from sequela.serve.progress import duration
from sequela.serve.stage import Finished, StageRun, look_line, stage
from sequela.serve.stages.calibrate import calibrate
from sequela.serve.stages.evaluate import evaluate
from sequela.serve.stages.ingest import ingest
from sequela.serve.stages.predict import predict
from sequela.serve.stages.simulate import simulate
from sequela.serve.stages.tokenize import tokenize
from sequela.serve.stages.train import train

BUNDLED = ("nafld",)
OUT, QUICK_OUT = Path("demo-output"), Path("demo-output-quick")
QUICK = (
    "This is a quick look: a model trained for seconds, few patients, few futures. It shows what comes out, but its "
    "numbers mean little. Run `sequela demo` for numbers that do."
)


def _show(done: Finished) -> None:
    from sequela.serve.pages.terminal import print_summary

    print_summary(done.result)
    peak = max(part["peak_rss_mb"] for part in done.result["stages"].values())
    page = _folder(done.values["out"], done.values["quick"]) / "report.html"
    print(f"{duration(done.seconds)}, peak memory {peak:,.0f} MB. Open {page} to read on.")


@stage(line=None, show=_show, steps=True)
def demo(
    *,
    source: str = "nafld",
    raw: Path | None = None,
    out: Path | None = None,
    quick: bool = False,
    config: Path | None = None,
    random: SeedSettings = SeedSettings(),
    run: StageRun,
) -> dict:
    """Real patients in, risks with intervals out: every stage, one after the other.

    Learns from the training patients of a real cohort, simulates the futures
    of patients it has not seen, and compares the risks with what happened and
    with plain baselines. Run again, it continues where it stopped.

    Example: sequela demo --out demo-output

    Args:
        source: The data: nafld (comes with sequela) or physionet2012.
        raw: The folder of the raw files; not needed for nafld.
        out: The folder to write; report.html in it is the result for people. demo-output unless given, or
            demo-output-quick.
        quick: Finish in about a minute, with numbers that mean little.
        config: A TOML file with sections [tokenize], [train] and [simulate] that change the demo's settings.

    Returns:
        What metrics.json holds: the scores of every task and model, and what each stage took.

    Raises:
        InputError: where the raw files are missing or wrong, or `out` holds something else.
    """
    chosen = presets.quick(preset(source)) if quick else preset(source)
    if config is not None:
        chosen = with_file(chosen, config)
    every = random.each(chosen)
    chosen = every[0]
    _check_raw(source, raw)
    out = _folder(out, quick)
    _mark(out, {"source": source, **asdict(random), "quick": quick, **asdict(chosen)})
    meds, corpus = out / "meds", out / "corpus"
    calibration, predictions, evaluation = (out / name for name in ("calibration", "predictions", "evaluation"))

    def step(name: str, work: Callable[..., dict], *folders: Path, **settings: Any) -> None:
        begun = time.perf_counter()
        with run.display.stage(name) as progress:
            done = work(*folders, **settings, progress=progress)
        seconds = max(done["seconds"], time.perf_counter() - begun)  # calibrate simulates into another folder first
        took = "up to date" if done["skipped"] else duration(seconds)
        run.say(f"{name:<10} {took:>11}   {in_words(done)}")
        if look := look_line(done, folders[-1]):
            run.say(look)

    step("ingest", _ingest, meds, source=source, raw=raw)
    step("tokenize", tokenize, meds, corpus, settings=chosen.tokenize)
    models, simulated, whom = [], [], {"task": chosen.tasks, "patients": chosen.patients}
    for number, one in enumerate(every):
        mark = f"-{number + 1}" if number else ""
        models.append(out / f"model{mark}")
        simulated.append(out / f"simulated{mark}")
        step(f"train{mark}", train, corpus, models[-1], settings=one.train)
        step(f"simulate{mark}", simulate, models[-1], meds, simulated[-1], settings=one.simulate, **whom)
    step("calibrate", calibrate, models[0], meds, calibration, also=models[1:], settings=chosen.simulate, **whom)
    asked = {"task": chosen.tasks, "also": simulated[1:], "settings": chosen.simulate}
    asked |= {"calibration": calibration, "strong": not quick}
    step("predict", predict, simulated[0], meds, predictions, **asked)
    step("evaluate", evaluate, predictions, evaluation, seed=random.seed, note=QUICK if quick else "")
    for name in ("metrics.json", "report.html"):
        copy_whole(evaluation / name, out / name)
    return json.loads((out / "metrics.json").read_text(encoding="utf-8"))


def _folder(out: Path | None, quick: bool) -> Path:
    return out or (QUICK_OUT if quick else OUT)


def _check_raw(source: str, raw: Path | None) -> None:
    if raw is None and source not in BUNDLED:
        raise InputError(f"the data of {source} does not come with the package: give its folder with `raw`.")
    if raw is not None and not raw.exists():
        raise InputError(f"{raw} does not exist: check the path after `raw`.")


def _mark(folder: Path, settings: dict) -> None:
    """Mark `folder` as a demo's, unless something else is in it."""
    check_way(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        written = manifest.read(folder) if folder.is_dir() else None
        if written is None or written["stage"] != "demo":
            raise InputError(
                f"{folder} exists and is not a demo's folder: move it away or choose another with `out`."
            )
        if written["settings"].get("quick", False) != settings["quick"]:
            other = "the full demo" if settings["quick"] else "a quick demo"
            raise InputError(f"{folder} holds {other}: choose another folder with `out`.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        manifest.write(folder, manifest.describe("demo", settings, {}, folder))
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written to ({error.strerror}): choose another with `out`."
        ) from error


def _ingest(meds: Path, *, source: str, raw: Path | None, progress: Progress) -> dict:
    if raw is not None:
        return ingest(source, raw, meds, progress=progress)
    bundled = nafld()

    def copy(work: Path) -> dict:
        shutil.copytree(bundled, work, dirs_exist_ok=True)
        return {}

    return make_folder(meds, "ingest", {"source": source}, {"bundled": bundled}, copy)
