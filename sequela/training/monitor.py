"""Monitors a run: its loss curve, an alarm if it diverges, and logs for TensorBoard or MLflow.

A loss here is per weight (`Objective`), in the unit that the objective shows.
"""

from __future__ import annotations

import json
import math
import os
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Protocol

import numpy as np

from sequela.errors import InputError
from sequela.tokens.ragged import offsets_of

POINTS = 1000
NAMES = ("none", "tensorboard", "mlflow")


class LossCurve:
    """The loss of a run in at most `POINTS` points, each the mean over the steps since the previous point."""

    def __init__(self, total_tokens: int) -> None:
        self.total_tokens = total_tokens
        self.tokens: list[int] = []
        self.losses: list[float] = []
        self._total, self._weight = 0.0, 0.0

    def add(self, tokens: int, total: float, weight: float) -> float | None:
        """Add a step that ends at `tokens` of the run, its mean loss `total / weight`; returns a point if it completes
        one."""
        done = self.tokens[-1] if self.tokens else 0
        self._total, self._weight = self._total + total, self._weight + weight
        if POINTS * done // self.total_tokens == POINTS * tokens // self.total_tokens:
            return None
        point = self._total / self._weight
        self.tokens.append(tokens)
        self.losses.append(point)
        self._total, self._weight = 0.0, 0.0
        return point

    def last(self, share: float) -> float:
        """Mean of the last points, a `share` of all of them."""
        count = math.ceil(share * len(self.tokens))
        return sum(self.losses[-count:]) / count

    def state(self) -> dict:
        """What `restore` needs, as JSON values."""
        points = {"tokens": self.tokens, "losses": self.losses}
        return points | {"total": self._total, "weight": self._weight}

    def restore(self, state: dict) -> None:
        """Continue from what `state` returned."""
        self.tokens, self.losses = list(state["tokens"]), list(state["losses"])
        self._total, self._weight = state["total"], state["weight"]


class MetricsLog(Protocol):
    """Where the metrics of a run go."""

    def write(self, tokens: int, metrics: dict[str, float]) -> None:
        """Write the metrics at this number of tokens."""

    def close(self) -> None:
        """This process writes no more."""


