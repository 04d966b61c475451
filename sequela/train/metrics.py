"""What is written down of a run while it goes on: a curve of bounded length, and metrics for TensorBoard or MLflow."""

from __future__ import annotations

import math
import os
from importlib import import_module
from pathlib import Path
from typing import Protocol

from sequela.record.errors import InputError

POINTS = 1000
NAMES = ("none", "tensorboard", "mlflow")


class Curve:
    """The loss of a run in at most `POINTS` points, each the mean over the steps since the one before."""

    def __init__(self, total_tokens: int) -> None:
        self.total_tokens = total_tokens
        self.tokens: list[int] = []
        self.bits_per_token: list[float] = []
        self._bits, self._predicted = 0.0, 0

    def add(self, tokens: int, bits: float, predicted: int) -> float | None:
        """A step that ends at `tokens` of the run: `bits` over `predicted` tokens. The point that it completes."""
        done = self.tokens[-1] if self.tokens else 0
        self._bits, self._predicted = self._bits + bits, self._predicted + predicted
        if POINTS * done // self.total_tokens == POINTS * tokens // self.total_tokens:
            return None
        point = self._bits / self._predicted
        self.tokens.append(tokens)
        self.bits_per_token.append(point)
        self._bits, self._predicted = 0.0, 0
        return point

    def last(self, share: float) -> float:
        """Mean of the last points, a `share` of all."""
        count = math.ceil(share * len(self.tokens))
        return sum(self.bits_per_token[-count:]) / count

    def state(self) -> dict:
        """What `go_on` needs, as JSON holds it."""
        own = {"tokens": self.tokens, "bits_per_token": self.bits_per_token}
        return own | {"bits": self._bits, "predicted": self._predicted}

    def go_on(self, state: dict) -> None:
        """Take up where `state` was said."""
        self.tokens, self.bits_per_token = list(state["tokens"]), list(state["bits_per_token"])
        self._bits, self._predicted = state["bits"], state["predicted"]


class Writer(Protocol):
    """Where the metrics of a run go."""

    def write(self, tokens: int, metrics: dict[str, float]) -> None:
        """The metrics when so many tokens were seen."""

    def close(self) -> None:
        """Nothing more comes in this process."""


def writer(name: str, folder: Path, settings: dict[str, object], *, anew: bool = False) -> Writer:
    """The writer of that name, one of `NAMES`. No server is needed.

    It goes on with the last run in `folder`, or with `anew` beside the runs that are there.

    Raises:
        InputError: where its package is not installed.
    """
    if name == "none":
        return _Nothing()
    return _TensorBoard(folder, anew) if name == "tensorboard" else _MLflow(folder, settings, anew)


class _Nothing:
    def write(self, tokens: int, metrics: dict[str, float]) -> None:
        pass

    def close(self) -> None:
        pass


class _TensorBoard:
    """Event files that `tensorboard --logdir FOLDER` shows, those of each run in a folder of its own."""

    def __init__(self, folder: Path, anew: bool) -> None:
        package("tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        there = len(list(folder.glob("run-*")))
        self.events = SummaryWriter(str(folder / f"run-{max(1, there + anew)}"))

    def write(self, tokens: int, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self.events.add_scalar(name, value, tokens)
        self.events.flush()

    def close(self) -> None:
        self.events.close()


class _MLflow:
    """A file store.

    `MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri FOLDER` shows it: MLflow 3 wants to be asked for what
    needs no database.
    """

    def __init__(self, folder: Path, settings: dict[str, object], anew: bool) -> None:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        client = package("mlflow").MlflowClient(tracking_uri=folder.resolve().as_uri())
        name = folder.resolve().name
        found = client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else client.create_experiment(name)
        before = [] if anew else client.search_runs([experiment], max_results=1)  # the latest stands first
        self.client = client
        self.run = (before[0] if before else client.create_run(experiment, run_name=name)).info.run_id
        if not before:
            for key, value in settings.items():
                client.log_param(self.run, key, value)

    def write(self, tokens: int, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self.client.log_metric(self.run, name, value, step=tokens)

    def close(self) -> None:
        self.client.set_terminated(self.run)


def package(name: str) -> object:
    """The optional package of that name.

    Raises:
        InputError: where it is not installed.
    """
    try:
        return import_module(name)
    except ImportError:
        raise InputError(
            f"--log {name} needs the package {name}: `pip install 'sequela[{name}]'`, or leave --log out."
        ) from None
