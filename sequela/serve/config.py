"""The file after --config: a TOML section for each command, of which nothing is ignored."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sequela.errors import InputError, nearest
from sequela.files import system_error
from sequela.keywords import converted
from sequela.serve.stage import Option, Stage


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file; a byte order mark before it is ignored.

    Raises:
        InputError: if it is missing or not TOML, or says nothing.
    """
    text = ""
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = tomllib.loads(text)
    except OSError as error:
        raise system_error(error, path) or InputError(
            f"{path} cannot be read ({error.strerror}): check the path given as `config`."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problem = str(error).replace("end of document", f"line {len(text.splitlines())}, the last")
        raise InputError(f"{path} is not TOML ({problem}): fix it there.") from error
    if not content:
        raise InputError(
            f"{path} holds no settings: write them under the name of a command, such as [train]."
        )
    return content


def sections_in(path: Path, known: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The sections of a TOML file, by command.

    Args:
        known: the commands that may have one.

    Raises:
        InputError: see `read_toml`; also for anything that is not in a section of a known command.
    """
    known, content = tuple(known), read_toml(path)
    for name, values in content.items():
        if name not in known and isinstance(values, Mapping):
            raise InputError(
                f"{path}: there is no section [{name}]{nearest(name, known)}; there are "
                f"{', '.join(f'[{section}]' for section in known)}."
            )
        if not isinstance(values, Mapping):
            place = "write it once" if name in known else f"write it below one, such as [{known[0]}]"
            raise InputError(f"{path}: '{name}' is not a section in single brackets: {place}.")
    return content


def checked(
    values: Mapping[str, Any], stage: Stage, common: Iterable[Option], path: Path, home: Callable[[str], str]
) -> dict[str, Any]:
    """The settings in a stage's section, by the name that the stage gives them.

    Args:
        common: what every command takes.
        home: the name of another command that takes a setting; empty if none does.

    Raises:
        InputError: for one that the stage does not take, that is there twice, or whose value has another type.
    """
    where = f"{path}, [{stage.name}]: "
    known = {option.name: option for option in (*common, *stage.options.values()) if not option.positional}
    del known["config"]
    listed = ", ".join(name.replace("_", "-") for name in known)
    result: dict[str, Any] = {}
    for written, value in values.items():
        name = written.replace("-", "_")
        if name not in known:
            other = "" if name in stage.options else home(name)
            hint = f" (it belongs in [{other}])" if other else nearest(name, known)
            raise InputError(f"{where}there is no setting '{written}'{hint}; there are {listed}.")
        if name in result:
            raise InputError(
                f"{where}'{written}' is there twice, with a dash and with an underscore: keep one."
            )
        result[name] = converted(known[name].hint, value, f"{where}'{written}'")
    return result
