"""Sequela: an open medical-event world model.

A patient is a timeline of events; a model extends it; a task reads it. The functions here are the stages of the
command line with the same names: each reads folders and writes one folder.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from sequela.serve.stages import STAGES
from sequela.version import __version__ as __version__

if TYPE_CHECKING:
    from sequela.errors import InputError as InputError
    from sequela.model.checkpoint import load as load
    from sequela.rollout.settings import SimulateSettings as SimulateSettings
    from sequela.serve.stages.calibrate import calibrate as calibrate
    from sequela.serve.stages.demo import demo as demo
    from sequela.serve.stages.embed import embed as embed
    from sequela.serve.stages.evaluate import evaluate as evaluate
    from sequela.serve.stages.ingest import ingest as ingest
    from sequela.serve.stages.predict import predict as predict
    from sequela.serve.stages.probe import probe as probe
    from sequela.serve.stages.report import report as report
    from sequela.serve.stages.scale import scale as scale
    from sequela.serve.stages.simulate import simulate as simulate
    from sequela.serve.stages.tasks import tasks as tasks
    from sequela.serve.stages.tokenize import tokenize as tokenize
    from sequela.serve.stages.train import train as train
    from sequela.serve.stages.whatif import whatif as whatif
    from sequela.task.answers.forecaster import Forecaster as Forecaster
    from sequela.tokens.ehr.settings import TokenSettings as TokenSettings
    from sequela.training.scaling.settings import ScaleSettings as ScaleSettings
    from sequela.training.settings import TrainSettings as TrainSettings

# Where each public name lives. Loaded on first use: importing sequela takes no time and pulls in no torch.
_HOME = {name: f"sequela.serve.stages.{name}" for name in STAGES} | {
    "Forecaster": "sequela.task.answers.forecaster",
    "InputError": "sequela.errors",
    "ScaleSettings": "sequela.training.scaling.settings",
    "SimulateSettings": "sequela.rollout.settings",
    "TokenSettings": "sequela.tokens.ehr.settings",
    "TrainSettings": "sequela.training.settings",
    "load": "sequela.model.checkpoint",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    """Load a public name on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'sequela' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
