"""Monitors a run: the loss curve, the alarm on a run that diverges, and logs for TensorBoard or MLflow."""

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


LATELY = 32
JUMP, DEVIATIONS, FIRST_JUMP = 1.5, 10.0, 3.0


class DivergenceAlarm:
    """Looks at the loss of every step, in bits per token.

    A run has run away when the loss or the gradient is no number; when the loss of a step is above 1.5 times the median
    of the 32 steps before and more than 10 robust deviations above it (1.4826 times the median change from step to
    step, over sqrt 2: a falling loss does not widen it); or when the median of the last 32 steps is above 1.5 times the
    lowest that it ever was. Before 32 steps are seen, a step may have three times the loss of the first, which knows
    nothing yet.
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.first = self.lowest = math.inf

    def check(self, bits: float, gradient: float) -> str | None:
        """What is wrong with a step of this loss and this norm of the gradient; None: nothing."""
        if not math.isfinite(bits):
            return f"the loss became {bits}"
        if not math.isfinite(gradient):
            return f"the gradient became {gradient}"
        why = self._jump(bits)
        self.losses = [*self.losses[1 - LATELY :], bits]
        if not math.isfinite(self.first):
            self.first = bits
        if len(self.losses) >= LATELY:
            level = median(self.losses)
            self.lowest = min(self.lowest, level)
            if why is None and level > JUMP * self.lowest:
                return f"the loss rose to {level:.3g} bits a token from {self.lowest:.3g}"
        return why

    def _jump(self, bits: float) -> str | None:
        if len(self.losses) < LATELY:
            known, limit = self.first, FIRST_JUMP * self.first
        else:
            known = median(self.losses)
            changes = [abs(later - loss) for loss, later in pairwise(self.losses)]
            deviation = 1.4826 / math.sqrt(2) * median(changes)
            limit = max(JUMP * known, known + DEVIATIONS * deviation)
        return f"the loss jumped to {bits:.3g} bits a token from {known:.3g}" if bits > limit else None

    def state(self) -> dict:
        """What `go_on` needs, as JSON holds it."""
        return {
            "losses": self.losses,
            "first": None if math.isinf(self.first) else self.first,
            "lowest": None if math.isinf(self.lowest) else self.lowest,
        }

    def go_on(self, state: dict) -> None:
        """Take up where `state` was said."""
        self.losses = list(state["losses"])
        self.first = math.inf if state["first"] is None else state["first"]
        self.lowest = math.inf if state["lowest"] is None else state["lowest"]


def keep(folder: Path, rows: list[list[np.ndarray]], patients: list[np.ndarray], about: dict) -> None:
    """Write the batch of a step for people to look at.

    `tokens.npy` holds the tokens of its windows, one after another; window w is `tokens[offsets[w] : offsets[w + 1]]`,
    of patient `patients[w]`, in row `rows[w]`. `step.json` says the rest.

    Args:
        rows: the tokens of each window of each row.
        patients: the patient of each of them.
        about: settings, losses before, what was wrong.
    """
    folder.mkdir(parents=True, exist_ok=True)
    windows = [window for row in rows for window in row]
    np.save(folder / "tokens.npy", np.concatenate(windows).astype(np.int64), allow_pickle=False)
    lengths = np.array([len(window) for window in windows], np.int64)
    np.save(folder / "offsets.npy", offsets_of(lengths), allow_pickle=False)
    np.save(folder / "patients.npy", np.concatenate(patients).astype(np.int64), allow_pickle=False)
    number = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    np.save(folder / "rows.npy", number, allow_pickle=False)
    (folder / "step.json").write_text(json.dumps(about, indent=1))
