"""From histories and prediction times to imagined timelines on disk, part by part.

A part is some patients of one shard. It is made by one process, whole or not at all, and comes out the same wherever it
is made; so a simulation that was cut short goes on, and machines share one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
import torch

from sequela.errors import InputError
from sequela.model import checkpoint, precision
from sequela.progress import Progress, silent
from sequela.record.edit import NO_EDITS, Edits
from sequela.record.shards import Shard, patients_of, read_frame, shards_of
from sequela.record.splits import check_patients_once
from sequela.rollout.budget import AdaptiveBudget, FixedBudget, RolloutBudget
from sequela.rollout.edits import changed, refuse_unknown, survey
from sequela.rollout.engine.engine import Engine, Rollouts
from sequela.rollout.engine.processes import Lanes
from sequela.rollout.engine.queue import Prompts
from sequela.rollout.engine.vllm import VllmEngine, vllm_sampler
from sequela.rollout.folder import (
    SUMMARY,
    events_of,
    join_parts,
    part_folder,
    table_of,
    write_part,
    write_questions,
)  # fmt: skip
from sequela.rollout.outcomes import stop_of, watch_of
from sequela.rollout.prompts import prompts_of
from sequela.rollout.request import Request
from sequela.rollout.settings import NO_AVOIDING, SimulateSettings
from sequela.rollout.tracker import REASONS
from sequela.tokens.ehr.grammar.fit import load_grammar
from sequela.tokens.ehr.grammar.grammar import Grammar
from sequela.tokens.ehr.tokenizer import EhrTokenizer
from sequela.tokens.maps.recode import save_maps
from sequela.tokens.packing import newest
from sequela.workers import Workers, run

SHORTEST = 32  # tokens of context: room for demographics, the latest events, and some of the future
QUESTIONS = (128, 4096)  # in a part: at least, where its shard has as many, and at most
LEAST = 4096  # rollouts in a part that one machine makes alone: the last ones are computed a few at a time
WORTH_A_PROCESS = 250  # rollouts: with fewer, a process is not worth its start
PARTS = 64  # of a cohort, about, before parts grow
PILOT = 8  # rollouts of each half, with auto
TARGET_ERROR = 0.02  # of auto, where nothing else is asked


class Crew(Protocol):
    """The processes that share a simulation, seen from one of them."""

    @property
    def rank(self) -> int:
        """This one's number; 0 leads."""
        ...

    @property
    def size(self) -> int:
        """How many there are."""
        ...

    def gather(self, own: Any) -> list:
        """What every process says; also the place where all wait for each other."""
        ...


@dataclass(frozen=True)
class Job:
    """Part `number` of `count`. `requests` ask about its own patients only, who are all of `shard`."""

    model: Path
    out: Path
    number: int
    count: int
    shard: Shard
    requests: tuple[Request, ...]
    settings: SimulateSettings
    edits: Edits = NO_EDITS

    @property
    def folder(self) -> Path:
        """Where it lies once it is whole."""
        return part_folder(self.out, self.number, self.count)

    @property
    def times(self) -> pl.DataFrame:
        """Every question once, sorted."""
        return _times(self.requests)


def simulate(
    model: Path,
    meds: Path,
    out: Path,
    requests: Sequence[Request],
    settings: SimulateSettings | None = None,
    *,
    edits: Edits = NO_EDITS,
    workers: Workers | None = None,
    crew: Crew | None = None,
    progress: Progress = silent,
) -> dict:
    """Simulate the futures of every (patient, prediction time) of the requests.

    Writes `data/<rollout>.parquet` (imagined events, see `sequela.rollout.folder`), `rollouts.parquet` (one row a
    rollout), `simulate.json`, and copies of the code maps that the model was trained with: imagined events are in the
    codes that they lead to. Futures that avoid an outcome lie in `avoiding/<request>`. Only events strictly before the
    prediction time enter a history. Parts that are in `out` already are kept.

    Args:
        edits: made to every history first. The table then has a column `changed`, whether the model reads another
            history for it; `simulate.json` says how many, and in how many each edit found something to do.
        workers: local: how many processes of this machine compute (see `engine.processes`); without a number, or None,
            one for each of PyTorch's threads if there are rollouts enough to be worth it. With a GPU or vLLM it
            is this process in any case. ray: where parts are made.
        crew: the processes that share the parts; rank 0 puts them together.

    Raises:
        InputError: when no history has a token, or a code of a request has none, or an edit cannot be made.
    """
    settings = settings or SimulateSettings()
    tokenizer, grammar = _check(model, settings)
    if settings.backend == "vllm" and avoids(settings, requests):
        raise InputError(f"{NO_AVOIDING}.")
    watch_of(tokenizer, grammar, list(requests))
    refuse_unknown(tokenizer, edits)
    about = survey(tokenizer, meds, _times(requests), edits) if edits else None
    here = crew is None and (workers is None or workers.executor == "local")
    jobs = [
        replace(job, edits=edits) for job in _jobs(model, meds, out, requests, settings, LEAST if here else 0)
    ]
    own = jobs if crew is None else jobs[crew.rank :: crew.size]
    if workers is not None and workers.executor != "local":
        run(make_part, own, workers, progress=progress)
    else:
        questions = [len(job.times) for job in own]
        turns = _Turns(progress, sum(questions))
        with _several(own, workers.processes if workers else 0) as lanes:
            for job, many in zip(own, questions, strict=True):
                make_part(job, lanes=lanes, progress=turns.next(many))
    if crew is not None:
        crew.gather(None)
        if crew.rank:
            return {}
    return _finished(out, tokenizer, settings, requests, join_parts(out, len(jobs)), about)


