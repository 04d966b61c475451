"""Simulates a cohort: cuts it into parts, makes each of them, and joins them into one folder.

A part is a few patients of one shard. One process makes it, whole or not at all, and it comes out the same wherever it
is made; so a simulation that was cut short goes on, and machines share one.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl
import torch

from sequela.errors import InputError
from sequela.model.checkpoint import weights_hash
from sequela.progress import Progress, silent
from sequela.record.edit import NO_EDITS, Edits
from sequela.record.shards import Shard, patients_of, read_frame, shards_of
from sequela.record.splits import check_patients_once
from sequela.rollout.edits import refuse_unknown, survey
from sequela.rollout.engine.processes import EngineProcesses
from sequela.rollout.engine.rollouts import REASONS
from sequela.rollout.folder import join_parts, part_folder, write_part, write_questions, write_summary
from sequela.rollout.forecast import (
    Forecast,
    LoadedModel,
    ProgressOfParts,
    RolloutPool,
    forecast,
    knows_last_moments,
    load,
    load_words,
    make_engine,
    questions_in,
    refuse_head,
)
from sequela.rollout.outcomes import watched_outcomes
from sequela.rollout.pools import adaptive_budget, avoids
from sequela.rollout.request import Request
from sequela.rollout.settings import CONTROLLED, NO_AVOIDING, RULES, SimulateSettings
from sequela.rollout.values.control import latest
from sequela.tokens.ehr.grammar.grammar import Grammar
from sequela.tokens.maps.recode import save_maps
from sequela.workers import Workers, run

PATIENTS = (128, 4096)  # in a part: at least, if its shard has as many, and at most
LEAST = 4096  # rollouts in a part that one machine makes alone: the last ones are computed a few at a time
WORTH_A_PROCESS = 250  # rollouts: for fewer, a process is not worth its start
PARTS = 64  # of a cohort, about, before parts grow


class Ranks(Protocol):
    """The processes that share a simulation, seen from one of them."""

    @property
    def rank(self) -> int:
        """The number of this process; 0 leads."""
        ...

    @property
    def size(self) -> int:
        """How many there are."""
        ...

    def sum(self, *numbers: float) -> list[float]:
        """Each number, summed over the processes. All of them must call it, so here they wait for each other."""
        ...


@dataclass(frozen=True)
class Execution:
    """Where a simulation is computed. The result does not depend on it.

    Attributes:
        workers: local: how many processes of this machine compute (see `engine.processes`); without a number, or None,
            one for each of PyTorch's threads if there are rollouts enough to be worth it. With a GPU or vLLM, this
            process computes in any case. ray: where parts are made.
        ranks: the processes that share the parts; rank 0 joins them. None: this process alone.
        progress: counts questions.
    """

    workers: Workers | None = None
    ranks: Ranks | None = None
    progress: Progress = silent

    @property
    def local(self) -> bool:
        """Whether this machine computes."""
        return self.workers is None or self.workers.executor == "local"


@dataclass(frozen=True)
class CohortPart:
    """Part `number` of `count`. Its `requests` ask about its own patients only, who are all in `shard`."""

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
    def questions(self) -> pl.DataFrame:
        """Every question once, sorted."""
        return questions_in(self.requests)


def simulate(
    model: Path,
    meds: Path,
    out: Path,
    requests: Sequence[Request],
    settings: SimulateSettings | None = None,
    edits: Edits = NO_EDITS,
    execution: Execution | None = None,
) -> dict:
    """Simulate the futures of every question of the requests, and write them to a folder.

    Writes what `sequela.rollout.folder` describes, and copies of the code maps that the model was trained with:
    simulated events are in the codes that the maps lead to. Only events strictly before the prediction time enter a
    history. Parts that are in `out` already are kept.

    Args:
        edits: made to every history first. The table then has a column `changed`, whether the model reads another
            history because of them; the summary says how many changed, and in how many each edit found something to do.

    Returns:
        The summary; on ranks other than 0, nothing.

    Raises:
        InputError: if no history has a token, a code of a request has none, or an edit cannot be made.
    """
    settings, execution = settings or SimulateSettings(), execution or Execution()
    refuse_head(settings)
    if settings.estimator == CONTROLLED:
        latest(model, settings.precision)  # a model without a head is told before the work
    tokenizer, grammar, _ = load_words(model)
    if settings.engine == "vllm" and avoids(settings, requests):
        raise InputError(f"{NO_AVOIDING}.")
    watched_outcomes(tokenizer, grammar, requests)
    refuse_unknown(tokenizer, edits)
    edited = survey(tokenizer, meds, questions_in(requests), edits) if edits else None
    least = LEAST if execution.local and execution.ranks is None else 0
    parts = [replace(part, edits=edits) for part in _parts(model, meds, out, requests, settings, least)]
    _make_all(parts, execution)
    if execution.ranks is not None and execution.ranks.rank:
        return {}
    summary = _summary(settings, requests, join_parts(out, len(parts), [request.name for request in requests]))
    summary |= {"vocabulary": tokenizer.vocabulary.hash, "maps": save_maps(tokenizer.maps, out)}
    summary["model"] = weights_hash(model)
    if edited is not None:
        summary["edits"] = edited
    write_questions(out, requests)
    write_summary(out, summary)
    return summary


def _make_all(parts: Sequence[CohortPart], execution: Execution) -> None:
    """Make this process's share of the parts, and wait until all are made."""
    ranks, workers = execution.ranks, execution.workers
    share = parts if ranks is None else parts[ranks.rank :: ranks.size]
    if workers is not None and not execution.local:
        run(make_part, share, workers, progress=execution.progress)
    else:
        questions = [len(part.questions) for part in share]
        turns = ProgressOfParts(execution.progress, sum(questions))
        with _processes(share, workers.processes if workers else 0) as processes:
            for part, count in zip(share, questions, strict=True):
                make_part(part, processes=processes, progress=turns.next(count))
    if ranks is not None:
        ranks.sum(0)


