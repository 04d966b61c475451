"""The command line: flags from the settings of the stages, errors in one sentence, exit codes 0, 2 and 1."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import current_thread, main_thread
from typing import Annotated

from cyclopts import App, ArgumentCollection, CycloptsError, Parameter
from cyclopts.config import Dict

import sequela
from sequela.errors import InputError
from sequela.progress import Progress
from sequela.record.schema import FRACTIONS
from sequela.rollout.settings import SimulateSettings
from sequela.serve import commands
from sequela.serve.folder.launch import follows
from sequela.serve.folder.lineage import in_words
from sequela.serve.progress import Display, duration
from sequela.serve.stages.presets import read_toml
from sequela.tokens.ehr.settings import MAPS, TokenSettings
from sequela.training.scaling.settings import ScaleSettings
from sequela.training.settings import TrainSettings
from sequela.training.shutdown import Interrupted
from sequela.workers import Workers

DONE, OUR_BUG, USER_CAN_MEND, INTERRUPTED = 0, 1, 2, 130
FLAT = Parameter(name="*")


@dataclass(frozen=True)
class Common:
    """What every command takes."""

    config: Path | None = None
    """A TOML file with settings in a section named after the command, such as [train]; flags win over it."""
    quiet: bool = False
    """Show no progress."""


@dataclass(frozen=True)
class CommonWithSeed(Common):
    """What every command takes whose settings hold no seed."""

    seed: int = 0
    """Seed of everything random."""


def _settings_from_file(app: App, names: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Fill in from the file after --config what the flags left open; `demo` reads its file itself."""
    given = [
        token.value for argument in arguments if argument.name == "--config" for token in argument.tokens
    ]
    if given and names != ("demo",):
        path = Path(given[0])
        sections = read_toml(path)
        if names and names[0] in sections:
            Dict({names[0]: sections[names[0]]}, source=str(path))(app, names, arguments)


app = App(
    name="sequela",
    version=sequela.__version__,
    help="""An open medical-event world model: learn patient timelines, simulate
their futures, read risks off them.

sequela demo runs everything on real patients. The stages one by one: ingest,
tokenize, train, simulate, predict, evaluate, report. Each reads folders,
writes one folder, and is skipped when that folder is up to date.""",
    help_format="plaintext",
    config=_settings_from_file,
    default_parameter=Parameter(negative_iterable=()),
    suppress_keyboard_interrupt=False,
)


@app.command
def demo(
    *,
    source: str = "nafld",
    raw: Path | None = None,
    out: Path = Path("demo-output"),
    common: Annotated[CommonWithSeed, FLAT] = CommonWithSeed(),
) -> None:
    """Real patients in, risks with intervals out: every stage, one after the other.

    Learns from the training patients of a real cohort, simulates the futures
    of patients it has not seen, and compares the risks with what happened and
    with plain baselines. Run again, it goes on where it stopped.

    Example: sequela demo --out demo-output

    Args:
        source: The data: nafld (comes with sequela) or physionet2012.
        raw: The folder of the raw files; not needed for nafld.
        out: The folder to write; report.html in it is the result for people.
    """
    import time

    from sequela.serve.pages.terminal import print_summary
    from sequela.serve.stages.demo import demo as run

    start = time.perf_counter()
    metrics = run(source, raw, out, seed=common.seed, config=common.config, quiet=common.quiet)
    print_summary(metrics)
    peak = max(stage["peak_rss_mb"] for stage in metrics["stages"].values())
    print(
        f"{duration(time.perf_counter() - start)}, peak memory {peak:,.0f} MB. Open {out / 'report.html'} to read on."
    )


@app.command
def ingest(
    source: str,
    raw: str,
    out: Path,
    /,
    *,
    fractions: tuple[float, float, float] = FRACTIONS,
    memory: str = "2GB",
    workers: Annotated[Workers, FLAT] = Workers(),
    common: Annotated[CommonWithSeed, FLAT] = CommonWithSeed(),
) -> None:
    """Turn raw tables into a MEDS dataset, by a declarative mapping.

    Every row is accounted for in OUT/ingest.json and, for people, in
    OUT/ingest.html: events written, rows dropped and why. Nothing here is
    random: patients go to train, tuning or held_out by a hash of their number.
    The password of a server is read from PGPASSWORD or ~/.pgpass.

    Example: sequela ingest physionet2012 raw/ meds/

    Args:
        source: A mapping by name (mimic4, eicu, omop, fhir, synthea ...), your own .toml file, or meds (of others).
        raw: The folder with the raw files, a DuckDB file, or a server: postgresql://USER@HOST/DATABASE?schema=NAME
        out: The folder to write.
        fractions: Shares of the patients for train, tuning and held_out.
        memory: How much of the tables is kept in memory; the rest lies on disk meanwhile.
    """
    _run(
        "ingest",
        out,
        common,
        lambda p: commands.ingest(
            source, raw, out, fractions=fractions, memory=memory, workers=workers, progress=p
        ),
    )


