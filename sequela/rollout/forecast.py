"""From histories and questions to rollouts, in memory: no files are written.

    model = load(Path("model/"), settings)
    result = forecast(model, events, requests, settings)      # one pool of rollouts, or one for each avoided outcome
    result.rollouts()    # one row per rollout, in the columns of a simulated folder's table
    result.events()      # what is simulated to happen: MEDS columns, prediction_time, rollout

The extender of `load` is for one thread at a time. Many threads may use
`dataclasses.replace(model, extender=SharedDecoding(model.extender))` (see `sequela.rollout.engine.shared`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl
import torch

from sequela.errors import InputError
from sequela.model import checkpoint, precision
from sequela.model.config import ModelConfig
from sequela.progress import Progress, silent
from sequela.record.edit import NO_EDITS, Edits
from sequela.record.questions import questions_of
from sequela.record.schema import DEATH
from sequela.rollout.clock.calendar import Calendar
from sequela.rollout.clock.minutes import TokenClock
from sequela.rollout.edits import changed_histories
from sequela.rollout.engine.engine import Engine, Extender, Window
from sequela.rollout.engine.rollouts import Prompts, Rollouts
from sequela.rollout.engine.sampling import Sampling
from sequela.rollout.engine.vllm import VllmEngine, vllm_sampler
from sequela.rollout.folder import events_of, table_of
from sequela.rollout.grammar_constraint import GrammarConstraint
from sequela.rollout.outcomes import stop_rule, watched_outcomes
from sequela.rollout.pools import asked_by, budget_of, pools_of
from sequela.rollout.prompts import prompts_of
from sequela.rollout.request import Request
from sequela.rollout.settings import CONTROLLED, HEAD, SimulateSettings
from sequela.rollout.tracker import OutcomeTracker
from sequela.rollout.values.control import guesses
from sequela.tokens.ehr.grammar.fit import load_grammar
from sequela.tokens.ehr.grammar.grammar import Grammar
from sequela.tokens.ehr.tokenizer import EhrTokenizer
from sequela.tokens.packing import newest

SHORTEST = 32  # tokens of context: room for demographics, the latest events, and some of the future


@dataclass(frozen=True)
class LoadedModel:
    """What it takes to continue histories.

    Attributes:
        extender: continues prompts; its precision, and whether it keeps to the grammar, are fixed.
        window: which tokens of a history the model reads.
        folder: of the checkpoint, where its value head lies.
        device: of the model.
        last_moments: whether the model has learned when the last moment of a record is over.
    """

    tokenizer: EhrTokenizer
    grammar: Grammar
    extender: Extender
    window: Window
    folder: Path
    device: str = "cpu"
    last_moments: bool = True


@dataclass(frozen=True)
class RolloutPool:
    """Rollouts that were sampled alike.

    Attributes:
        avoids: the name of the request whose outcome was not sampled; None: nothing was avoided.
        requests: whom the pool serves; the K watched outcomes are theirs, in this order.
        prompts: with those outcomes that each question asks for.
    """

    avoids: str | None
    requests: tuple[Request, ...]
    prompts: Prompts
    rollouts: Rollouts


@dataclass(frozen=True)
class Forecast:
    """Rollouts of questions, and what they say.

    Attributes:
        questions: those with a history, sorted; the prompts of every pool are in this order.
        without_history: how many other questions there were. They have no event before their prediction time.
        changed: bool [P], whether the model reads another history because of the edits; None without edits.
    """

    tokenizer: EhrTokenizer
    questions: pl.DataFrame
    without_history: int
    pools: tuple[RolloutPool, ...]
    changed: np.ndarray | None = None

    def rollouts(self) -> pl.DataFrame:
        """One row per rollout of all pools (see `sequela.rollout.folder.table_of`)."""
        return pl.concat([self.table(pool) for pool in self.pools], how="diagonal")

    def events(self, avoids: str | None = None) -> pl.DataFrame:
        """The simulated events of the pool that avoids this (see `sequela.rollout.folder.events_of`).

        Raises:
            KeyError: if there is no such pool.
        """
        for pool in self.pools:
            if pool.avoids == avoids:
                minutes = TokenClock.of(self.tokenizer).moves_of(pool.prompts, pool.rollouts)
                return events_of(self.tokenizer, self.questions, pool.prompts, pool.rollouts, minutes)
        raise KeyError(avoids)

    def table(self, pool: RolloutPool) -> pl.DataFrame:
        """One row per rollout of this pool."""
        scored = {request.name: k for k, request in enumerate(pool.requests) if request.counted != "none"}
        table = table_of(self.questions, pool.prompts, pool.rollouts, scored, pool.avoids)
        if self.changed is None:
            return table
        marks = self.questions.with_columns(changed=pl.Series(self.changed))
        return table.join(marks, on=self.questions.columns, maintain_order="left")


def forecast(
    model: LoadedModel,
    events: pl.DataFrame,
    requests: Sequence[Request],
    settings: SimulateSettings,
    edits: Edits = NO_EDITS,
    progress: Progress = silent,
) -> Forecast:
    """Roll out every question of the requests.

    Only events strictly before the prediction time enter a history.

    Args:
        events: MEDS columns, sorted, with the patients of the requests.
        settings: how rollouts are sampled; precision, grammar and engine were chosen when the model was loaded.
        edits: made to every history first.
        progress: counts questions.

    Raises:
        InputError: if a code of a request has no token, an edit cannot be made, a request has other ends than death and
            the model does not know when they are over, or the estimator is cv and the model has no value head.
    """
    refuse_head(settings)
    ending = [request.name for request in requests if set(request.ends) - {DEATH}]
    if ending and not model.last_moments:
        raise InputError(
            f"Task {ending[0]}: this model is of a version that had not learned that nothing follows the last event of "
            "a record, so it would expect the outcome there too often: delete its folder and train it again."
        )
    questions = questions_in(requests)
    tokenizer, grammar = model.tokenizer, model.grammar
    kept, prompts = prompts_of(tokenizer, grammar, events, questions, settings.seed, edits)
    changed = None
    if edits:
        as_recorded = prompts_of(tokenizer, grammar, events, questions, settings.seed)
        changed = changed_histories(
            kept, prompts, *as_recorded, lambda ids: model.window(ids, settings.limit)
        )
    sampling = Sampling(settings.temperature, rows=settings.rows, stratified=True)
    calendar = Calendar.of(tokenizer, grammar) if settings.well_formed else None
    pools = pools_of(settings, requests)
    turns = ProgressOfParts(progress, len(kept))
    steadied = settings.estimator == CONTROLLED
    result = []
    for avoids, served in pools:
        watch = watched_outcomes(tokenizer, grammar, served)
        values = guesses(model.folder, events, kept, served, settings.precision) if steadied else None
        asking = replace(prompts, watched=asked_by(kept, served), values=values)
        tracker = OutcomeTracker(
            stop_rule(tokenizer, watch, settings.limit), watch, TokenClock.of(tokenizer),
            avoid=avoids is not None, calendar=calendar, steadied=steadied, device=model.device,
        )  # fmt: skip
        budget = budget_of(settings, requests, served, asking.watched)
        rollouts = model.extender.extend(
            asking, budget, tracker, sampling, turns.next(len(kept) / len(pools))
        )
        result.append(RolloutPool(avoids, tuple(served), asking, rollouts))
    return Forecast(tokenizer, kept, len(questions) - len(kept), tuple(result), changed)


def refuse_head(settings: SimulateSettings) -> None:
    """Refuse to simulate for an estimator that reads no futures."""
    if settings.estimator == HEAD:
        raise InputError(
            "the estimator head reads risks off the history, without futures: ask `sequela predict` or "
            "`Forecaster.risk`, or simulate for scope."
        )


def questions_in(requests: Sequence[Request]) -> pl.DataFrame:
    """Every question of the requests once, sorted."""
    return questions_of(pl.concat([request.times for request in requests]), "the requests")


def load(folder: Path, settings: SimulateSettings) -> LoadedModel:
    """The model in a checkpoint folder, ready to be sampled from in this process.

    The latest one is kept in memory until another is loaded, or its files change.

    Raises:
        InputError: if the folder holds no model that can simulate, or the engine cannot be had.
    """
    return _load(folder, _version(folder), settings.precision, settings.well_formed, settings.engine)


def load_words(folder: Path) -> tuple[EhrTokenizer, Grammar, Window]:
    """What the model in a checkpoint folder reads and writes, without its weights.

    Raises:
        InputError: if the folder holds no model that can simulate.
    """
    return _load_words(folder, _version(folder))


def knows_last_moments(folder: Path) -> bool:
    """See `LoadedModel`."""
    return ModelConfig.load(folder).last_moments


def make_engine(folder: Path, chosen_precision: str, well_formed: bool) -> Engine:
    """Our own engine with the model in a checkpoint folder."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    decoder = checkpoint.load(folder, device)
    _, grammar, window = load_words(folder)
    return Engine(
        decoder,
        constraint=GrammarConstraint(grammar, device, masks=well_formed),
        cut=window.cut,
        precision=precision.choose(chosen_precision, device, decoder.config.hidden_size),
    )


