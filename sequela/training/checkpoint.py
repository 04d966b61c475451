"""Checkpoints of a run under way: whole or not there, checked when read, the last two kept.

`step-00001234/` holds the weights and what the optimizers remember of them, as safetensors that
`torch.distributed.checkpoint` writes and reads, each process its own part, so that any number of processes goes on
from what any other number saved; and `state.json`, the plain numbers of the run and the hash of every file. None is a
pickle.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.optim import Optimizer

from sequela.errors import InputError
from sequela.training.parallel import ProcessGroup

STATE = "state.json"
PREFIX = "step-"
KEPT = 2
FILE_BYTES = 2**26
_LOG = logging.getLogger(__name__)


def save(
    folder: Path,
    step: int,
    objective: nn.Module,
    steppers: list[Optimizer],
    facts: dict,
    same: dict,
    world: ProcessGroup,
) -> None:
    """Write the checkpoint of `step` into `folder`; all ranks call this. One of this step that is there stays.

    Args:
        folder: `checkpoints` in the folder of the run.
        step: steps done.
        objective: its weights are saved; the module itself, not what wraps it.
        steppers: the optimizers of these weights.
        facts: everything else that the run goes on from, in plain values that JSON holds.
        same: what makes a run the same run; another one does not go on from this checkpoint.
        world: the processes of the run.

    Raises:
        InputError: where the folder cannot be written to; the checkpoints before stay whole.
    """
    final = folder / f"{PREFIX}{step:08}"
    work = final.with_name(f".{final.name}")
    if world.tell(final.exists()):
        return
    tensors, numbers = _held(objective, steppers)
    try:
        if world.leads:
            _sweep(folder)
            work.mkdir(parents=True)
        world.tell()
        with _plain_errors():
            # It flushes each file to the disk
            writer = dcp.HuggingFaceStorageWriter(str(work), _files(tensors), save_distributed=True)
            dcp.save(tensors, storage_writer=writer, no_dist=world.size == 1)
        hashes = _hashes(work, world)
        if world.leads:
            body = {
                "same": same,
                "facts": facts,
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
        world.tell()
    except OSError as error:
        shutil.rmtree(work, ignore_errors=True)
        raise InputError(
            f"the checkpoint of step {step} could not be written into {folder} ({error.strerror or error}): make room "
            "there and run the same command again, which goes on from the checkpoint before."
        ) from error


def restore(
    folder: Path, objective: nn.Module, steppers: list[Optimizer], same: dict, world: ProcessGroup
) -> dict | None:
    """Put the run back to its latest whole checkpoint; returns the facts saved with it, None where there is none.

    A damaged checkpoint is passed over with a warning, and removed; so are those of a run that was not the same.
    `objective`, fresh `steppers`, `same` and `world` are as in `save`; all ranks call this.

    Raises:
        InputError: where every checkpoint is damaged.
    """
    found = world.tell(_latest(folder, same) if world.leads else None)
    if found is None:
        return None
    path, body = found
    weights = dict(objective.named_parameters())
    tensors = {name: _room(name, weights) for name in body["tensors"]}
    with _plain_errors():
        dcp.load(tensors, storage_reader=dcp.HuggingFaceStorageReader(str(path)), no_dist=world.size == 1)
    names: dict[Tensor, str] = {weight: name for name, weight in weights.items()}
    for stepper in steppers:
        _remember(stepper, names, tensors, body["numbers"])
    return body["facts"]


def discard(folder: Path, world: ProcessGroup) -> None:
    """Remove all checkpoints, when a run is complete or begins anew."""
    if world.leads:
        shutil.rmtree(folder, ignore_errors=True)


def _held(objective: nn.Module, steppers: list[Optimizer]) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The tensors of a run, as "weight" and "weight/what the optimizer remembers", and its numbers in the same way."""
    tensors: dict[str, Tensor] = {name: weight.detach() for name, weight in objective.named_parameters()}
    names: dict[Tensor, str] = {weight: name for name, weight in objective.named_parameters()}
    numbers: dict[str, float] = {}
    for stepper in steppers:
        for weight, memory in stepper.state.items():
            for key, value in memory.items():
                name = f"{names[weight]}/{key}"
                if value.dim() > 0:
                    tensors[name] = value
                else:
                    numbers[name] = value.item()
    return tensors, numbers