@app.command
def tokenize(
    meds: Path,
    out: Path,
    /,
    *,
    map: tuple[str, ...] = MAPS,
    settings: Annotated[TokenSettings, FLAT] = TokenSettings(),
    workers: Annotated[Workers, FLAT] = Workers(),
    common: Annotated[CommonWithSeed, FLAT] = CommonWithSeed(),
) -> None:
    """Turn the events of a MEDS dataset into tokens.

    The vocabulary and the value bins are fitted on the training patients
    only. Nothing here is random. A run that was cut short goes on where it
    stopped.

    Example: sequela tokenize meds/ corpus/

    Args:
        meds: A MEDS dataset, such as sequela ingest writes.
        out: The folder to write: vocabulary and token rows per split.
        map: Translates codes: mimic-meds, gem (ICD-9-CM to ICD-10-CM), or your file (columns from, to); repeatable.
    """
    # A small dataset takes less time than to start: no threads for linear algebra, no garbage sought among the imports
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.set_threshold(100_000)
    _run(
        "tokenize",
        out,
        common,
        lambda p: commands.tokenize(meds, out, settings=settings, maps=map, workers=workers, progress=p),
    )


@app.command
def train(
    corpus: Path,
    out: Path,
    /,
    *,
    resume: bool = True,
    settings: Annotated[TrainSettings, FLAT] = TrainSettings(),
    common: Annotated[Common, FLAT] = Common(),
) -> None:
    """Train a decoder that continues timelines.

    The run is saved every few minutes and on SIGTERM. Cut short, even killed,
    it goes on from there with the same command. On several processes:

    torchrun --nproc-per-node 2 -m sequela train corpus/ model/

    Example: sequela train corpus/ model/ --depth 2 --epochs 5

    Args:
        corpus: A corpus, such as sequela tokenize writes.
        out: The folder to write: a checkpoint, which transformers can load too.
        resume: Go on from what a run that was cut short left behind.
    """
    import json

    from sequela.serve.pages.terminal import print_losses

    say = Display(common.quiet).say
    _run(
        "train",
        out,
        common,
        lambda p: commands.train(corpus, out, settings=settings, resume=resume, progress=p, say=say),
    )
    losses = json.loads((out / "train.json").read_text())["tuning"]
    if losses is not None and not follows():
        print_losses(losses)


@app.command
def scale(
    corpus: Path,
    out: Path,
    /,
    *,
    flops: Annotated[list[float], Parameter(consume_multiple=True)],
    settings: Annotated[ScaleSettings, FLAT] = ScaleSettings(),
    base: Annotated[TrainSettings, FLAT] = TrainSettings(),
    meds: Path | None = None,
    task: list[str] | None = None,
    patients: int | None = None,
    rollouts: int = 10,
    common: Annotated[Common, FLAT] = Common(),
) -> None:
    """Study how the loss falls with compute, and plan a larger run.

    Trains models of several sizes at each budget, fits power laws, checks them
    on the largest budget, and tells what to train next. Started again, also
    with more budgets, it keeps the runs that are done; started on several
    machines on one shared folder, these share the runs.

    Example: sequela scale corpus/ study/ --flops 1e12 3e12 1e13 3e13

    Args:
        corpus: A corpus, such as sequela tokenize writes.
        out: The folder to write; scale.html in it is the result for people.
        flops: Budgets: the training FLOPs of each group of runs, two or more.
        meds: The dataset with the patients whom the tasks ask about.
        task: Also let the best model of each budget answer this, by simulation.
        patients: Ask about at most so many held-out patients.
        rollouts: Futures a patient.
    """
    from sequela.serve.pages.scale import PAGE

    display = Display(common.quiet)
    with display.stage("scale") as progress:
        found = commands.scale(
            corpus,
            out,
            flops=flops,
            settings=settings,
            base=base,
            meds=meds,
            task=task or (),
            patients=patients,
            simulation=SimulateSettings(rollouts=rollouts),
            progress=progress,
        )
    display.say(found["advice"]["answer"])
    display.say(f"scale: {found['runs']} runs, open {out / PAGE} to read on.")


