"""A MEDS dataset to a corpus, in two passes over its shards: count, then encode.

Each pass writes the results of a shard as files and, last, a note that the shard is done; a run that continues an
interrupted one skips shards with a note. Memory does not grow with the number of patients, except for their ids: some
twenty bytes each, briefly. A small dataset is processed by one process, which keeps in memory what it would otherwise
write and read again.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from sequela.progress import Progress, silent
from sequela.record.events import Events
from sequela.record.finding import FINDINGS, as_values
from sequela.record.follow_up import follow_up, follow_up_findings
from sequela.record.schema import FACTS_FILE, SPLITS, TRAIN
from sequela.record.shards import Shard, read_shard, shards_of
from sequela.record.spelling import spelled
from sequela.record.splits import NONE, Assignment, check_patients_once, no_training_patients, split_of_folder
from sequela.tokens.corpus import rows_of, split_summary, write_index, write_shard
from sequela.tokens.ehr.clock import FAR, MAX_AGE
from sequela.tokens.ehr.encode import encode
from sequela.tokens.ehr.findings import findings_of, persons
from sequela.tokens.ehr.fit import fit_statistics, years_of_data
from sequela.tokens.ehr.gaps import GapCounts
from sequela.tokens.ehr.grammar.fit import fit_grammar
from sequela.tokens.ehr.settings import MAPS, TokenSettings
from sequela.tokens.ehr.statistics import CodeStatistics, extremes
from sequela.tokens.ehr.tokenizer import EhrTokenizer
from sequela.tokens.maps.code_map import CodeMap, check_names, load_map, translate
from sequela.tokens.maps.recode import load_maps, recoded, save_maps
from sequela.tokens.vocabulary import FILE as VOCABULARY
from sequela.workers import Workers, worker_pool

WORK = "work"
COUNTED, ENCODED = "counted.json", "encoded.json"  # the notes of the two passes
COUNTS, GAPS = "counts.npz", "gaps.npz"
MERGED_AT_ONCE = 8
Counts = TypeVar("Counts", CodeStatistics, GapCounts)
SMALL = 2 << 20  # events; each takes 24 bytes in memory


@dataclass
class ShardCache:
    """What a single process keeps in memory from one pass to the next.

    Attributes:
        maps: the code maps.
        tokenizer: fitted after the first pass.
        events: by shard number, its translated events and the splits of its patients (see `_events`).
    """

    maps: tuple[CodeMap, ...]
    tokenizer: EhrTokenizer | None = None
    events: dict[int, tuple[Events, np.ndarray]] = field(default_factory=dict)


@dataclass(frozen=True)
class ShardJob:
    """One shard of a dataset, and where its corpus is written; `cache` only if one process does a small dataset."""

    number: int
    shard: Shard
    dataset: Path
    out: Path
    settings: TokenSettings
    maps: tuple[str, ...]
    cache: ShardCache | None = None

    @property
    def work(self) -> Path:
        """The folder of files that are needed only until the corpus is complete."""
        return self.out / WORK

    def file(self, name: str) -> Path:
        """A file of this shard in `work`."""
        return self.work / f"{self.number:05d}.{name}"


def tokenize(
    dataset: Path,
    out: Path,
    settings: TokenSettings | None = None,
    maps: tuple[str | Path, ...] = MAPS,
    workers: Workers | None = None,
    *,
    progress: Progress = silent,
) -> dict:
    """Fit a tokenizer and a grammar on the training patients of a MEDS dataset; write the corpus of every split.

    The result is the same, to the byte, for any number and kind of workers. Whatever an earlier run with the same
    arguments left in `out` is reused.

    Args:
        maps: code maps, applied in this order (see `sequela.tokens.maps.code_map.load_map`).

    Returns:
        The contents of `corpus.json`: the vocabulary, what the code maps did, the years of the data and how many
        patients have dates far from them, and for each split the patients, events,
        tokens, events without a token, and shards.

    Raises:
        InputError: if the dataset is no valid MEDS or has no training patient, or two code maps have the same name.
    """
    settings, dataset, out = settings or TokenSettings(), Path(dataset), Path(out)
    shards = shards_of(dataset)
    code_maps = tuple(load_map(source) for source in maps)
    check_names(code_maps)
    (out / WORK).mkdir(exist_ok=True)
    Assignment.write(dataset, out / WORK)
    workers, cache = _sized(workers, shards, code_maps)
    if cache is None:
        save_maps(code_maps, out)
    names = tuple(code_map.name for code_map in code_maps)
    jobs = [
        ShardJob(number, shard, dataset, out, settings, names, cache) for number, shard in enumerate(shards)
    ]

    with worker_pool(workers, len(jobs)) as run_all:
        run_all(count_job, jobs, progress=partial(_stage, progress, 0))
        check_patients_once([np.load(job.file("patients.npy")) for job in jobs], shards)
        if not any(note["train"] for note in _notes(jobs, COUNTED)):
            raise no_training_patients(dataset)
        statistics = _merged((job.file(COUNTS) for job in jobs), CodeStatistics)
        tokenizer = fit_statistics(statistics, settings, code_maps, dated=_dated(dataset))
        if cache is None:
            tokenizer.save(out)
        else:
            cache.tokenizer = tokenizer
        run_all(encode_job, jobs, progress=partial(_stage, progress, 1))
    index = _finish(jobs, tokenizer, out, years_of_data(statistics, settings))
    shutil.rmtree(out / WORK)
    return index


def _finish(jobs: list[ShardJob], tokenizer: EhrTokenizer, out: Path, years: tuple[int, int] | None) -> dict:
    """Everything that takes all shards: intervals, grammar, `corpus.json`; returns what the last says."""
    counted = (job.file(GAPS) for job in jobs)
    tokenizer = tokenizer.timed(_merged((path for path in counted if path.exists()), GapCounts))
    tokenizer.save(out)
    trained = (note[TRAIN]["shard"]["shard"] for note in _notes(jobs, ENCODED) if TRAIN in note)
    fit_grammar(tokenizer, (rows_of(out / TRAIN, shard) for shard in trained)).save(out)
    splits = {split: _summary(jobs, split) for split in SPLITS}
    account = {
        "maps": _map_account(jobs, tokenizer.maps),
        "patients_without_split": sum(note["without_split"] for note in _notes(jobs, COUNTED)),
        "years": years,
        "patients_with_far_dates": _far(jobs, years),
    }
    counts: Counter[str] = Counter()
    followed: Counter[str] = Counter()
    for note in _notes(jobs, COUNTED):
        counts.update(note["persons"])
        followed.update(note["follow_up"])
    findings = findings_of({**account, "splits": splits}, counts, tokenizer.settings, tokenizer.maps)
    findings += follow_up_findings(followed, "training patients")
    return write_index(out, tokenizer.vocabulary, splits, **account, **{FINDINGS: as_values(findings)})


def _far(jobs: list[ShardJob], years: tuple[int, int] | None) -> int:
    """How many patients have a date that stands apart from the years of the data; ends of follow-up count too."""
    if years is None:
        return 0
    far = 0
    for note in _notes(jobs, COUNTED):
        far += sum(count for year, count in note["first_years"].items() if int(year) < years[0] - MAX_AGE)
        far += sum(count for year, count in note["last_years"].items() if int(year) > years[1] + FAR)
    return far


def _stage(progress: Progress, number: int, done: float, total: float, **figures: object) -> None:
    progress(done + number * total, 2 * total, stage=("count", "encode")[number], **figures)


def _sized(
    workers: Workers | None, shards: list[Shard], maps: tuple[CodeMap, ...]
) -> tuple[Workers, ShardCache | None]:
    """One process for a small dataset, unless more were asked for: starting others would take longer."""
    workers = workers or Workers()
    small = workers.executor == "local" and sum(shard.rows for shard in shards) < SMALL
    if small and workers.processes < 2:
        return replace(workers, processes=1), ShardCache(maps)
    return workers, None


def _merged(paths: Iterable[Path], counts: type[Counts]) -> Counts:
    """The counts over all shards, merged a few at a time, so that memory does not grow with their number."""
    merged: list[Counts] = []
    for path in paths:
        merged.append(counts.load(path))
        if len(merged) == MERGED_AT_ONCE:
            merged = [counts.merge(merged)]
    return counts.merge(merged)


def _dated(dataset: Path) -> bool:
    """Whether dates are real; a dataset whose dates are shifted or made up says `"real_dates": false`."""
    path = dataset / FACTS_FILE
    return not path.exists() or json.loads(path.read_text(encoding="utf-8")).get("real_dates", True) is not False


def count_job(job: ShardJob) -> None:
    """The first pass over one shard: count what the vocabulary is fitted on."""
    if job.file(COUNTED).exists():
        return
    columns, split = _read(job)
    np.save(job.file("patients.npy"), columns.patient[columns.starts])
    maps = job.cache.maps if job.cache else load_maps(job.maps, job.out)
    reached = frozenset().union(*(code_map.systems for code_map in maps))
    times = np.bincount(columns.code, minlength=len(columns.names))
    events = recoded(columns, maps)
    train = _of(events, split, SPLITS.index(TRAIN))
    CodeStatistics.of(train, job.settings).save(job.file(COUNTS))
    if job.cache:
        job.cache.events[job.number] = events, split
    first, last = extremes(columns)
    note = {
        "train": int((split == SPLITS.index(TRAIN)).sum()),
        "without_split": int((split == NONE).sum()),
        "persons": persons(events),
        "follow_up": follow_up(train),
        "first_years": first,
        "last_years": last,
        "mapped": {
            name: int(count)
            for name, count in zip(columns.names, times, strict=True)
            if count and spelled(name).partition("/")[0].upper() in reached
        },
    }
    _leave_note(job.file(COUNTED), note)


def encode_job(job: ShardJob) -> None:
    """The second pass over one shard: write its token rows, split by split."""
    if job.file(ENCODED).exists():
        return
    tokenizer = job.cache.tokenizer if job.cache else _tokenizer(job.out)
    events, split = _events(job, tokenizer)
    note = {}
    for number in np.flatnonzero(np.bincount(split, minlength=NONE)[:NONE]):
        encoded = encode(tokenizer, _of(events, split, number), translated=True)
        name = SPLITS[number]
        written = write_shard(encoded, job.out / name, f"{job.number:05d}")
        note[name] = {"shard": written, "dropped": encoded.dropped}
        if name == TRAIN:
            encoded.gaps.save(job.file(GAPS))
    _leave_note(job.file(ENCODED), note)


def _leave_note(path: Path, note: dict) -> None:
    """Record that this shard is done, whole or not at all."""
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(note), encoding="utf-8")
    unfinished.rename(path)


def _notes(jobs: list[ShardJob], name: str) -> Iterator[dict]:
    """The note of each shard, one at a time: all of them together would grow with the data."""
    return (json.loads(job.file(name).read_text(encoding="utf-8")) for job in jobs)


def _read(job: ShardJob) -> tuple[Events, np.ndarray]:
    """The events of a shard, and for each of its patients the row in `SPLITS`."""
    columns = read_shard(job.shard, payload=False)
    patients = columns.patient[columns.starts]
    assigned = Assignment.open(job.work)
    if assigned is not None:
        return columns, assigned.of(patients)
    return columns, np.full(len(patients), split_of_folder(job.shard, job.dataset), np.uint8)


def _events(job: ShardJob, tokenizer: EhrTokenizer) -> tuple[Events, np.ndarray]:
    """The translated events of a shard, and for each of its patients the row in `SPLITS`."""
    if job.cache and job.number in job.cache.events:
        return job.cache.events.pop(job.number)
    columns, split = _read(job)
    return tokenizer.translated(columns), split


def _of(columns: Events, split: np.ndarray, number: int) -> Events:
    """The events of the patients of one split."""
    mask = split == number
    if mask.all():
        return columns
    return columns.take(np.repeat(mask, np.diff(np.append(columns.starts, len(columns)))))


def _tokenizer(out: Path) -> EhrTokenizer:
    return _tokenizer_at(out, (out / VOCABULARY).stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _tokenizer_at(out: Path, _written: int) -> EhrTokenizer:
    return EhrTokenizer.load(out)


def _map_account(jobs: list[ShardJob], maps: tuple[CodeMap, ...]) -> dict:
    """What the maps did to the events of all patients (see `sequela.tokens.maps.code_map.translate`)."""
    reached: Counter[str] = Counter()
    for note in _notes(jobs, COUNTED):
        reached.update(note["mapped"])
    names = sorted(reached)
    return translate(names, maps, [reached[name] for name in names])[1]


def _summary(jobs: list[ShardJob], split: str) -> dict:
    """The entry of a split in `corpus.json`."""
    dropped: Counter[str] = Counter()
    shards = []
    for note in _notes(jobs, ENCODED):
        if split in note:
            dropped.update(note[split]["dropped"])
            shards.append(note[split]["shard"])
    return split_summary(shards, dropped)
