"""The command line: a command for each stage, errors in one sentence, exit codes 0, 2 and 1."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from inspect import BoundArguments
from pathlib import Path
from signal import SIGINT
from typing import Any

from cyclopts import App, ArgumentCollection, CycloptsError, Parameter
from cyclopts.config import Dict

from sequela.errors import InputError
from sequela.serve.config import checked, sections_in
from sequela.serve.flags import COMMON, command_of, spelled
from sequela.serve.folder.launch import follows
from sequela.serve.progress import Display
from sequela.serve.signals import KILLED, Stop, heeding
from sequela.serve.stage import Finished, Stage
from sequela.serve.stages import STAGES
from sequela.serve.streams import OutputLost, ReaderGone, guarded
from sequela.training.shutdown import Interrupted
from sequela.version import __version__

DONE, OUR_BUG, USER_CAN_FIX = 0, 1, 2
HELP = """An open medical-event world model: learn patient timelines, simulate
their futures, read risks off them.

sequela demo runs everything on real patients. The stages one by one: ingest,
tokenize, train, simulate, predict, evaluate, report. Each reads folders,
writes one folder, and is skipped when that folder is up to date."""


def main() -> None:
    """Entry point of the command `sequela`."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code.

    0: done; 2: the user can fix it; 1: our bug; 130, 143, 129: stopped by Ctrl-C, SIGTERM, SIGHUP.
    """
    stage = None
    with guarded(), heeding() as stop:
        try:
            if arguments and arguments[0] in STAGES:
                stage = stage_of(arguments[0])
            command, bound = _parsed(arguments, stage)
            command(*bound.args, **bound.kwargs)
            sys.stdout.flush()
        except BaseException as error:  # a panic of Polars, such as on Ctrl-C, is no Exception
            if isinstance(error, SystemExit) and not stop.number:
                raise
            return _ended(error, stage, stop)
        return DONE


def _parsed(arguments: list[str], stage: Stage | None) -> tuple[Callable, BoundArguments]:
    """The command that is asked for, and what it is called with.

    Raises:
        InputError: for a command, an option or a value that there is not.
    """
    try:
        command, bound, _ = _app(stage).parse_args(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        sentence = str(error).removesuffix(".")
        sentence += "" if sentence.endswith("?") else "."
        raise InputError(
            f"{sentence} `sequela --help` lists the commands, `sequela COMMAND --help` their options."
        ) from error
    return command, bound


def _ended(error: BaseException, stage: Stage | None, stop: Stop) -> int:
    """Say why a command ended early; returns the exit code."""
    if stop.number or isinstance(error, KeyboardInterrupt):
        print("sequela: stopped; run the same command again to continue.", file=sys.stderr)
        return KILLED + (stop.number or SIGINT)
    if isinstance(error, Interrupted):
        print(f"sequela: {error}", file=sys.stderr)
        return DONE
    if isinstance(error, ReaderGone):
        return DONE
    if isinstance(error, OutputLost):
        return _complain(f"the output could not be written ({error.strerror}): send it elsewhere.")
    if isinstance(error, InputError):
        return _complain(str(error), stage)
    if memory_ran_out(error):
        return _complain(
            "memory ran out: choose smaller settings, fewer processes, or a machine that has more memory."
        )
    import traceback

    traceback.print_exception(error)
    print("sequela: this is a bug in sequela; please report it with the lines above.", file=sys.stderr)
    return OUR_BUG


def memory_ran_out(error: BaseException) -> bool:
    """Whether this is Python's, NumPy's or PyTorch's word for it, which share no class."""
    words = ("can't allocate memory", "CUDA out of memory", "bad allocation", "std::bad_alloc")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)


def stage_of(name: str) -> Stage:
    """The stage of this name."""
    return getattr(import_module(f"sequela.serve.stages.{name}"), name).stage


def _app(stage: Stage | None) -> App:
    """The program; only the `stage` that is asked for is a whole command, the others are their names and sentences."""

    def settings_from_file(app: App, names: tuple[str, ...], arguments: ArgumentCollection) -> None:
        """Fill in from the file after --config what the flags left open."""
        given = [
            token.value for argument in arguments if argument.name == "--config" for token in argument.tokens
        ]
        if stage is not None and "config" not in stage.options and given:
            if not given[0]:
                raise InputError("--config is empty: give a path.")
            path = Path(given[0])
            values = sections_in(path, STAGES).get(stage.name, {})
            values = checked(values, stage, COMMON, path, _home)
            Dict({stage.name: values}, source=str(path))(app, names, arguments)

    app = App(
        name="sequela",
        version=__version__,
        help=HELP,
        help_format="plaintext",
        config=settings_from_file,
        default_parameter=Parameter(negative_iterable=()),
        suppress_keyboard_interrupt=False,
    )
    for name in STAGES:
        if stage is not None and name == stage.name:
            app.command(command_of(stage, _run), name=name)
        else:
            app.command(_sentence_of(name) if stage is None else _nothing, name=name)
    return app


def _nothing() -> None:
    """Stands for a command that is not asked for."""


def _sentence_of(name: str) -> Callable[[], None]:
    def command() -> None: ...

    command.__doc__ = stage_of(name).help.partition("\n\n")[0]
    return command


def _home(setting: str) -> str:
    """The first command whose section may hold a setting; empty if none does."""
    options = ((name, stage_of(name).options.get(setting)) for name in STAGES if name != "demo")
    return next((name for name, option in options if option is not None and not option.positional), "")


def _run(stage: Stage, arguments: tuple, keywords: dict[str, Any], *, quiet: bool) -> None:
    """Run a stage, say what it made on stderr, and print its result."""
    if stage.brief:  # no threads for linear algebra, no search for garbage among the imports
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        gc.set_threshold(100_000)
    start = time.perf_counter()
    result = stage(*arguments, **keywords, quiet=quiet)
    if follows():
        return
    done = Finished(result, stage.values(arguments, keywords), time.perf_counter() - start)
    if stage.line is not None:
        Display(quiet).say(stage.line(done))
    if stage.show is not None:
        stage.show(done)


def _complain(sentence: str, stage: Stage | None = None) -> int:
    sentence = sentence if stage is None else spelled(sentence, stage)
    print(f"sequela: {' '.join(sentence.split())}", file=sys.stderr)
    return USER_CAN_FIX


if __name__ == "__main__":
    main()
