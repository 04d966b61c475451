"""Checkpoints of a run in progress: complete or absent, verified when read, the last two kept.

`step-00001234/` holds weights, buffers, and optimizer state as safetensors that `torch.distributed.checkpoint` writes
and reads, each process its own part, so that any number of processes can continue from what any other number saved;
and `state.json`, the plain numbers of the run and the hash of every file. There are no pickles.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.optim import Optimizer

from sequela.errors import InputError
from sequela.files import entries, plain_errors
from sequela.training.parallel import ProcessGroup

STATE = "state.json"
PREFIX = "step-"
KEPT = 2
BEST = "best"  # as if it were what an optimizer remembers of a weight
FILE_BYTES = 2**26
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Trained:
    """What training changes: a module (not what wraps it), the optimizers of its weights, and what `state` was at the
    best check so far, empty if there is none; reading a checkpoint fills it."""

    objective: nn.Module
    optimizers: Sequence[Optimizer]
    best: dict[str, Tensor] = field(default_factory=dict)

    def state(self) -> dict[str, Tensor]:
        """Weights and persistent buffers by name, each once."""
        persistent = self.objective.state_dict().keys()
        weights: dict[str, Tensor] = {name: w.detach() for name, w in self.objective.named_parameters()}
        return weights | {name: x for name, x in self.objective.named_buffers() if name in persistent}


def write_step(
    folder: Path, step: int, trained: Trained, progress: dict, identity: dict, group: ProcessGroup
) -> None:
    """Write the checkpoint of `step` into `folder` unless it is there; all ranks call this.

    Args:
        folder: `checkpoints` in the folder of the run.
        step: steps done.
        progress: everything else that the run continues from, in plain JSON values.
        identity: what makes a run the same run; no other run continues from this checkpoint.
        group: the processes of the run.

    Raises:
        InputError: where the folder cannot be written to; earlier checkpoints stay intact.
    """
    final = folder / f"{PREFIX}{step:08}"
    work = final.with_name(f".{final.name}")
    if group.broadcast(final.exists()):
        return
    tensors, numbers = _contents(trained)
    try:
        if group.leads:
            _sweep(folder)
            work.mkdir(parents=True)
        group.broadcast()
        with _plain_errors():
            # It flushes each file to the disk
            writer = dcp.HuggingFaceStorageWriter(str(work), _files(tensors), save_distributed=True)
            dcp.save(tensors, storage_writer=writer, no_dist=group.size == 1)
        hashes = _hashes(work, group)
        if group.leads:
            body = {
                "same": identity,
                "facts": progress,
                "files": hashes,
                "numbers": numbers,
                "tensors": sorted(tensors),
            }
            _write_state(work / STATE, body)
            _flush(work)
            work.rename(final)
            _flush(folder)
            for old in _steps(folder)[:-KEPT]:
                old.rename(old.with_name(f".{old.name}"))
            _sweep(folder)
        group.broadcast()
    except OSError as error:
        shutil.rmtree(work, ignore_errors=True)
        raise InputError(
            f"the checkpoint of step {step} could not be written into {folder} ({error.strerror or error}): free some "
            "space and run the same command again, which goes on from the previous checkpoint."
        ) from error


def read_latest(folder: Path, trained: Trained, identity: dict, group: ProcessGroup) -> dict | None:
    """Put a run back to its latest intact checkpoint and return the progress saved with it; None without a checkpoint.

    A damaged checkpoint is skipped with a warning and removed; so are those of another run. The optimizers of `trained`
    are fresh; `identity` and `group` are as in `write_step`. All ranks call this.

    Raises:
        InputError: if every checkpoint is damaged, or they are of a version whose runs cannot be continued.
    """
    latest = group.broadcast(_latest(folder, identity) if group.leads else None)
    if latest is None:
        return None
    path, body = latest
    state = trained.state()
    tensors = {name: _target(name, state) for name in body["tensors"]}
    with _plain_errors():
        dcp.load(tensors, storage_reader=dcp.HuggingFaceStorageReader(str(path)), no_dist=group.size == 1)
    for name, number in body["numbers"].items():
        if name in state:
            state[name].fill_(number)
    names: dict[Tensor, str] = {weight: name for name, weight in trained.objective.named_parameters()}
    values = tensors | {name: torch.tensor(number) for name, number in body["numbers"].items()}
    for optimizer in trained.optimizers:
        _restore_optimizer(optimizer, names, values)
    trained.best.clear()
    ending = f"/{BEST}"
    trained.best.update({name.removesuffix(ending): x for name, x in values.items() if name.endswith(ending)})
    return body["facts"]


def discard(folder: Path, group: ProcessGroup) -> None:
    """Remove all checkpoints, when a run is complete or starts over."""
    if group.leads:
        shutil.rmtree(folder, ignore_errors=True)


def _contents(trained: Trained) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The tensors of a run, as "weight" and "weight/optimizer state", and its scalars in the same way."""
    tensors = trained.state()
    names: dict[Tensor, str] = {weight: name for name, weight in trained.objective.named_parameters()}
    for optimizer in trained.optimizers:
        for weight, memory in optimizer.state.items():
            tensors |= {f"{names[weight]}/{key}": value for key, value in memory.items()}
    tensors |= {f"{name}/{BEST}": value for name, value in trained.best.items()}
    numbers = {name: value.item() for name, value in tensors.items() if value.dim() == 0}
    return {name: value for name, value in tensors.items() if name not in numbers}, numbers


