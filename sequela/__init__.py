"""Sequela: an open medical-event world model.

A patient is a timeline of events; a model extends it; a task reads it. The functions here are the stages of the
command line with the same names: each reads folders and writes one folder.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sequela.record.errors import InputError
    from sequela.rollout.settings import SimulateSettings
    from sequela.serve.commands import (
        evaluate,
        ingest,
        load,
        predict,
        report,
        scale,
        simulate,
        tasks,
        tokenize,
        train,
        whatif,
    )
    from sequela.serve.demo import demo
    from sequela.tokens.settings import TokenSettings
    from sequela.train.scaling.settings import ScaleSettings
    from sequela.train.settings import TrainSettings

__all__ = [
    "InputError",
    "ScaleSettings",
    "SimulateSettings",
    "TokenSettings",
    "TrainSettings",
    "demo",
    "evaluate",
    "ingest",
    "load",
    "predict",
    "report",
    "scale",
    "simulate",
    "tasks",
    "tokenize",
    "train",
    "whatif",
]

# Where each public name lives. Loaded on first use: importing sequela takes no time and pulls in no torch.
_HOME = dict.fromkeys(__all__, "sequela.serve.commands") | {
    "InputError": "sequela.record.errors",
    "ScaleSettings": "sequela.train.scaling.settings",
    "SimulateSettings": "sequela.rollout.settings",
    "TokenSettings": "sequela.tokens.settings",
    "TrainSettings": "sequela.train.settings",
    "demo": "sequela.serve.demo",
}
# Two commands share their name with a floor: there the floor's package is what one calls.
_CALLABLE_FLOORS = ("tasks", "train")


class _Floor(ModuleType):
    """A package that can be called as the command with its name: `sequela.train(...)` beside `sequela.train.loop`."""

    def __call__(self, *args: object, **options: object) -> object:
        return getattr(import_module("sequela.serve.commands"), self.__name__.rpartition(".")[2])(
            *args, **options
        )


class _Root(ModuleType):
    """This package; it sees the import system bind its floors."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in _CALLABLE_FLOORS and isinstance(value, ModuleType):
            value.__class__ = _Floor
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Root


def __getattr__(name: str) -> object:
    """Load a public name on first use."""
    if name in _CALLABLE_FLOORS:
        return import_module(f"sequela.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'sequela' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
