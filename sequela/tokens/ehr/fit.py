"""A MEDS dataset to a corpus, in two passes over its shards: count, then encode.

Each pass maps a function over the shards. It writes its result as files and, last of all, a note that says it is done;
a run that goes on where another was cut short skips the shards with a note. Nothing here grows with the number of
patients but their ids: some twenty bytes each, for a moment. A small dataset is worked on by one process, which keeps
in memory what it would else write and read again.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from sequela.errors import InputError
from sequela.progress import Progress, silent
from sequela.record.events import Events
from sequela.record.schema import FACTS_FILE, SPLITS, TRAIN
from sequela.record.shards import Shard, read_shard, shards_of
from sequela.record.splits import NONE, Assignment, check_patients_once, split_of_folder
from sequela.tokens.corpus import FILE, rows_of, write_shard
from sequela.tokens.ehr.encode import encode
from sequela.tokens.ehr.grammar.grammar import Grammar
from sequela.tokens.ehr.settings import MAPS, TokenSettings
from sequela.tokens.ehr.statistics import Statistics
from sequela.tokens.ehr.tokenizer import FILE as VOCABULARY
from sequela.tokens.ehr.tokenizer import Tokenizer
from sequela.tokens.maps.code_map import CodeMap, check_names, load_map, translate
from sequela.tokens.maps.recode import load_maps, recoded, save_maps
from sequela.workers import Workers, worker_pool

WORK = "work"
COUNTED, ENCODED = "counted.json", "encoded.json"  # the notes of the two passes
MERGED_AT_ONCE = 8
SMALL = 2 << 20  # events; each takes 24 bytes in memory


@dataclass
class Kept:
    """What one process keeps from one job to the next, instead of reading again what it read or wrote before.

    Attributes:
        maps: the code maps.
        tokenizer: fitted after the first pass.
        events: the translated events of each shard and the splits of its patients (see `_events`), by number.
    """

    maps: tuple[CodeMap, ...]
    tokenizer: Tokenizer | None = None
    events: dict[int, tuple[Events, np.ndarray]] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One shard of a dataset, and where the corpus is being made; `kept` only where one process does a small one."""

    number: int
    shard: Shard
    dataset: Path
    out: Path
    settings: TokenSettings
    maps: tuple[str, ...]
    kept: Kept | None = None

    @property
    def work(self) -> Path:
        """The folder of what is only needed until the corpus is complete."""
        return self.out / WORK

    def file(self, kind: str) -> Path:
        """A file of this shard there."""
        return self.work / f"{self.number:05d}.{kind}"


