"""A stage as a command: its options as flags, and names of settings in messages as the flags that they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import cyclopts

from sequela.keywords import converted
from sequela.serve.stage import Option, Stage

# What every command takes, whose stage does not say it itself
COMMON = (
    Option("seed", int, 0, "Accepted by every command; this one has nothing random."),
    Option(
        "config",
        Path | None,
        None,
        "A TOML file with settings in a section named after the command, such as [train]; flags win over it.",
    ),
    Option("quiet", bool, False, "Show no progress."),
)


def command_of(stage: Stage, run: Callable[..., None]) -> Callable[..., None]:
    """A function of `run` that takes what the stage takes, for cyclopts."""
    common = [option for option in COMMON if option.name not in stage.options]

    def command(*arguments: Any, **keywords: Any) -> None:
        for option in common:
            converted(option.hint, keywords.get(option.name, option.default), f"--{option.name}")
        own = {name: value for name, value in keywords.items() if name in stage.options}
        run(stage, arguments, own, quiet=keywords.get("quiet", False))

    command.__doc__ = stage.help
    command.__signature__ = Signature(  # ty: ignore[missing-attribute]
        [_flag(option) for option in (*stage.options.values(), *common)]
    )
    return command


def _flag(option: Option) -> Parameter:
    how: dict[str, Any] = {"help": option.words}
    if option.default in (None, ()):
        how["show_default"] = False
    if isinstance(option.default, tuple) and option.default:
        how["show_default"] = _in_words
    if get_origin(option.hint) is tuple and get_args(option.hint) in ((int, ...), (float, ...)):
        how["consume_multiple"] = True
    if option.hint in (int, int | None, tuple[int, ...]):
        how["converter"] = _whole_numbers
    kind = Parameter.POSITIONAL_ONLY if option.positional else Parameter.KEYWORD_ONLY
    default = Parameter.empty if option.required else option.default
    hint = Annotated[_as_text(option.hint), cyclopts.Parameter(**how)]
    return Parameter(option.name, kind, annotation=hint, default=default)


def _as_text(hint: Any) -> Any:
    """`hint` with texts for paths, so that an empty one is still seen to be empty."""
    texts: dict[Any, Any] = {Path: str, Path | None: str | None, tuple[Path, ...]: tuple[str, ...]}
    return texts.get(hint, hint)


def _in_words(default: tuple) -> str:
    return " ".join(map(str, default))


def _whole_numbers(hint: Any, tokens: Sequence[cyclopts.Token]) -> Any:
    """Whole numbers, also as 1e6; cyclopts itself cuts off what is behind the point of 2.7."""
    numbers = tuple(map(_whole_number, tokens))
    return numbers if get_origin(hint) is tuple else numbers[0]


def _whole_number(token: cyclopts.Token) -> int:
    with suppress(ValueError):
        return int(token.value)
    with suppress(ValueError):
        if (number := float(token.value)).is_integer():
            return int(number)
    raise ValueError(f"'{token.value}' is not a whole number")


def spelled(message: str, stage: Stage) -> str:
    """A message with the names of the stage's settings as flags.

    Names are known by backticks, by an underscore in them, or by the words that follow: "quantiles must be 2 or more".
    """
    for option in stage.options.values():
        flag = option.name.upper() if option.positional else f"--{option.name.replace('_', '-')}"
        message = message.replace(f"`{option.name}`", flag)
        if "_" in option.name:
            message = re.sub(rf"(?<![\w/.`'-]){option.name}(?![\w/.`'(-])", flag, message)
        message = re.sub(rf"(?<![\w/.`'-]){option.name}(?= must be )", flag, message)
    return message
