"""Sequela: an open medical-event world model.

A patient is a timeline of events; a model extends it; a task reads it. The functions here are the stages of the
command line with the same names: each reads folders and writes one folder.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from sequela.version import __version__ as __version__

if TYPE_CHECKING:
    from sequela.errors import InputError
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
    from sequela.serve.stages.demo import demo
    from sequela.tokens.ehr.settings import TokenSettings
    from sequela.training.scaling.settings import ScaleSettings
    from sequela.training.settings import TrainSettings

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
    "InputError": "sequela.errors",
    "ScaleSettings": "sequela.training.scaling.settings",
    "SimulateSettings": "sequela.rollout.settings",
    "TokenSettings": "sequela.tokens.ehr.settings",
    "TrainSettings": "sequela.training.settings",
    "demo": "sequela.serve.stages.demo",
}


def __getattr__(name: str) -> object:
    """Load a public name on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'sequela' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