def _files(tensors: dict[str, Tensor]) -> dict[str, int]:
    """In which file each tensor goes, from 1: a file is put together in memory before it is written."""
    file, filled, chosen = 1, 0, {}
    for name, tensor in tensors.items():
        if filled > FILE_BYTES:
            file, filled = file + 1, 0
        chosen[name] = file
        filled += tensor.nbytes
    return chosen


def _room(name: str, weights: dict[str, nn.Parameter]) -> Tensor:
    """Where the saved tensor goes: the weight itself, or a new tensor that lies on the ranks as the weight does."""
    weight, _, key = name.partition("/")
    return torch.zeros_like(weights[weight]) if key else weights[weight].detach()


def _remember(
    stepper: Optimizer, names: dict[Tensor, str], tensors: dict[str, Tensor], numbers: dict[str, float]
) -> None:
    """Give an optimizer its memory back."""
    own = [names[weight] for group in stepper.param_groups for weight in group["params"]]
    places = {name: place for place, name in enumerate(own)}
    memory: dict[int, dict[str, Tensor]] = {}
    held = tensors | {name: torch.tensor(number) for name, number in numbers.items()}
    for name, value in held.items():
        weight, _, key = name.partition("/")
        if key and weight in places:
            memory.setdefault(places[weight], {})[key] = value
    stepper.load_state_dict({"state": memory, "param_groups": stepper.state_dict()["param_groups"]})


@contextmanager
def _plain_errors() -> Generator[None]:
    """Around `torch.distributed.checkpoint`: its errors are no `Exception`, and it warns of a run of one process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        try:
            yield
        except CheckpointException as error:
            raise next(cause for cause, _ in error.failures.values()) from None


def _hashes(folder: Path, world: ProcessGroup) -> dict[str, str]:
    """SHA-256 of every file, each rank its share of them."""
    files = sorted(folder.iterdir())
    parts = world.gather({file.name: _hash(file) for file in files[world.rank :: world.size]})
    return {name: digest for part in parts for name, digest in part.items()}


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_state(path: Path, body: dict) -> None:
    text = json.dumps(body)
    with path.open("w") as stream:
        stream.write(json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest()}) + "\n" + text)
        stream.flush()
        os.fsync(stream.fileno())


def _read_state(path: Path) -> dict:
    """Raises ValueError where it is not what was written."""
    head, _, text = path.read_text().partition("\n")
    if json.loads(head)["sha256"] != hashlib.sha256(text.encode()).hexdigest():
        raise ValueError("it is not as it was written")
    return json.loads(text)


def _latest(folder: Path, same: dict) -> tuple[Path, dict] | None:
    """The latest whole checkpoint and what its `state.json` says; those that no run goes on from are removed."""
    damaged: dict[Path, str] = {}
    for path in reversed(_steps(folder)):
        body, damage = _checked(path)
        if body is None:
            damaged[path] = damage
        elif body["same"] == json.loads(json.dumps(same)):
            for bad, why in damaged.items():
                _LOG.warning("The checkpoint %s is damaged (%s): going on from %s.", bad, why, path)
                shutil.rmtree(bad)
            return path, body
        else:
            damaged.clear()
            break
    if damaged:
        what = "; ".join(f"{path}: {why}" for path, why in damaged.items())
        raise InputError(f"Every checkpoint is damaged ({what}): begin anew with --no-resume.")
    shutil.rmtree(folder, ignore_errors=True)
    return None


def _checked(path: Path) -> tuple[dict | None, str]:
    """What `state.json` says, or None and what is wrong with the checkpoint."""
    try:
        body = _read_state(path / STATE)
        for name, digest in body["files"].items():
            if _hash(path / name) != digest:
                return None, f"{name} is not as it was written"
    except FileNotFoundError as error:
        return None, f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError):
        return None, f"{STATE} is not as it was written"
    return body, ""


def _steps(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the oldest first."""
    return sorted(folder.glob(f"{PREFIX}*"))


def _sweep(folder: Path) -> None:
    """Remove what was being written or removed when a run was killed."""
    for path in folder.glob(f".{PREFIX}*"):
        shutil.rmtree(path)


def _flush(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    place = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)
