"""A stage is one function: the Python API, the command line and the help follow from its signature and docstring.

A parameter whose type is a settings dataclass stands for all of its fields: each is a keyword of its own in Python, and
a flag on the command line. What every stage needs besides, such as where to show progress, is in its `StageRun`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import MISSING, dataclass, field, is_dataclass
from functools import cached_property, wraps
from inspect import Parameter, Signature
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import TYPE_CHECKING, Any, get_type_hints

from sequela.errors import InputError, nearest
from sequela.files import check_working_folder, plain_errors
from sequela.keywords import changed, converted, described, hints
from sequela.progress import Progress, silent
from sequela.record.finding import findings_in
from sequela.serve.folder import launch
from sequela.serve.folder.lineage import in_words
from sequela.serve.folder.work import Make, make_folder
from sequela.serve.progress import Display, duration
from sequela.workers import Workers

if TYPE_CHECKING:
    from sequela.training.parallel import ProcessGroup

SEED = "seed"
RUN = "run"  # the parameter that gets the `StageRun`
SECTIONS = ("Args:", "Returns:", "Raises:")


@dataclass(frozen=True)
class StageRun:
    """One call of a stage.

    Attributes:
        given: the keywords that the caller gave, the names of whole settings among them.
        progress: shows how far the stage is.
        display: shows several stages one after the other, and says lines.
        workers: where shards or parts are worked on; the result does not depend on it.
        group: the processes of torchrun; None where there is this one only.
    """

    given: frozenset[str] = frozenset()
    progress: Progress = silent
    display: Display = field(default_factory=lambda: Display(quiet=True))
    workers: Workers = field(default_factory=Workers)
    group: ProcessGroup | None = None

    def say(self, line: str) -> None:
        """Show one line about what happened."""
        self.display.say(line)

    def folder(
        self,
        out: Path,
        name: str,
        settings: dict,
        inputs: dict[str, Path],
        make: Make,
        *,
        resumable: bool = False,
        fresh: bool = False,
    ) -> dict:
        """`make_folder` by all processes of the run together."""

        def lead(make: Make) -> dict:
            return make_folder(out, name, settings, inputs, make, resumable=resumable, fresh=fresh)

        return launch.together(self.group, lead, make)


@dataclass(frozen=True)
class Option:
    """One argument of a stage, as a keyword and as a flag.

    Attributes:
        text: what it does; of a field, empty.
        settings: the parameter with the settings that it is a field of; None if it is a parameter itself.
        home: the dataclass that it is a field of.
    """

    name: str
    hint: Any
    default: Any
    text: str = ""
    positional: bool = False
    settings: str | None = None
    home: Any = None

    @property
    def words(self) -> str:
        """What it does; of a field, the sentence under it, read from the source only when it is shown."""
        return self.text if self.home is None else described(self.home)[self.name]

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is MISSING


@dataclass(frozen=True)
class Finished:
    """A stage that has run as a command: its result, the value of each parameter, and how many seconds it took."""

    result: Any
    values: Mapping[str, Any]
    seconds: float = 0.0


def summary_line(done: Finished) -> str:
    """What is said of a finished stage: its folder, how long that took, what it counted, and what to look at."""
    result, out = done.result, done.values["out"]
    took = "is up to date" if result["skipped"] else f"written in {duration(result['seconds'])}"
    counted = ", ".join(filter(None, [f"{result['stage']}: {out} {took}", in_words(result)]))
    return "\n".join(filter(None, [counted, look_line(result, out)]))


def look_line(result: dict, out: Path) -> str:
    """How many things in the data deserve a look, and the page in the folder `out` that names them; empty if none do.

    Args:
        result: the manifest of `out`.
    """
    count = len(findings_in(result["result"]))
    things = "thing" if count == 1 else "things"
    return f"{count} {things} to look at: {out / page_of(result['stage'])}" if count else ""


def page_of(stage: str) -> str:
    """The name of a stage's page in its folder."""
    return f"{stage}.html"


