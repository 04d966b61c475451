"""Settings from keywords: what each keyword means, which values it takes, and what is near a misspelled one."""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from functools import lru_cache
from itertools import pairwise
from numbers import Integral, Real
from os import PathLike, fspath
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from sequela.errors import InputError, nearest

LARGEST = 10**18 - 1  # of whole numbers: random generators and arrays take 63 bits
WORDS: dict[object, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    Path: "a path",
}


@lru_cache
def described(settings: type) -> dict[str, str]:
    """The sentence under each field of a settings dataclass, by field: its help and its line in the reference."""
    known: dict[str, str] = {}
    for base in reversed(settings.__mro__[:-1]):
        known |= _described(base)
    return known


def _described(settings: type) -> dict[str, str]:
    """Of the fields that the class itself adds."""
    (body,) = ast.parse(inspect.cleandoc(inspect.getsource(settings))).body
    assert isinstance(body, ast.ClassDef)
    return {
        node.target.id: " ".join(after.value.value.split())
        for node, after in pairwise(body.body)
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
        and isinstance(after.value.value, str)
    }


@lru_cache
def hints(settings: Any) -> dict[str, Any]:
    """The type of each field of a settings dataclass, by field."""
    known = get_type_hints(settings)
    return {field.name: known[field.name] for field in fields(settings)}


def changed(settings: Any, values: Mapping[str, object], where: str = "") -> Any:
    """`settings` with other `values`; of settings that exclude each other (`EITHER`), a value drops the others.

    Args:
        where: begins the message where a value comes from a file.

    Raises:
        InputError: for a name that is no setting, or a value that the settings refuse.
    """
    types, clean = hints(type(settings)), {}
    for name, value in values.items():
        key = name.replace("-", "_")
        if key not in types:
            raise InputError(
                f"{where}there is no setting '{name}'{nearest(key, types)}; there are {', '.join(types)}."
            )
        clean[key] = converted(types[key], value, f"{where}`{name}`")
    dropped = {
        other: None for group in getattr(settings, "EITHER", ()) if set(group) & set(clean) for other in group
    }
    try:
        return replace(settings, **dropped | clean)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{where}{error}.") from error


def converted(hint: Any, value: object, name: str) -> object:
    """`value` as the type `hint`: whole numbers pass for numbers, lists for tuples, texts for paths.

    A single text or path passes for a tuple of them.

    Raises:
        InputError: for a value of another type; the message begins with `name`.
    """
    if NoneType in get_args(hint):
        if value is None:
            return None
        hint = get_args(hint)[0]
    if get_origin(hint) is tuple:
        return _tuple(get_args(hint), value, name)
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and isinstance(value, Integral) and not isinstance(value, bool):
        if not -LARGEST <= value <= LARGEST:
            raise InputError(f"{name} is {value}: give a whole number of at most 18 digits.")
        return int(value)
    if hint is float and isinstance(value, Real) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise InputError(f"{name} must be a finite number, not {value}.")
        return float(value)
    if hint is Path and value == "":
        raise InputError(f"{name} is empty: give a path.")
    if hint in (str, Path) and isinstance(value, str | PathLike):
        return hint(fspath(value))
    if hint not in WORDS:
        return value
    raise InputError(f"{name} is {value!r}: give {WORDS[hint]}.")


def _tuple(hints: tuple, value: object, name: str) -> tuple:
    hint = hints[0]
    if hint in (str, Path) and isinstance(value, str | PathLike):
        value = (value,)
    if not isinstance(value, Iterable) or isinstance(value, str | bytes):
        raise InputError(f"{name} is {value!r}: give a list, each of it {WORDS[hint]}.")
    result = tuple(converted(hint, part, name) for part in value)
    if Ellipsis not in hints and len(result) != len(hints):
        raise InputError(f"{name} has {len(result)} values: give {len(hints)}.")
    return result