def metrics_log(name: str, folder: Path, settings: dict[str, object], *, anew: bool = False) -> MetricsLog:
    """The log of that name, one of `NAMES`. No server is needed.

    It continues the last run in `folder`, or with `anew` starts another one beside it.

    Raises:
        InputError: if its package is not installed.
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
    """Event files for TensorBoard, a folder for each run."""

    def __init__(self, folder: Path, anew: bool) -> None:
        optional_package("tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        runs = len(list(folder.glob("run-*")))
        self.events = SummaryWriter(str(folder / f"run-{max(1, runs + anew)}"))

    def write(self, tokens: int, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self.events.add_scalar(name, value, tokens)
        self.events.flush()

    def close(self) -> None:
        self.events.close()


class _MLflow:
    """A file store, shown by `mlflow ui` with `MLFLOW_ALLOW_FILE_STORE=true`.

    MLflow 3 allows stores without a database only on request.
    """

    def __init__(self, folder: Path, settings: dict[str, object], anew: bool) -> None:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        client = optional_package("mlflow").MlflowClient(tracking_uri=folder.resolve().as_uri())
        name = folder.resolve().name
        existing = client.get_experiment_by_name(name)
        experiment = existing.experiment_id if existing else client.create_experiment(name)
        before = [] if anew else client.search_runs([experiment], max_results=1)  # the latest comes first
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


def optional_package(name: str) -> object:
    """Import a package that not every installation has.

    Raises:
        InputError: if it is not installed.
    """
    try:
        return import_module(name)
    except ImportError:
        raise InputError(
            f"log {name!r} needs the package {name}: `pip install 'sequela[{name}]'`, or choose log none."
        ) from None


RECENT = 32
JUMP, DEVIATIONS, FIRST_JUMP = 1.5, 10.0, 3.0
SMALL = 0.05  # of the loss of the first step: a rise by less is none
NOTHING = 1e-3  # of a loss: rounding, where everything can be predicted from the start


class DivergenceAlarm:
    """Checks the loss of every step.

    A run diverges if the loss or the gradient is not finite; if the loss of a step is above 1.5 times the highest of
    the 32 steps before and more than 10 robust deviations above their median (1.4826 times the median change from step
    to step, over sqrt 2, which a falling loss does not widen); or if the median of the last 32 steps is above 1.5 times
    its lowest value so far. During the first 32 steps the limit is three times the loss of the first step. A rise by
    less than a twentieth of the first loss is none: where nearly everything can be predicted, the rest doubles by
    chance. Steps with less than half of the usual weight are judged together with the next ones.
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.first = self.lowest = math.inf
        self.usual = 0.0
        self._total, self._weight = 0.0, 0.0

    def check(self, loss: float, gradient: float, weight: float = 1.0) -> str | None:
        """What is wrong with a step of this loss and gradient norm; None if nothing is.

        `loss` is a mean over `weight`, such as predicted tokens.
        """
        if not math.isfinite(loss):
            return f"the loss became {loss}"
        if not math.isfinite(gradient):
            return f"the gradient became {gradient}"
        self._total, self._weight = self._total + loss * weight, self._weight + weight
        self.usual = max(self.usual, weight)
        if 2 * self._weight < self.usual:
            return None
        loss = self._total / self._weight
        self._total, self._weight = 0.0, 0.0
        return self._judge(loss)

    def _judge(self, loss: float) -> str | None:
        why = self._jump(loss)
        self.losses = [*self.losses[1 - RECENT :], loss]
        if not math.isfinite(self.first) and loss > 0:
            self.first = loss
        if len(self.losses) >= RECENT:
            level = median(self.losses)
            self.lowest = min(self.lowest, level)
            if why is None and level > max(JUMP * self.lowest, self.lowest + self._small):
                return f"the loss rose to {level:.3g} from {self.lowest:.3g}"
        return why

    def _jump(self, loss: float) -> str | None:
        if len(self.losses) < RECENT:
            known, limit = self.first, FIRST_JUMP * self.first
        else:
            known = median(self.losses)
            changes = [abs(later - earlier) for earlier, later in pairwise(self.losses)]
            deviation = 1.4826 / math.sqrt(2) * median(changes)
            limit = max(JUMP * max(self.losses), known + DEVIATIONS * deviation)
        limit = max(limit, known + self._small)
        return f"the loss jumped to {loss:.3g} from {known:.3g}" if loss > limit else None

    @property
    def _small(self) -> float:
        return max(SMALL * self.first, NOTHING) if math.isfinite(self.first) else NOTHING

    def state(self) -> dict:
        """What `restore` needs, as JSON values."""
        return {
            "losses": self.losses,
            "first": None if math.isinf(self.first) else self.first,
            "lowest": None if math.isinf(self.lowest) else self.lowest,
            "usual": self.usual,
            "total": self._total,
            "weight": self._weight,
        }

    def restore(self, state: dict) -> None:
        """Continue from what `state` returned."""
        self.losses = list(state["losses"])
        self.first = math.inf if state["first"] is None else state["first"]
        self.lowest = math.inf if state["lowest"] is None else state["lowest"]
        self.usual, self._total, self._weight = (state.get(name, 0.0) for name in ("usual", "total", "weight"))


def keep_batch(folder: Path, rows: list[list[np.ndarray]], patients: list[np.ndarray], meta: dict) -> None:
    """Write the batch of a step for inspection.

    `tokens.npy` holds the tokens of its windows, one after another; window w is `tokens[offsets[w] : offsets[w + 1]]`,
    of patient `patients[w]`, in row `rows[w]`. `step.json` holds `meta`.

    Args:
        rows: the tokens of each window of each row.
        patients: the patient of each of them.
        meta: settings, losses before, what went wrong.
    """
    folder.mkdir(parents=True, exist_ok=True)
    windows = [window for row in rows for window in row]
    np.save(folder / "tokens.npy", np.concatenate(windows).astype(np.int64), allow_pickle=False)
    lengths = np.array([len(window) for window in windows], np.int64)
    np.save(folder / "offsets.npy", offsets_of(lengths), allow_pickle=False)
    np.save(folder / "patients.npy", np.concatenate(patients).astype(np.int64), allow_pickle=False)
    number = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    np.save(folder / "rows.npy", number, allow_pickle=False)
    (folder / "step.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
