"""A corpus on disk: a tokenizer and, for each split, the token rows of its patients in memory-mapped shards.

`vocabulary.json` and the tokenizer's other files (of EHR: `grammar.json` and `map-<name>.parquet`, its code maps) lie
at the top, with `corpus.json`: events, patients, tokens, and hashes of the shards, by split, and what deserves a look
in the data. A shard is `<split>/<number>.tokens.npy`, the tokens of its patients one after the other; `.offsets.npy`,
where each patient begins; `.patients.npy`, their ids; `.rest.npy`, how long each record goes on beyond its last token,
where tokens tell time; and `.clock.npy`, minutes since the first event, if positions come from the clock.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sequela.errors import InputError
from sequela.files import system_error
from sequela.record.events import Events
from sequela.record.schema import SPLITS
from sequela.tokens.ragged import Ragged, StackedRows
from sequela.tokens.tokenizer import Encoded, Tokenizer, load
from sequela.tokens.vocabulary import Vocabulary

FILE = "corpus.json"


@dataclass(frozen=True)
class Corpus:
    """The token rows of one split.

    Attributes:
        patients: int64 [P].
        tokens: [P, length].
        clock: [P, length], minutes since the patient's first event at each token; None unless positions come from it
            (`Tokenizer.positions_from_clock`).
        events: number of events in the rows.
        rest: int32 [P], as `Encoded.rest`; None where tokens tell no time.
    """

    tokenizer: Tokenizer
    patients: np.ndarray
    tokens: StackedRows
    clock: StackedRows | None
    events: int
    rest: np.ndarray | None = None

    @staticmethod
    def load(folder: Path, split: str) -> Corpus:
        """Open one split, memory-mapped.

        Raises:
            InputError: if the folder is no corpus, is damaged, or was made with another vocabulary.
        """
        folder = Path(folder)
        tokenizer = load(folder)
        try:
            index = json.loads((folder / FILE).read_text(encoding="utf-8"))
            summary = index["splits"][split]
            shards = [_ShardFiles(folder / split, shard["shard"]) for shard in summary["shards"]]
            _allow_files(2 * len(shards))
            arrays = [shard.load(clock=tokenizer.positions_from_clock) for shard in shards]
        except (OSError, ValueError, KeyError) as error:
            raise system_error(error, folder) or InputError(
                f"{folder} holds no whole {split!r} corpus ({error}): run `sequela tokenize` again."
            ) from error
        if index["vocabulary"] != tokenizer.vocabulary.hash:
            raise InputError(
                f"{folder / FILE} was made with vocabulary {index['vocabulary']}, but vocabulary.json is "
                f"{tokenizer.vocabulary.hash}: run `sequela tokenize` again."
            )
        for shard, written, held in zip(shards, summary["shards"], arrays, strict=True):
            if _hash(held) != written["sha256"]:
                raise InputError(f"{shard.path('*')} are damaged: run `sequela tokenize` again.")

        def rows(name: str) -> StackedRows:
            return StackedRows(tuple(Ragged(held[name], held["offsets"]) for held in arrays))

        patients = np.concatenate([np.zeros(0, np.int64), *(held["patients"] for held in arrays)])
        clock = rows("clock") if tokenizer.positions_from_clock else None
        rest = None
        if tokenizer.minutes_V.any():
            known = [held["rest"] if "rest" in held else _only_stops(held, tokenizer) for held in arrays]
            rest = np.concatenate([np.zeros(0, np.int32), *known])
        return Corpus(tokenizer, patients, rows("tokens"), clock, summary["events"], rest)


def write_corpus(tokenizer: Tokenizer, splits: Mapping[str, Iterable[Events]], out: Path) -> dict:
    """Write the corpus of a tokenizer that is fitted already, from events in memory.

    Args:
        splits: the events of each split ("train", "tuning", "held_out"), some whole patients at a time, one shard
            each; a split that is missing is empty.

    Returns:
        The contents of `corpus.json`.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(out)
    summaries = {}
    for split in SPLITS:
        shards, dropped = [], Counter()
        for number, events in enumerate(splits.get(split, ())):
            encoded = tokenizer.encode(events)
            shards.append(write_shard(encoded, out / split, f"{number:05d}"))
            dropped.update(encoded.dropped)
        summaries[split] = split_summary(shards, dropped)
    return write_index(out, tokenizer.vocabulary, summaries)


def write_shard(encoded: Encoded, folder: Path, shard: str) -> dict:
    """Write the token rows of some patients of a split; returns their entry for `corpus.json`."""
    files = _ShardFiles(folder, shard)
    arrays = {
        "patients": encoded.patients,
        "offsets": encoded.tokens.offsets,
        "tokens": encoded.tokens.flat,
    }
    if encoded.clock is not None:
        arrays["clock"] = encoded.clock.flat
    if encoded.rest is not None:
        arrays["rest"] = encoded.rest
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(files.path(name), array)
    return {
        "shard": shard,
        "patients": len(encoded.patients),
        "events": encoded.events,
        "tokens": len(encoded.tokens.flat),
        "sha256": _hash(arrays),
    }


def split_summary(shards: list[dict], dropped: Mapping[str, int]) -> dict:
    """The entry of a split for `corpus.json`: totals, events without a token by code, and its shards."""
    totals = {key: sum(shard[key] for shard in shards) for key in ("patients", "events", "tokens")}
    return {**totals, "dropped_events": dict(sorted(dropped.items())), "shards": shards}


def write_index(out: Path, vocabulary: Vocabulary, splits: Mapping[str, dict], **more: object) -> dict:
    """Write `corpus.json`, which completes a corpus, and return its contents; `more` is what the fit has to report."""
    index = {
        "vocabulary": vocabulary.hash,
        "tokens_in_vocabulary": len(vocabulary),
        **more,
        "splits": dict(splits),
    }
    (out / FILE).write_text(json.dumps(index, indent=1), encoding="utf-8")
    return index


def rows_of(folder: Path, shard: str) -> Ragged:
    """The token rows of one shard that `write_shard` wrote, memory-mapped."""
    held = _ShardFiles(folder, shard).load(clock=False)
    return Ragged(held["tokens"], held["offsets"])


@dataclass(frozen=True)
class _ShardFiles:
    """The files of one shard of a split."""

    folder: Path
    shard: str

    def path(self, name: str) -> Path:
        return self.folder / f"{self.shard}.{name}.npy"

    def load(self, *, clock: bool) -> dict[str, np.ndarray]:
        large = ("tokens", "clock") if clock else ("tokens",)
        kept = self.path("rest").exists()
        small = {name: np.load(self.path(name)) for name in ("patients", "offsets", *["rest"] * kept)}
        return small | {name: np.load(self.path(name), mmap_mode="r") for name in large}


def _only_stops(held: dict[str, np.ndarray], tokenizer: Tokenizer) -> np.ndarray:
    """`Encoded.rest` of a shard of version 0.1, which does not tell: every record simply stops, unless with its last
    token nothing can follow."""
    final = np.isin(held["tokens"][held["offsets"][1:] - 1], tokenizer.final)
    return np.where(final, -1, 0).astype(np.int32)


def _allow_files(number: int) -> None:
    """Raise this process's limit on open files by `number`, as far as the system allows."""
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
    for name in sorted(arrays):
        digest.update(name.encode())
        for block in _blocks(arrays[name]):
            digest.update(block)
    return digest.hexdigest()


def _blocks(array: np.ndarray, size: int = 1 << 22) -> Iterator[np.ndarray]:
    """A memory-mapped array, a few megabytes at a time."""
    for start in range(0, len(array), size):
        yield np.ascontiguousarray(array[start : start + size])