def tokenize(
    dataset: Path,
    out: Path,
    settings: TokenSettings | None = None,
    maps: tuple[str | Path, ...] = MAPS,
    workers: Workers | None = None,
    *,
    progress: Progress = silent,
) -> dict:
    """Fit a tokenizer and a grammar on training patients of a MEDS dataset; write the corpus of every split into `out`.

    The result is the same, to the byte, for any number and kind of workers. What an earlier run with the same
    arguments left in `out` is used.

    Args:
        maps: code maps, applied in that order (see `sequela.tokens.maps.code_map.load_map`).

    Returns:
        What `corpus.json` says: the vocabulary, what the code maps did, and per split the patients, events, tokens,
        events without a token, and shards.

    Raises:
        InputError: where the dataset is no valid MEDS or has no training patient, or two code maps have one name.
    """
    settings, dataset, out = settings or TokenSettings(), Path(dataset), Path(out)
    shards = shards_of(dataset)
    code_maps = tuple(load_map(source) for source in maps)
    check_names(code_maps)
    (out / WORK).mkdir(exist_ok=True)
    Assignment.write(dataset, out / WORK)
    workers, kept = _enough(workers, shards, code_maps)
    if kept is None:
        save_maps(code_maps, out)
    names = tuple(one.name for one in code_maps)
    jobs = [Job(number, shard, dataset, out, settings, names, kept) for number, shard in enumerate(shards)]

    with worker_pool(workers, len(jobs)) as run_all:
        run_all(count_job, jobs, progress=partial(_stage, progress, 0))
        check_patients_once([np.load(job.file("patients.npy")) for job in jobs], shards)
        if not any(note["train"] for note in _notes(jobs, COUNTED)):
            raise InputError(
                f"{dataset} has no patients in split 'train': check its metadata/subject_splits.parquet."
            )
        tokenizer = Tokenizer.fit(_merged(jobs), settings, code_maps, dated=_dated(dataset))
        if kept is None:
            tokenizer.save(out)
        else:
            kept.tokenizer = tokenizer
        run_all(encode_job, jobs, progress=partial(_stage, progress, 1))
    gaps = np.zeros((len(settings.interval_edges), 2), np.int64)
    for note in _notes(jobs, ENCODED):
        if TRAIN in note:
            gaps += np.array(note[TRAIN]["gaps"], np.int64)
    tokenizer = tokenizer.timed(gaps)
    tokenizer.save(out)
    trained = (note[TRAIN]["shard"]["shard"] for note in _notes(jobs, ENCODED) if TRAIN in note)
    Grammar.fit(tokenizer, (rows_of(out / TRAIN, shard) for shard in trained)).save(out)
    about = {
        "vocabulary": tokenizer.vocabulary.hash,
        "tokens_in_vocabulary": len(tokenizer.vocabulary),
        "maps": _map_account(jobs, code_maps),
        "patients_without_split": sum(note["without_split"] for note in _notes(jobs, COUNTED)),
        "splits": {split: _of_split(jobs, split) for split in SPLITS},
    }
    (out / FILE).write_text(json.dumps(about, indent=1))
    shutil.rmtree(out / WORK)
    return about


def fit(
    columns: Events,
    settings: TokenSettings | None = None,
    maps: tuple[CodeMap, ...] = (),
    *,
    dated: bool = True,
) -> Tokenizer:
    """A tokenizer fitted on the events of training patients in memory, as `tokenize` fits one on shards.

    Raises:
        InputError: see `Tokenizer.fit`.
    """
    settings = settings or TokenSettings()
    bare = Tokenizer.fit(Statistics.of(recoded(columns, maps), settings), settings, maps, dated=dated)
    return bare.timed(encode(bare, columns).gaps)


def _stage(progress: Progress, number: int, done: float, total: float, **facts: object) -> None:
    progress(done + number * total, 2 * total, stage=("count", "encode")[number], **facts)


def _enough(
    workers: Workers | None, shards: list[Shard], maps: tuple[CodeMap, ...]
) -> tuple[Workers, Kept | None]:
    """One process for a small dataset, unless somebody asked for more: starting others would take longer."""
    workers = workers or Workers()
    small = workers.executor == "local" and sum(shard.rows for shard in shards) < SMALL
    if small and workers.processes < 2:
        return replace(workers, processes=1), Kept(maps)
    return workers, None


def _merged(jobs: list[Job]) -> Statistics:
    """The counts over all shards; a few at once, so that memory does not grow with their number."""
    merged: list[Statistics] = []
    for job in jobs:
        merged.append(Statistics.load(job.file("counts.npz")))
        if len(merged) == MERGED_AT_ONCE:
            merged = [Statistics.merge(merged)]
    return Statistics.merge(merged)


def _dated(dataset: Path) -> bool:
    """Whether dates are real; a dataset whose dates are shifted or made up says `"real_dates": false`."""
    path = dataset / FACTS_FILE
    return not path.exists() or json.loads(path.read_text()).get("real_dates", True) is not False