@app.command
def simulate(
    model: Path,
    meds: Path,
    out: Path,
    /,
    *,
    task: list[str],
    split: str = "held_out",
    patients: int | None = None,
    settings: Annotated[SimulateSettings, FLAT] = SimulateSettings(),
    workers: Annotated[Workers, FLAT] = Workers(),
    common: Annotated[Common, FLAT] = Common(),
) -> None:
    """Imagine futures of the patients that a task asks about.

    The model sees what was known strictly before the prediction time and
    nothing else. Run again, it goes on where it stopped; several machines share
    it by torchrun or --executor ray.

    Example: sequela simulate model/ meds/ simulated/ --task death_5y --task
    new_diabetes_5y

    Args:
        model: A checkpoint, such as sequela train writes.
        meds: A MEDS dataset with the histories.
        out: The folder to write: imagined events, MEDS columns plus prediction_time and rollout.
        task: A task by name (see sequela tasks) or a task file; repeat for several, one simulation serves all.
        split: Which patients: train, tuning or held_out.
        patients: Simulate at most so many patients.
    """
    _run(
        "simulate",
        out,
        common,
        lambda p: commands.simulate(
            model,
            meds,
            out,
            task=task,
            split=split,
            patients=patients,
            settings=settings,
            workers=workers,
            progress=p,
        ),
    )


@app.command
def predict(
    model: Path,
    meds: Path,
    out: Path,
    /,
    *,
    task: list[str],
    baselines: bool = True,
    split: str = "held_out",
    patients: int | None = None,
    settings: Annotated[SimulateSettings, FLAT] = SimulateSettings(),
    common: Annotated[Common, FLAT] = Common(),
) -> None:
    """Turn simulated futures into one answer per patient, beside those of plain
    baselines.

    From --split on, all options are for the simulation of a checkpoint. Of a
    folder of sequela simulate --estimator alone counts; where there are no
    futures for it, those that are there are taken.

    Example: sequela predict model/ meds/ predictions/ --task death_5y

    Args:
        model: A checkpoint, which is simulated first into OUT-simulated; or a folder of sequela simulate.
        meds: The MEDS dataset with the true answers.
        out: The folder to write: one file a task and model, in the meds-evaluation schema.
        task: A task by name (see sequela tasks) or a task file; repeat for several.
        baselines: Also fit the baselines on the training patients.
        split: Which patients: train, tuning or held_out.
        patients: Simulate at most so many patients.
    """
    _run(
        "predict",
        out,
        common,
        lambda p: commands.predict(
            model,
            meds,
            out,
            task=task,
            baselines=baselines,
            split=split,
            patients=patients,
            seed=settings.seed,
            settings=settings,
            progress=p,
        ),
    )


@app.command
def whatif(
    model: Path,
    meds: Path,
    out: Path,
    /,
    *,
    task: list[str],
    add: list[str] | None = None,
    remove: list[str] | None = None,
    set: list[str] | None = None,
    split: str = "held_out",
    patients: int | None = None,
    everyone: bool = False,
    settings: Annotated[SimulateSettings, FLAT] = SimulateSettings(),
    workers: Annotated[Workers, FLAT] = Workers(),
    common: Annotated[Common, FLAT] = Common(),
) -> None:
    """Change histories, and see how far the model's answers move.

    Simulates patients as recorded and with an edited history, with the same
    random numbers, and compares. The difference is what the model associates
    with such a record; it is not the effect of doing it. Removals come first,
    then new values, then additions. Run again, it goes on where it stopped.

    Example: sequela whatif model/ meds/ whatif/ --task death_5y --set
    "LAB//HDL = 20" --remove "DIAGNOSIS//DIABETES"

    Args:
        model: A checkpoint, such as sequela train writes.
        meds: A MEDS dataset with the histories; nothing in it is changed.
        out: The folder to write: contrast.parquet, whatif.json, and both simulations.
        task: A task by name (see sequela tasks) or a task file; repeat for several.
        add: An event so long before the prediction time: "CODE @ 1 hour" or "CODE = 1.2 @ 30 minutes"; repeatable.
        remove: Events to leave out: "CODE" or "PREFIX*", with "@ 30 days" only of the last so long; repeatable.
        set: Another number for the latest value of a code: "CODE = 1.2"; repeatable.
        split: Which patients: train, tuning or held_out.
        patients: Ask about at most so many patients.
        everyone: Means over all patients, not only those whose history the model reads otherwise.
    """
    from sequela.serve.pages.whatif import print_whatif, read_whatif

    _run(
        "whatif",
        out,
        common,
        lambda p: commands.whatif(
            model,
            meds,
            out,
            task=task,
            add=add or (),
            remove=remove or (),
            set=set or (),
            split=split,
            patients=patients,
            everyone=everyone,
            settings=settings,
            workers=workers,
            progress=p,
        ),
    )
    print_whatif(read_whatif(out))