@dataclass(frozen=True)
class Stage:
    """What a stage's function says of itself.

    Attributes:
        line: what is said on stderr when it is done.
        show: prints the result on stdout.
        workers: whether it takes `Workers`.
        distributed: whether the processes of torchrun share it.
        steps: whether it shows its progress itself, as several stages one after the other.
        brief: whether it may take less time than its start, so that the start is worth speeding up.
    """

    function: FunctionType
    line: Callable[[Finished], str] | None = summary_line
    show: Callable[[Finished], None] | None = None
    workers: bool = False
    distributed: bool = False
    steps: bool = False
    brief: bool = False

    @property
    def name(self) -> str:
        """Its name, in Python and on the command line."""
        return self.function.__name__

    @cached_property
    def help(self) -> str:
        """The docstring up to its sections: what `--help` says above the flags."""
        lines = inspect.cleandoc(self.function.__doc__ or "").splitlines()
        end = next((number for number, text in enumerate(lines) if text in SECTIONS), len(lines))
        return "\n".join(lines[:end]).strip()

    @cached_property
    def parameters(self) -> dict[str, Parameter]:
        """The parameters of the function with their types, `Workers` among them where it takes them."""
        types = _types(self.function)
        known = {
            name: parameter.replace(annotation=types[name])
            for name, parameter in inspect.signature(self.function).parameters.items()
            if name != RUN
        }
        if self.workers:
            known["workers"] = Parameter(
                "workers", Parameter.KEYWORD_ONLY, annotation=Workers, default=Workers()
            )
        return known

    @cached_property
    def keyword_only(self) -> set[str]:
        """The parameters that are flags on the command line; the others are its arguments."""
        return {*inspect.getfullargspec(self.function).kwonlyargs, "workers"}

    @cached_property
    def options(self) -> dict[str, Option]:
        """Every argument by name, fields of settings as arguments of their own."""
        words, options = self._arguments(), []
        for name, parameter in self.parameters.items():
            if is_dataclass(parameter.annotation):
                options += self._fields(name, parameter)
            else:
                default = MISSING if parameter.default is Parameter.empty else parameter.default
                positional = name not in self.keyword_only
                options.append(Option(name, parameter.annotation, default, words[name], positional))
        assert len({option.name for option in options}) == len(options), f"{self.name}: two of one name"
        return {option.name: option for option in options}

    def _fields(self, name: str, parameter: Parameter) -> list[Option]:
        home = parameter.annotation
        return [
            Option(key, hint, getattr(parameter.default, key), settings=name, home=home)
            for key, hint in hints(home).items()
        ]

    def _arguments(self) -> dict[str, str]:
        """The section Args of the docstring, by name."""
        words: dict[str, str] = {}
        _, _, section = inspect.cleandoc(self.function.__doc__ or "").partition("Args:\n")
        name = ""
        for text in section.splitlines():
            if not text.startswith(" "):
                break
            if not text.startswith("     "):
                name, _, text = text.strip().partition(": ")
            words[name] = f"{words.get(name, '')} {text.strip()}".strip()
        return words

    @cached_property
    def signature(self) -> Signature:
        """The signature in Python: each option, whole settings, and how the stage shows itself."""
        positional = [
            parameter for name, parameter in self.parameters.items() if name not in self.keyword_only
        ]
        keywords = [
            _keyword(option.name, option.hint, Parameter.empty if option.required else option.default)
            for option in self.options.values()
            if not option.positional
        ]
        keywords += [
            _keyword(name, parameter.annotation | None, None)
            for name, parameter in self.parameters.items()
            if is_dataclass(parameter.annotation)
        ]
        keywords += [
            _keyword("quiet", bool, True),
            _keyword("progress", Progress | None, None),
            _keyword("say", Callable[[str], None] | None, None),
        ]
        result = self.function.__annotations__["return"]
        return Signature([*positional, *keywords], return_annotation=result)

    def values(self, arguments: tuple, keywords: dict[str, Any]) -> dict[str, Any]:
        """The value of each parameter of the function, from what a caller gave.

        Raises:
            InputError: for a keyword that the stage does not know, or a value of the wrong type.
            TypeError: where an argument is missing.
        """
        known = self.signature.parameters
        for name in keywords:
            if name not in known:
                raise InputError(f"sequela.{self.name} takes no `{name}`{nearest(name, known)}.")
        given = self.signature.bind(*arguments, **keywords).arguments
        values = {}
        for name, parameter in self.parameters.items():
            if is_dataclass(parameter.annotation):
                values[name] = self._settings(name, parameter, given)
            elif name in given:
                values[name] = converted(parameter.annotation, given[name], f"`{name}`")
                if name == SEED and values[name] < 0:
                    raise InputError(f"`{name}` must be 0 or more, not {values[name]}.")
            else:
                values[name] = parameter.default
        return values

    def _settings(self, name: str, parameter: Parameter, given: Mapping[str, Any]) -> Any:
        settings_type: Any = parameter.annotation
        whole = given.get(name)
        if whole is not None and not isinstance(whole, settings_type):
            raise InputError(f"`{name}` is {whole!r}: give a {settings_type.__name__}.")
        values = {
            key: given[key]
            for key, option in self.options.items()
            if option.settings == name and key in given
        }
        base = parameter.default if whole is None else whole
        return changed(base, values) if values else base

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Run the stage; see the function's own docstring."""
        check_working_folder()
        values = self.values(arguments, keywords)
        given = frozenset(
            name
            for name, value in keywords.items()
            if name in self.options or (name in self.parameters and value is not None)
        )
        display = Display(keywords.get("quiet", True) or launch.follows(), keywords.get("say"))
        progress = keywords.get("progress")
        workers = values.pop("workers", Workers())
        with (
            launch.process_group() if self.distributed else nullcontext() as group,
            nullcontext(progress or silent) if progress or self.steps else display.stage(self.name) as shown,
        ):
            if RUN in inspect.signature(self.function).parameters:
                values[RUN] = StageRun(given, shown, display, workers, group)
            with plain_errors():
                return self.function(**values)


def _types(function: FunctionType) -> dict[str, Any]:
    """The types of the parameters; that of the result may be one which is only imported where it is made."""
    written = {name: hint for name, hint in function.__annotations__.items() if name != "return"}
    return get_type_hints(SimpleNamespace(__annotations__=written), function.__globals__)


def _keyword(name: str, hint: Any, default: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, annotation=hint, default=default)


def stage(
    *,
    line: Callable[[Finished], str] | None = summary_line,
    show: Callable[[Finished], None] | None = None,
    **traits: bool,
) -> Callable[[Any], Callable[..., Any]]:
    """Make a stage of a function: it takes keywords for all fields of its settings, and is a command.

    Args: see `Stage`. The function has `stage`, its `Stage`, as an attribute.
    """

    def made(function: FunctionType) -> Callable[..., Any]:
        what = Stage(function, line, show, **traits)

        @wraps(function)
        def call(*arguments: Any, **keywords: Any) -> Any:
            return what(*arguments, **keywords)

        call.stage = what  # ty: ignore[missing-attribute]
        call.__signature__ = what.signature  # ty: ignore[missing-attribute]
        return call

    return made