def _processes(parts: Sequence[CohortPart], wanted: int) -> AbstractContextManager[EngineProcesses | None]:
    """Processes to compute: the number wanted, or if it is 0, as many as are worth it; None: this process computes."""
    left = [part for part in parts if not part.folder.exists()]
    rollouts = sum(len(part.questions) * part.settings.rollouts for part in left)
    count = wanted or min(torch.get_num_threads(), rollouts // WORTH_A_PROCESS)
    if not left or count < 2 or torch.cuda.is_available() or left[0].settings.engine != "own":
        return nullcontext()
    model, settings = left[0].model, left[0].settings
    return EngineProcesses(partial(make_engine, model, settings.precision, settings.well_formed), count)


def _parts(
    model: Path, meds: Path, out: Path, requests: Sequence[Request], settings: SimulateSettings, rollouts: int
) -> list[CohortPart]:
    """The parts: patients of one shard each, in the order of shards and patients, with at least so many rollouts."""
    everyone = np.unique(np.concatenate([request.times["subject_id"].to_numpy() for request in requests]))
    least, most = PATIENTS
    size = int(np.clip(len(everyone) // PARTS, max(least, min(rollouts // settings.rollouts, most)), most))
    shards = shards_of(meds)
    patients_by_shard = [patients_of(shard) for shard in shards]
    check_patients_once(patients_by_shard, shards)
    parts: list[CohortPart] = []
    for shard, patients in zip(shards, patients_by_shard, strict=True):
        asked = np.intersect1d(patients, everyone, assume_unique=True)
        for group in np.array_split(asked, -(-len(asked) // size)) if len(asked) else []:
            members = pl.col("subject_id").is_in(pl.Series(group).implode())
            about_them = tuple(replace(request, times=request.times.filter(members)) for request in requests)
            parts.append(CohortPart(Path(model), Path(out), len(parts), 0, shard, about_them, settings))
    return [replace(part, count=len(parts)) for part in parts]


def make_part(
    part: CohortPart, *, processes: EngineProcesses | None = None, progress: Progress = silent
) -> None:
    """Simulate the patients of one part and write it, unless it is there. `processes` compute, or this one does."""
    if part.folder.exists():
        return
    if processes is None:
        model = load(part.model, part.settings)
    else:
        tokenizer, grammar, window = load_words(part.model)
        model = LoadedModel(
            tokenizer, grammar, processes, window, part.model, last_moments=knows_last_moments(part.model)
        )
    events = read_frame(part.shard).filter(pl.col("subject_id").is_in(part.questions["subject_id"].implode()))
    result = forecast(model, events, part.requests, part.settings, part.edits, progress)
    pools = [(pool.avoids, result.events(pool.avoids), result.table(pool)) for pool in result.pools]
    write_part(part.folder, pools, _counts(result, model.grammar))


def _counts(result: Forecast, grammar: Grammar) -> dict:
    """What a part has to say for the summary, in sums that add up over parts."""
    counts: dict = {"histories": len(result.questions), "without_history": result.without_history}
    if result.changed is not None:
        counts["changed"] = int(result.changed.sum())
    return counts | {"pools": {pool.avoids or "": _pool_counts(pool, grammar) for pool in result.pools}}


def _pool_counts(pool: RolloutPool, grammar: Grammar) -> dict:
    """How many rollouts a pool has, why they ended, and how well-formed they are."""
    rollouts = pool.rollouts
    node = np.zeros(len(rollouts), np.int64)
    invalid, several = grammar.invalid_multi_token(rollouts.tokens, node)
    faults = grammar.faults(rollouts.tokens, node, pool.prompts.bits[rollouts.prompt])
    return {
        "rollouts": len(rollouts),
        "tokens": len(rollouts.tokens.flat),
        "reasons": {name: int((rollouts.reason == number).sum()) for number, name in enumerate(REASONS)},
        "windows": int(rollouts.windows.sum()),
        "events_of_several_tokens": several,
        "invalid_events_of_several_tokens": invalid,
        "tokens_that_break_the_grammar": int(faults.sum()),
        "probability_removed": float(rollouts.account["removed"].sum(dtype=np.float64)),
    }


def _summary(settings: SimulateSettings, requests: Sequence[Request], parts: Sequence[dict]) -> dict:
    """The summary that follows from the counts of the parts.

    Raises:
        InputError: if there is no history.
    """
    counts = _added_up(parts) if parts else {"histories": 0}
    if not counts["histories"]:
        raise InputError(
            "No history has an event before its prediction time: check the task and the dataset."
        )
    pools, budget = counts.pop("pools"), adaptive_budget(settings, requests)
    return {
        "rules": RULES,
        "settings": asdict(settings),
        "plan": None if budget is None else asdict(budget),
        **counts,
        **_per_token(_added_up(list(pools.values()))),
        "avoiding": {name: _per_token(pool) for name, pool in pools.items() if name},
    }


def _per_token(counts: dict) -> dict:
    """The probability that was removed is a bias, if a small one: the unconstrained model would have gone there.

    Its last digits depend on the order in which parts are added up, so they are left out.
    """
    removed = counts["probability_removed"] / max(counts["tokens"], 1)
    return {**counts, "probability_removed": float(f"{removed:.9g}")}


def _added_up(counts: Sequence[dict]) -> dict:
    return {
        name: _added_up([each[name] for each in counts])
        if isinstance(value, dict)
        else sum(each[name] for each in counts)
        for name, value in counts[0].items()
    }