@app.command
def evaluate(
    predictions: Path,
    out: Path,
    /,
    *,
    also: list[Path] | None = None,
    common: Annotated[CommonWithSeed, FLAT] = CommonWithSeed(),
) -> None:
    """Score predictions against what happened, with 95 % intervals.

    Example: sequela evaluate predictions/ evaluation/

    Args:
        predictions: A folder of predictions, such as sequela predict writes.
        out: The folder to write: metrics.json and report.html.
        also: A further folder of predictions to score beside it; repeat for several.
    """
    import json

    from sequela.serve.pages.terminal import print_summary

    folders = [predictions, *(also or [])]
    _run("evaluate", out, common, lambda p: commands.evaluate(folders, out, seed=common.seed, progress=p))
    print_summary(json.loads((out / "metrics.json").read_text()))


@app.command
def report(
    evaluation: Path, out: Path, /, *, common: Annotated[CommonWithSeed, FLAT] = CommonWithSeed()
) -> None:
    """Write the page for people: scores, plots, example futures, limits. One HTML
    file that needs no network.

    Example: sequela report evaluation/ report/

    Args:
        evaluation: A folder of sequela evaluate, or of a demo.
        out: The folder to write: report.html.
    """
    _run("report", out, common, lambda p: commands.report(evaluation, out, progress=p))


@app.command
def tasks(*, json: bool = False, common: Annotated[CommonWithSeed, FLAT] = CommonWithSeed()) -> None:
    """List the questions that come with sequela, one a line.

    Example: sequela tasks

    Args:
        json: One JSON list with every field, for programs.
    """
    from json import dumps

    found = commands.tasks()
    if json:
        print(dumps([task.as_dict() for task in found], indent=2))
        return
    for task in found:
        print(f"{task.name:<24} {task.dataset:<14} {task.title}")


def _run(name: str, out: Path, common: Common, work: Callable[[Progress], dict]) -> None:
    """Show a stage while it runs, and one line when it is done."""
    display = Display(common.quiet or follows())
    with display.stage(name) as progress:
        done = work(progress)
    took = "is up to date" if done["skipped"] else f"written in {duration(done['seconds'])}"
    display.say(", ".join(filter(None, [f"{name}: {out} {took}", in_words(done)])))


def main() -> None:
    """Entry point of the command `sequela`."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code: 0 done, 2 the user can mend it, 1 our bug, 130 Ctrl-C."""
    try:
        command, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    except (CycloptsError, ValueError) as error:
        help_ = "`sequela --help` lists the commands, `sequela COMMAND --help` their options."
        return _complain(
            str(error) if isinstance(error, InputError) else f"{str(error).removesuffix('.')}. {help_}"
        )
    pressed = []
    try:
        with _ctrl_c(pressed):
            command(*bound.args, **bound.kwargs)
    except InputError as error:
        return _complain(str(error))
    except Interrupted as stopped:
        print(f"sequela: {stopped}", file=sys.stderr)
    except (KeyboardInterrupt, Exception) as error:
        if pressed or isinstance(error, KeyboardInterrupt):
            print("sequela: stopped; run the same command again to go on.", file=sys.stderr)
            return INTERRUPTED
        import traceback

        traceback.print_exc()
        print("sequela: this is a defect of ours; please report it with the lines above.", file=sys.stderr)
        return OUR_BUG
    return DONE


@contextmanager
def _ctrl_c(pressed: list[int]) -> Generator[None]:
    """Remember in `pressed` that Ctrl-C came: a library in the midst of its import may make another error of it."""
    if current_thread() is not main_thread():
        yield
        return

    def heed(number: int, frame: object) -> None:
        pressed.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, heed)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _complain(sentence: str) -> int:
    print(f"sequela: {' '.join(sentence.split())}", file=sys.stderr)
    return USER_CAN_MEND


if __name__ == "__main__":
    main()
