"""A stage as a command: its options as flags, and names of settings in messages as the flags that they are."""

from __future__ import annotations

import re
from collections.abc import Callable
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import cyclopts

from sequela.serve.stage import Option, Stage

# What every command takes, whose stage does not say it itself
COMMON = (
    Option("seed", int, 0, "Seed of everything random."),
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
    if get_origin(option.hint) is tuple and get_args(option.hint) in ((int, ...), (float, ...)):
        how["consume_multiple"] = True
    kind = Parameter.POSITIONAL_ONLY if option.positional else Parameter.KEYWORD_ONLY
    default = Parameter.empty if option.required else option.default
    hint = Annotated[option.hint, cyclopts.Parameter(**how)]
    return Parameter(option.name, kind, annotation=hint, default=default)


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