def _several(jobs: Sequence[Job], asked: int) -> AbstractContextManager[Lanes | None]:
    """So many processes to compute, 0: as many as are worth it; None: this one computes."""
    left = [job for job in jobs if not job.folder.exists()]
    rollouts = sum(len(job.times) * job.settings.rollouts for job in left)
    many = asked or min(torch.get_num_threads(), rollouts // WORTH_A_PROCESS)
    if not left or many < 2 or torch.cuda.is_available() or left[0].settings.backend != "own":
        return nullcontext()
    model, settings = left[0].model, left[0].settings
    return Lanes(partial(_own_engine, model, settings.precision, settings.well_formed), many)


def _times(requests: Sequence[Request]) -> pl.DataFrame:
    return pl.concat([one.times for one in requests]).unique().sort("subject_id", "prediction_time")


def _check(model: Path, settings: SimulateSettings) -> tuple[EhrTokenizer, Grammar]:
    """What can be refused before anything is computed."""
    config, tokenizer = checkpoint.ModelConfig.load(model), EhrTokenizer.load(model)
    if config.vocabulary != tokenizer.vocabulary.hash:
        raise InputError(
            f"{model}: config.json and vocabulary.json belong to different runs (vocabulary "
            f"{config.vocabulary or 'unknown'} and {tokenizer.vocabulary.hash}): copy the right file, "
            "or train again."
        )
    if tokenizer.settings.time != "intervals":
        raise InputError(
            f"{model} was trained with time told by position, so it cannot imagine when something happens: "
            "train a model on a corpus made with --time intervals."
        )
    if config.context < SHORTEST:
        raise InputError(
            f"{model} has a context of {config.context} tokens, too few for a history and its future: train with a "
            f"--context of {SHORTEST} or more."
        )
    return tokenizer, load_grammar(model, tokenizer)


def _jobs(
    model: Path, meds: Path, out: Path, requests: Sequence[Request], settings: SimulateSettings, rollouts: int
) -> list[Job]:
    """The parts: patients of one shard each, in the order of shards and patients; of so many rollouts or more."""
    everyone = np.unique(np.concatenate([one.times["subject_id"].to_numpy() for one in requests]))
    least, most = QUESTIONS
    size = int(np.clip(len(everyone) // PARTS, max(least, min(rollouts // settings.rollouts, most)), most))
    shards = shards_of(meds)
    there = [patients_of(shard) for shard in shards]
    check_patients_once(there, shards)
    jobs: list[Job] = []
    for shard, patients in zip(shards, there, strict=True):
        here = np.intersect1d(patients, everyone, assume_unique=True)
        for some in np.array_split(here, -(-len(here) // size)) if len(here) else []:
            own = pl.Series(some).implode()
            asked = tuple(
                replace(one, times=one.times.filter(pl.col("subject_id").is_in(own))) for one in requests
            )
            jobs.append(Job(Path(model), Path(out), len(jobs), 0, shard, asked, settings))
    return [replace(job, count=len(jobs)) for job in jobs]


def _version(model: Path) -> tuple[tuple[str, int], ...]:
    """What is read once for the parts of a process is read anew where another model is in the folder."""
    return tuple((path.name, path.stat().st_mtime_ns) for path in sorted(model.iterdir()))


@lru_cache(maxsize=1)
def _words(model: Path, version: tuple) -> tuple[EhrTokenizer, Grammar]:
    tokenizer = EhrTokenizer.load(model)
    return tokenizer, load_grammar(model, tokenizer)


@lru_cache(maxsize=1)
def _engine(model: Path, version: tuple, asked: str, well_formed: bool, backend: str) -> Engine | VllmEngine:
    engine = _own_engine(model, asked, well_formed)
    if backend == "vllm":
        return VllmEngine(engine, vllm_sampler(model, engine.precision, engine.model.config.context))
    return engine


def _own_engine(model: Path, asked: str, well_formed: bool) -> Engine:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    decoder, (tokenizer, grammar) = checkpoint.load(model, device), _words(model, _version(model))
    return Engine(
        decoder,
        tokenizer.minutes_V,
        grammar=grammar,
        well_formed=well_formed,
        cut=lambda ids, length: newest(ids, tokenizer.head, tokenizer.carried, length),
        precision=precision.choose(asked, device, decoder.config.hidden_size),
    )


def make_part(job: Job, *, lanes: Lanes | None = None, progress: Progress = silent) -> None:
    """Simulate the patients of one part and write it, unless it is there. `lanes` compute, or this process."""
    if job.folder.exists():
        return
    settings, requests, version = job.settings, list(job.requests), _version(job.model)
    tokenizer, grammar = _words(job.model, version)
    engine = None  # of this process, which needs none if others compute
    if lanes is None or job.edits:
        engine = _engine(job.model, version, settings.precision, settings.well_formed, settings.backend)
    events = read_frame(job.shard).filter(pl.col("subject_id").is_in(job.times["subject_id"].implode()))
    times, prompts = prompts_of(tokenizer, grammar, events, job.times, settings.seed, job.edits)
    facts: dict = {"histories": len(times), "without_history": len(job.times) - len(times)}
    marks = []
    if job.edits:
        as_recorded = prompts_of(tokenizer, grammar, events, job.times, settings.seed)
        own = changed(times, prompts, *as_recorded, lambda ids: engine.window(ids, settings.limit))
        marks, facts["changed"] = [times.with_columns(changed=pl.Series(own))], int(own.sum())
    pools = []
    asked_for = pools_of(settings, requests)
    turns = _Turns(progress, len(times))
    for avoids, some in asked_for:
        watch, asking = watch_of(tokenizer, grammar, some), replace(prompts, asked=_asked(times, some))
        rollouts = (lanes or engine).extend(
            asking, _plan(settings, requests, some, asking.asked), stop_of(tokenizer, watch, settings.limit), watch,
            temperature=settings.temperature, avoid=avoids is not None, rows=settings.rows,
            progress=turns.next(len(times) / len(asked_for)),
        )  # fmt: skip
        scored = {one.name: k for k, one in enumerate(some) if one.counted != "none"}
        table = table_of(times, asking, rollouts, scored, avoids)
        for mark in marks:
            table = table.join(mark, on=times.columns, maintain_order="left")
        pools.append((avoids, events_of(tokenizer, times, prompts, rollouts), table))
        facts[avoids or ""] = _grammar_facts(grammar, rollouts, prompts)
    write_part(job.folder, pools, facts)


def pools_of(settings: SimulateSettings, requests: list[Request]) -> list[tuple[str | None, list[Request]]]:
    """Which futures are made: what each pool avoids (None: nothing), and the requests that it serves."""
    seen = [one for one in requests if one.counted == "first"]
    if not avoids(settings, requests):
        return [(None, requests)]
    rest = [one for one in requests if one.counted != "first"]
    return [*([(None, rest)] if rest else []), *((one.name, [one]) for one in seen)]


def avoids(settings: SimulateSettings, requests: Sequence[Request]) -> bool:
    """Whether futures without the outcome are made for each task. AdaptiveBudget does where there is one task alone."""
    return settings.estimator == "reach" or (settings.estimator == "auto" and len(requests) == 1)


def auto(settings: SimulateSettings, requests: Sequence[Request]) -> AdaptiveBudget | None:
    """How rollouts are spent where they matter; None where each question gets as many."""
    if settings.estimator != "auto" or not any(one.counted == "first" for one in requests):
        return None
    target = settings.target_error
    if target is None and settings.threshold is None:
        target = TARGET_ERROR
    return AdaptiveBudget(
        "reach" if avoids(settings, requests) else "scope", target, settings.threshold,
        pilot=min(PILOT, settings.rollouts // 2), cap=settings.rollouts,
    )  # fmt: skip


def _asked(times: pl.DataFrame, requests: list[Request]) -> np.ndarray:
    """Which of K requests ask each of P questions, bool [P, K]."""
    key = list(times.columns)
    return np.stack(
        [
            times.join(
                one.times.select(key).with_columns(asked=True), on=key, how="left", maintain_order="left"
            )["asked"]
            .fill_null(False)
            .to_numpy()
            for one in requests
        ],
        1,
    )


def _plan(
    settings: SimulateSettings, everything: Sequence[Request], served: list[Request], asked: np.ndarray
) -> RolloutBudget:
    plan = auto(settings, everything)
    judged = np.array([plan is not None and one.counted == "first" for one in served])
    return _ForAsked(FixedBudget(settings.rollouts), plan, asked, asked & judged)


@dataclass(frozen=True)
class _ForAsked:
    """Rollouts for the questions that are asked, as many as the scores want that are to be judged.

    `asked`, `judged`: bool [P, K]. A question of which nothing is judged gets those of `otherwise`.
    """

    otherwise: RolloutBudget
    plan: RolloutBudget | None
    asked: np.ndarray
    judged: np.ndarray

    def more(self, question: int, numbers: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """As the plan says."""
        if not self.asked[question].any():
            return numbers[:0]
        judged = self.judged[question]
        if self.plan is None or not judged.any():
            return self.otherwise.more(question, numbers, scores)
        return self.plan.more(question, numbers, scores[:, judged] if len(numbers) else scores)

    def weights(self, scores_QN: np.ndarray) -> np.ndarray:
        """As the plan says."""
        return (self.plan or self.otherwise).weights(scores_QN)


def _grammar_facts(grammar: Grammar, rollouts: Rollouts, prompts: Prompts) -> dict:
    """How well-formed the futures are, in sums that add up over parts."""
    node = np.zeros(len(rollouts.number), np.int64)
    invalid, several = grammar.invalid_multi_token(rollouts.tokens, node)
    faults = grammar.faults(rollouts.tokens, node, prompts.bits[rollouts.prompt])
    return {
        "rollouts": len(rollouts.number),
        "tokens": len(rollouts.tokens.flat),
        "reasons": {name: int((rollouts.reason == one).sum()) for one, name in enumerate(REASONS)},
        "windows": int(rollouts.windows.sum()),
        "events_of_several_tokens": several,
        "invalid_events_of_several_tokens": invalid,
        "tokens_that_break_the_grammar": int(faults.sum()),
        "probability_removed": float(rollouts.removed.sum()),
    }


def _finished(
    out: Path,
    tokenizer: EhrTokenizer,
    settings: SimulateSettings,
    requests: Sequence[Request],
    parts: list[dict],
    about_edits: dict[str, int] | None,
) -> dict:
    """Write `simulate.json` from what the parts say."""
    histories, without = (sum(part[name] for part in parts) for name in ("histories", "without_history"))
    if not histories:
        raise InputError(
            "No history has an event before its prediction time: check the task and the dataset."
        )
    names = [name for name in parts[0] if isinstance(parts[0][name], dict)]
    pools = {name: _summed([part[name] for part in parts]) for name in names}
    whole, plan = _summed(list(pools.values())), auto(settings, requests)
    summary = {
        "settings": asdict(settings),
        "vocabulary": tokenizer.vocabulary.hash,
        "maps": save_maps(tokenizer.maps, out),
        "plan": None if plan is None else asdict(plan),
        "histories": histories,
        "without_history": without,
        **_per_token(whole),
        "avoiding": {name: _per_token(pools[name]) for name in pools if name},
    }
    if about_edits is not None:
        summary |= {"edits": about_edits, "changed": sum(part["changed"] for part in parts)}
    write_questions(out, requests)
    (out / SUMMARY).write_text(json.dumps(summary, indent=1))
    return summary


def _per_token(facts: dict) -> dict:
    """The probability that was removed is a bias, if a small one: the model as it is would have gone there."""
    return {**facts, "probability_removed": facts["probability_removed"] / max(facts["tokens"], 1)}


def _summed(facts: list[dict]) -> dict:
    return {
        key: _summed([one[key] for one in facts])
        if isinstance(value, dict)
        else sum(one[key] for one in facts)
        for key, value in facts[0].items()
    }


class _Turns:
    """Progress of one thing after another as that of the whole, of so many questions: they add up, and so do tokens."""

    def __init__(self, progress: Progress, total: float):
        self.progress, self.total = progress, total
        self.before, self.tokens, self.now = 0.0, 0, (0.0, 0)

    def next(self, questions: float) -> Progress:
        """Of the next one, so many of the questions."""
        self.before, self.tokens = self.before + self.now[0], self.tokens + self.now[1]
        self.now = (questions, 0)

        def report(done: float, total: float, *, tokens: int = 0, **facts: object) -> None:
            self.now = (questions, tokens)
            share = questions * done / total if total else 0
            self.progress(self.before + share, self.total, tokens=self.tokens + tokens, **facts)

        return report