def _version(folder: Path) -> tuple[tuple[str, int], ...]:
    """Differs once another model is in the folder."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not there: name a checkpoint folder, such as `sequela train` writes.")
    return tuple((path.name, path.stat().st_mtime_ns) for path in sorted(folder.iterdir()))


@lru_cache(maxsize=1)
def _load(folder: Path, version: tuple, chosen_precision: str, well_formed: bool, engine: str) -> LoadedModel:
    tokenizer, grammar, window = load_words(folder)
    made = make_engine(folder, chosen_precision, well_formed)
    extender: Extender = made
    if engine == "vllm":
        extender = VllmEngine(made, vllm_sampler(folder, made.precision, window.context))
    return LoadedModel(tokenizer, grammar, extender, window, folder, made.device.type, knows_last_moments(folder))


@lru_cache(maxsize=1)
def _load_words(folder: Path, version: tuple) -> tuple[EhrTokenizer, Grammar, Window]:
    config, tokenizer = ModelConfig.load(folder), EhrTokenizer.load(folder)
    if config.vocabulary != tokenizer.vocabulary.hash:
        raise InputError(
            f"{folder}: config.json and vocabulary.json belong to different runs (vocabulary "
            f"{config.vocabulary or 'unknown'} and {tokenizer.vocabulary.hash}): copy the right file, "
            "or train again."
        )
    if tokenizer.settings.time != "intervals":
        raise InputError(
            f"{folder} was trained with time encoded by position, so it cannot simulate when something happens: "
            "train a model on a corpus that was tokenized with time intervals."
        )
    if config.context < SHORTEST:
        raise InputError(
            f"{folder} has a context of {config.context} tokens, too few for a history and its future: train with a "
            f"context of {SHORTEST} or more."
        )

    def cut(ids: np.ndarray, length: int) -> np.ndarray:
        return newest(ids, tokenizer.head, tokenizer.carried, length)

    return tokenizer, load_grammar(folder, tokenizer), Window(config.context, cut)


class ProgressOfParts:
    """Reports the progress of consecutive parts as progress of the whole: questions and tokens add up."""

    def __init__(self, progress: Progress, total: float):
        self.progress, self.total = progress, total
        self.before, self.tokens, self.now = 0.0, 0, (0.0, 0)

    def next(self, questions: float) -> Progress:
        """Progress of the next part, which has that many questions."""
        self.before, self.tokens = self.before + self.now[0], self.tokens + self.now[1]
        self.now = (questions, 0)

        def report(done: float, total: float, *, tokens: int = 0, **details: object) -> None:
            self.now = (questions, tokens)
            share = questions * done / total if total else 0
            self.progress(self.before + share, self.total, tokens=self.tokens + tokens, **details)

        return report
