"""A corpus: one tokenizer and, per split, the token rows of its patients, in memory-mapped shards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sequela.errors import InputError
from sequela.tokens.ehr.encode import Encoded
from sequela.tokens.ehr.tokenizer import Tokenizer
from sequela.tokens.ragged import Ragged, Stacked

FILE = "corpus.json"


@dataclass(frozen=True)
class Corpus:
    """The token rows of one split.

    Attributes:
        patients: int64 [P].
        tokens: [P, length].
        clock: [P, length], minutes since the patient's first event at each token; None unless time is rotary.
        events: how many they hold.
    """

    tokenizer: Tokenizer
    patients: np.ndarray
    tokens: Stacked
    clock: Stacked | None
    events: int

    @staticmethod
    def load(folder: Path, split: str) -> Corpus:
        """Open one split, memory-mapped.

        Raises InputError when the folder is no corpus, is damaged, or was made with another vocabulary.
        """
        folder = Path(folder)
        tokenizer = Tokenizer.load(folder)
        try:
            about = json.loads((folder / FILE).read_text())
            facts = about["splits"][split]
            shards = [_Files(folder / split, one["shard"]) for one in facts["shards"]]
            _allow_files(2 * len(shards))
            arrays = [shard.load(rotary=tokenizer.settings.time == "rotary") for shard in shards]
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{folder} holds no whole {split!r} corpus ({error}): run `sequela tokenize` again."
            ) from error
        if about["vocabulary"] != tokenizer.vocabulary.hash:
            raise InputError(
                f"{folder / FILE} was made with vocabulary {about['vocabulary']}, but vocabulary.json is "
                f"{tokenizer.vocabulary.hash}: run `sequela tokenize` again."
            )
        for shard, one, held in zip(shards, facts["shards"], arrays, strict=True):
            if _hash(held) != one["sha256"]:
                raise InputError(f"{shard.path('*')} are damaged: run `sequela tokenize` again.")
        rows = {
            kind: Stacked(tuple(Ragged(held[kind], held["offsets"]) for held in arrays))
            for kind in ("tokens", "clock")
            if all(kind in held for held in arrays)
        }
        patients = np.concatenate([np.zeros(0, np.int64), *(held["patients"] for held in arrays)])
        clock = rows["clock"] if tokenizer.settings.time == "rotary" else None
        return Corpus(tokenizer, patients, rows["tokens"], clock, facts["events"])


@dataclass(frozen=True)
class _Files:
    """The files of one shard."""

    folder: Path
    shard: str

    def path(self, kind: str) -> Path:
        return self.folder / f"{self.shard}.{kind}.npy"

    def load(self, *, rotary: bool) -> dict[str, np.ndarray]:
        large = ("tokens", "clock") if rotary else ("tokens",)
        small = {kind: np.load(self.path(kind)) for kind in ("patients", "offsets")}
        return small | {kind: np.load(self.path(kind), mmap_mode="r") for kind in large}


def write_shard(encoded: Encoded, folder: Path, shard: str) -> dict:
    """Write the token rows of some patients of a split; returns what `corpus.json` says of them."""
    files = _Files(folder, shard)
    arrays = {
        "patients": encoded.patients,
        "offsets": encoded.tokens.offsets,
        "tokens": encoded.tokens.flat,
    } | ({"clock": encoded.clock.flat} if encoded.clock else {})
    folder.mkdir(parents=True, exist_ok=True)
    for kind, array in arrays.items():
        np.save(files.path(kind), array)
    return {
        "shard": shard,
        "patients": len(encoded.patients),
        "events": encoded.events,
        "tokens": len(encoded.tokens.flat),
        "sha256": _hash(arrays),
    }


def rows_of(folder: Path, shard: str) -> Ragged:
    """The token rows of one shard that `write_shard` wrote, memory-mapped."""
    held = _Files(folder, shard).load(rotary=False)
    return Ragged(held["tokens"], held["offsets"])


def _allow_files(number: int) -> None:
    """Let this process hold so many more files open, as far as the system allows it."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number + 256
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _hash(arrays: dict[str, np.ndarray]) -> str:
    """The SHA-256 of all arrays of a shard."""
    digest = hashlib.sha256()
    for kind in sorted(arrays):
        digest.update(kind.encode())
        for block in _blocks(arrays[kind]):
            digest.update(block)
    return digest.hexdigest()


def _blocks(array: np.ndarray, size: int = 1 << 22) -> Iterator[np.ndarray]:
    """A memory-mapped array a few megabytes at a time."""
    for start in range(0, len(array), size):
        yield np.ascontiguousarray(array[start : start + size])