def count_job(job: Job) -> None:
    """The first pass over one shard."""
    if job.file(COUNTED).exists():
        return
    columns, split = _read(job)
    np.save(job.file("patients.npy"), columns.patient[columns.starts])
    maps = job.kept.maps if job.kept else load_maps(job.maps, job.out)
    reached = frozenset().union(*(one.systems for one in maps))
    times = np.bincount(columns.code, minlength=len(columns.names))
    events = recoded(columns, maps)
    train = _of(events, split, SPLITS.index(TRAIN))
    Statistics.of(train, job.settings).save(job.file("counts.npz"))
    if job.kept:
        job.kept.events[job.number] = events, split
    facts = {
        "train": int((split == SPLITS.index(TRAIN)).sum()),
        "without_split": int((split == NONE).sum()),
        "mapped": {
            name: int(count)
            for name, count in zip(columns.names, times, strict=True)
            if count and name.partition("//")[0].upper() in reached
        },
    }
    _leave_note(job.file(COUNTED), facts)


def encode_job(job: Job) -> None:
    """The second pass over one shard."""
    if job.file(ENCODED).exists():
        return
    tokenizer = job.kept.tokenizer if job.kept else _tokenizer(job.out)
    events, split = _events(job, tokenizer)
    facts = {}
    for number in np.flatnonzero(np.bincount(split, minlength=NONE)[:NONE]):
        encoded = encode(tokenizer, _of(events, split, number), translated=True)
        name = SPLITS[number]
        written = write_shard(encoded, job.out / name, f"{job.number:05d}")
        facts[name] = {"shard": written, "dropped": encoded.dropped, "gaps": encoded.gaps.tolist()}
    _leave_note(job.file(ENCODED), facts)


def _leave_note(note: Path, facts: dict) -> None:
    """Say that this shard is done, whole or not at all."""
    unfinished = note.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(facts))
    unfinished.rename(note)


def _notes(jobs: list[Job], kind: str) -> Iterator[dict]:
    """What each shard left, one at a time: all of them together would grow with the data."""
    return (json.loads(job.file(kind).read_text()) for job in jobs)


def _read(job: Job) -> tuple[Events, np.ndarray]:
    """The events of a shard, and the row in `SPLITS` of each of its patients."""
    columns = read_shard(job.shard, payload=False)
    patients = columns.patient[columns.starts]
    assigned = Assignment.open(job.work)
    if assigned is not None:
        return columns, assigned.of(patients)
    return columns, np.full(len(patients), split_of_folder(job.shard, job.dataset), np.uint8)


def _events(job: Job, tokenizer: Tokenizer) -> tuple[Events, np.ndarray]:
    """The translated events of a shard, and the row in `SPLITS` of each of its patients."""
    if job.kept and job.number in job.kept.events:
        return job.kept.events.pop(job.number)
    columns, split = _read(job)
    return tokenizer.translated(columns), split


def _of(columns: Events, split: np.ndarray, number: int) -> Events:
    """The events of the patients of one split."""
    own = split == number
    if own.all():
        return columns
    return columns.take(np.repeat(own, np.diff(np.append(columns.starts, len(columns)))))


def _tokenizer(out: Path) -> Tokenizer:
    return _tokenizer_at(out, (out / VOCABULARY).stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _tokenizer_at(out: Path, _written: int) -> Tokenizer:
    return Tokenizer.load(out)


def _map_account(jobs: list[Job], maps: tuple[CodeMap, ...]) -> dict:
    """What the maps did to the events of all patients (see `sequela.tokens.maps.code_map.translate`)."""
    reached: Counter[str] = Counter()
    for note in _notes(jobs, COUNTED):
        reached.update(note["mapped"])
    names = sorted(reached)
    return translate(names, maps, [reached[name] for name in names])[1]


def _of_split(jobs: list[Job], split: str) -> dict:
    dropped: Counter[str] = Counter()
    shards = []
    for note in _notes(jobs, ENCODED):
        if split in note:
            dropped.update(note[split]["dropped"])
            shards.append(note[split]["shard"])
    total = {key: sum(shard[key] for shard in shards) for key in ("patients", "events", "tokens")}
    return {**total, "dropped_events": dict(sorted(dropped.items())), "shards": shards}