def _files(tensors: dict[str, Tensor]) -> dict[str, int]:
    """The file that each tensor goes into, from 1: a file is assembled in memory before it is written."""
    file, filled, chosen = 1, 0, {}
    for name, tensor in tensors.items():
        if filled > FILE_BYTES:
            file, filled = file + 1, 0
        chosen[name] = file
        filled += tensor.nbytes
    return chosen


def _target(name: str, state: dict[str, Tensor]) -> Tensor:
    """Where a saved tensor is loaded to: the weight or buffer itself, or a new tensor sharded as the weight is."""
    weight, _, key = name.partition("/")
    return torch.zeros_like(state[weight]) if key else state[weight]


def _restore_optimizer(
    optimizer: Optimizer, names: dict[Tensor, str], values: dict[str, Tensor]
) -> None:
    trained = [names[weight] for group in optimizer.param_groups for weight in group["params"]]
    positions = {name: position for position, name in enumerate(trained)}
    memory: dict[int, dict[str, Tensor]] = {}
    for name, value in values.items():
        weight, _, key = name.partition("/")
        if key and key != BEST and weight in positions:
            memory.setdefault(positions[weight], {})[key] = value
    optimizer.load_state_dict({"state": memory, "param_groups": optimizer.state_dict()["param_groups"]})


@contextmanager
def _plain_errors() -> Generator[None]:
    """For calls of `torch.distributed.checkpoint`: unwraps its errors and silences its warning about one process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        try:
            yield
        except CheckpointException as error:
            raise next(cause for cause, _ in error.failures.values()) from None


def _hashes(folder: Path, group: ProcessGroup) -> dict[str, str]:
    """SHA-256 of every file; each rank hashes its share."""
    files = sorted(folder.iterdir())
    parts = group.collect({file.name: _hash(file) for file in files[group.rank :: group.size]})
    return {name: digest for part in parts for name, digest in part.items()}


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_state(path: Path, body: dict) -> None:
    text = json.dumps(body)
    with path.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest()}) + "\n" + text)
        stream.flush()
        os.fsync(stream.fileno())


def _read_state(path: Path) -> dict:
    """Raises ValueError if it is not what was written."""
    head, _, text = path.read_text(encoding="utf-8").partition("\n")
    if json.loads(head)["sha256"] != hashlib.sha256(text.encode()).hexdigest():
        raise ValueError("its hash is wrong")
    return json.loads(text)


def _latest(folder: Path, identity: dict) -> tuple[Path, dict] | None:
    """The latest intact checkpoint and its `state.json`; those that no run continues from are removed."""
    damaged: dict[Path, str] = {}
    for path in reversed(_steps(folder)):
        body, damage = _checked(path)
        if body is None:
            damaged[path] = damage
        elif "optimiser" in body["same"].get("settings", {}):
            raise InputError(
                f"{path} was written by Sequela 0.1, whose unfinished runs cannot be continued: start over without "
                "resuming."
            )
        elif body["same"] == json.loads(json.dumps(identity)):
            for bad, why in damaged.items():
                _LOG.warning("The checkpoint %s is damaged (%s): continuing from %s.", bad, why, path)
                shutil.rmtree(bad)
            return path, body
        else:
            damaged.clear()
            break
    if damaged:
        listed = "; ".join(f"{path}: {why}" for path, why in damaged.items())
        raise InputError(f"Every checkpoint is damaged ({listed}): start over without resuming.")
    shutil.rmtree(folder, ignore_errors=True)
    return None


@plain_errors()
def _checked(path: Path) -> tuple[dict | None, str]:
    """Its `state.json`, or None and what is wrong with the checkpoint."""
    try:
        body = _read_state(path / STATE)
        for name, digest in body["files"].items():
            if _hash(path / name) != digest:
                return None, f"the hash of {name} is wrong"
    except FileNotFoundError as error:
        return None, f"{Path(error.filename).name} is missing"
    except (ValueError, KeyError, TypeError):
        return None, f"{STATE} is not what was written"
    return body, ""


def _steps(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return [folder / name for name, _ in entries(folder) if name.startswith(PREFIX)]


def _sweep(folder: Path) -> None:
    """Remove what a killed run was writing or removing."""
    for path in folder.glob(f".{PREFIX}*"):
        shutil.rmtree(path)


def _flush(folder: Path) -> None:
    """Flush the directory entries of a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
