"""A world model of patients: next tokens, and whatever else of a future is learned from states, each with its weight.

What else that is are terms (`sequela.training.objectives.term`), and when each counts how much are stages: the options
of a run say both. One pass over a row serves next tokens and the states that terms read.

Shape letters: S states at anchors, C hidden width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from sequela.errors import InputError, nearest
from sequela.keywords import changed
from sequela.model.decoder import Decoder
from sequela.model.precision import computed_in
from sequela.model.states import StateTokens, idle_class
from sequela.tokens.corpus import Corpus
from sequela.tokens.packing import Windows, best_fit, collate
from sequela.training.data import Inputs, inputs, windows_of
from sequela.training.objectives.anchors import Records, anchors_of
from sequela.training.objectives.last_moment import ends_of
from sequela.training.objectives.next_token import NextToken
from sequela.training.objectives.objective import (
    OBJECTIVES,
    Group,
    Loss,
    Setup,
    Validation,
    named,
    options,
)
from sequela.training.objectives.stages import Schedule, TrainingStage, stages_of
from sequela.training.objectives.term import GivenRow, Moment, Read, Term

FITTED_ON = 2000  # windows of training patients, at most, that comparisons are fitted on


@dataclass(frozen=True)
class WorldModelOptions:
    """What can be chosen, whatever the terms."""

    stages: object = "curriculum"
    """curriculum (next tokens first), settled (the same, and at the end only heads), at_once, futures_only; or a list
    of tables."""
    terms: tuple[str, ...] = ()
    """What `world_model` learns beside next tokens, where `stages` is a name."""
    anchors: int = 8
    """Most anchors in a window."""

    def __post_init__(self) -> None:
        if self.anchors < 1:
            raise ValueError(f"`anchors` must be 1 or more, not {self.anchors}")


@dataclass(frozen=True)
class RowOfTerms:
    """A packed row.

    Attributes:
        inputs: tokens and state tokens.
        idle: the class of idle time of each state, int64 [S]; None without states.
        own: what each term needs, by name.
    """

    inputs: Inputs
    idle: Tensor | None
    own: dict[str, Any]

    @property
    def weight(self) -> float:
        """The number of predicted tokens."""
        return self.inputs.weight


class WorldModel(nn.Module):
    """See the module. A class of it for a single term has an objective's name of its own.

    Attributes:
        choice: what may be learned beside next tokens; none: any that another objective has.
        terms: what is learned, by name.
    """

    name = "world_model"
    unit = NextToken.unit
    pure = True
    choice: ClassVar[tuple[type[Term], ...]] = ()

    def __init__(self, decoder: Decoder, setup: Setup | None = None):
        super().__init__()
        self.setup = setup or Setup()
        self.next_token = NextToken(decoder, self.setup)
        plan = _Plan.of(self.choice or known_terms(), self.setup)
        self.options, self.schedule = plan.options, Schedule(plan.stages)
        self.terms = nn.ModuleDict(
            {term.name: term(decoder, self.setup, chosen) for term, chosen in plan.terms}
        )
        tokenizer = self.setup.tokenizer
        if self.terms and tokenizer is not None and not (tokenizer.positions_from_clock or tokenizer.minutes_V.any()):
            raise InputError(
                f"`objective` {self.name} learns what comes when, and tokens of the kind {tokenizer.kind!r} tell no "
                "time: train next_token on this corpus, or tokenize without a language model."
            )
        self.states = None
        if any(term.states for term in self.terms.values()):
            generator = torch.Generator().manual_seed(self.setup.settings.seed)
            self.states = StateTokens(decoder.config.hidden_size).initialize(generator)
            counts = self.setup.counts
            if counts is not None and all(stage.only_heads for stage in plan.stages):  # nothing will train them
                self.states.like_time(decoder.embedding.weight.detach(), tokenizer.minutes_V, counts)
        if self.setup.windows is not None:
            for term in self.terms.values():
                term.check(self._records(self.setup.windows))

    @property
    def decoder(self) -> Decoder:
        """The model that the run is for."""
        return self.next_token.decoder

    @property
    def device(self) -> torch.device:
        """Of the weights."""
        return self.decoder.embedding.weight.device

    def _records(self, windows: Windows) -> Records:
        return Records.of(windows, self.setup.tokenizer, self.setup.rest)

    def _random(self, row: np.ndarray, whose: str) -> np.random.Generator:
        digest = hashlib.sha256(np.asarray(row, np.int64).tobytes() + whose.encode()).digest()
        return np.random.default_rng([self.setup.settings.seed, *digest[:8]])

    def collate(self, windows: Windows, row: np.ndarray) -> RowOfTerms:
        """A packed row, and what its patients are going to live through; the same for the same row and seed."""
        rows, idle = self._given(self._records(windows), row)
        own = {name: self.terms[name].collate(given) for name, given in rows.items()}
        return RowOfTerms(next(iter(rows.values())).inputs, idle, own)

    def _given(self, records: Records, row: np.ndarray) -> tuple[dict[str, GivenRow], Tensor | None]:
        """The row as each term is given it, by name."""
        anchors = idle = None
        if self.states is not None:
            anchors = anchors_of(records, row, self.options.anchors, self._random(row, "anchors"))
            idle = torch.from_numpy(idle_class(anchors.idle)).to(self.device)
        batch = collate(records.windows, row, self.setup.row_multiple, anchors and anchors.behind)
        ends = ends_of(records.windows, row, records.rest, self.setup.tokenizer)
        ready = inputs(batch, self.device, ends)
        learned = self.schedule.learned
        rows = {
            name: GivenRow(records, row, ready, anchors, self._random(row, name), learned) for name in self.terms
        }
        return rows, idle

    def forward(self, batch: RowOfTerms) -> Loss:
        """The weighted sum of the losses; those of terms are means, times the weight of the row."""
        stage = self.schedule.stage
        with torch.set_grad_enabled(torch.is_grad_enabled() and not stage.frozen):
            tokens, read = self.read(batch.inputs, batch.idle)
        read = read.detached() if stage.only_heads else read
        parts = {self.unit: tokens.total.detach()} | tokens.parts
        total = stage.tokens * (tokens.total if stage.tokens else tokens.total.detach())
        figures: dict[str, Tensor] = {}
        for name, term in self.terms.items():
            learned = term(batch.own[name], read, stage)
            total = total + learned.total * batch.weight
            parts |= {part: value.detach() * batch.weight for part, value in learned.parts.items()}
            figures |= {f"{name}/{seen}": value.detach() * batch.weight for seen, value in learned.figures.items()}
        return Loss(self._attached(total, stage), parts, figures)

    def _attached(self, total: Tensor, stage: TrainingStage) -> Tensor:
        """With a gradient of 0 for what a row trains nothing of: processes that add up gradients have to have the same
        ones, whatever is in their rows."""
        if not torch.is_grad_enabled():
            return total
        learning = [weight for term in self.terms.values() if term.counts(stage) for weight in term.learning(stage)]
        return total + sum((0.0 * weight).sum() for weight in learning)

    def read(self, row: Inputs, idle: Tensor | None) -> tuple[Loss, Read]:
        """The loss of next tokens, and what else one pass gives."""
        with computed_in(self.setup.precision, row.ids.device):
            soft = None if self.states is None else self.states.soft(row.aside, idle)
            hidden = self.decoder.hidden(row.ids, row.positions, row.attention, soft)
            tokens = self.next_token.read(hidden, row)
        return tokens, Read(row, self.decoder, hidden, hidden.flatten(0, 1)[row.aside].float())

    def groups(self) -> list[Group]:
        """The decoder's, the state tokens, and those of the terms."""
        states = [] if self.states is None else [Group("state tokens", list(self.states.parameters()))]
        return [*self.next_token.groups(), *states, *(group for term in self.terms.values() for group in term.groups())]

    def heed(self, figures: dict[str, float]) -> None:
        """Terms heed their own."""
        for name, term in self.terms.items():
            own = {key.removeprefix(f"{name}/"): x for key, x in figures.items() if key.startswith(f"{name}/")}
            if own:
                term.heed(own, self.schedule.stage)

    def after_step(self, done: float) -> None:
        """Go to the stage that begins, and let the terms follow."""
        synced = self.schedule.advance(done)
        for term in self.terms.values():
            term.after_step(
                self.decoder, Moment(self.schedule.stage, synced, self.schedule.late(term.losses, done))
            )

    def flops(self, lengths: np.ndarray) -> int:
        """Of next tokens, and of the terms that count."""
        stage, tokens = self.schedule.stage, self.next_token.flops(lengths)
        learning = [term for term in self.terms.values() if term.counts(stage)]
        return (tokens // 3 if stage.frozen else tokens) + sum(term.flops(tokens, stage) for term in learning)

    def shown(self, loss: float) -> float:
        """Bits for nats."""
        return self.next_token.shown(loss)

    def figures(self, mean: float) -> dict[str, float]:
        """Those of next tokens."""
        return self.next_token.figures(mean)

    def validate(self, corpus: Corpus, patients: np.ndarray | None = None) -> Validation | None:
        """Those of next tokens, and those of each term that counts, under its name.

        Raises:
            InputError: if a term finds that the model has collapsed.
        """
        tokens = self.next_token.validate(corpus, patients)
        if tokens is None:
            return None
        windows, training = windows_of(corpus, self.decoder.config.context), self.setup.windows
        chosen = np.arange(len(windows)) if patients is None else np.flatnonzero(np.isin(windows.patient, patients))
        records = Records.of(windows, corpus.tokenizer, corpus.rest)
        figures, details = dict(tokens.figures), dict(tokens.details)
        for name, term in self.terms.items():
            if not term.counts(self.schedule.stage):
                continue
            fitted = None
            if training is not None and patients is None:
                order = np.random.default_rng(self.setup.settings.seed).permutation(len(training))
                fitted = partial(self._rows, self._records(training), np.sort(order[:FITTED_ON]), name)
            with torch.no_grad():
                found = term.validate(partial(self._rows, records, chosen, name), fitted)
            if found is not None:
                figures |= {f"{name}/{figure}": value for figure, value in found.figures.items()}
                details[name] = found.details
        return Validation(figures, details)

    def _rows(self, records: Records, chosen: np.ndarray, name: str) -> Iterator[tuple[GivenRow, Read]]:
        """The windows `chosen` in packed rows, as a term is given them, and what the decoder reads of them."""
        size = self.setup.settings.row_tokens or self.decoder.config.context
        for places in best_fit(records.windows.lengths[chosen], size):
            rows, idle = self._given(records, chosen[places])
            yield rows[name], self.read(rows[name].inputs, idle)[1]

    def compared(self, corpus: Corpus, patients: np.ndarray) -> dict | None:
        """As next tokens do."""
        return self.next_token.compared(corpus, patients)

    def take_over(self, folder: Path) -> None:
        """The state tokens of `folder`, if it has any."""
        if self.states is not None and StateTokens.kept_in(folder):
            self.states.load_state_dict(StateTokens.load(folder).state_dict())

    def save(self, folder: Path) -> None:
        """Write the decoder's checkpoint, the state tokens, and what the use of terms needs."""
        self.next_token.save(folder)
        if self.states is not None:
            self.states.save(folder)
        for term in self.terms.values():
            term.save(folder)


def known_terms() -> tuple[type[Term], ...]:
    """Those of all objectives."""
    return tuple(term for name in OBJECTIVES for term in getattr(named(name), "choice", ()))


@dataclass(frozen=True)
class _Plan:
    """What the options of a run say."""

    options: WorldModelOptions
    stages: tuple[TrainingStage, ...]
    terms: tuple[tuple[type[Term], Any], ...]

    @staticmethod
    def of(choice: tuple[type[Term], ...], setup: Setup) -> _Plan:
        """Raises InputError for options that do not exist, or cannot be."""
        where = f"options of {setup.settings.objective}: "
        values = options(setup)
        shared = {field.name for field in fields(WorldModelOptions)}
        general = changed(WorldModelOptions(), {name: values[name] for name in values if name in shared}, where)
        by_name = {term.name: term for term in choice}
        try:
            stages, terms = _learned(general, by_name, setup.settings.patience)
        except ValueError as error:
            raise InputError(f"{where}{error}.") from error
        given = _shared_out({name: values[name] for name in values if name not in shared}, shared, terms, where)
        chosen = tuple((term, changed(term.defaults, given[term.name], where)) for term in terms)
        return _Plan(general, stages, chosen)


def _learned(
    general: WorldModelOptions, by_name: Mapping[str, type[Term]], patience: int
) -> tuple[tuple[TrainingStage, ...], list[type[Term]]]:
    """The stages, and the terms that count in any of them. Raises ValueError if there are none, or not that way."""
    names = tuple(general.terms or by_name)
    for name in names:
        if name not in by_name:
            raise ValueError(f"`terms` has no '{name}'{nearest(name, by_name)}: choose among {', '.join(by_name)}")
    if isinstance(general.stages, str) and len(by_name) > 1 and not general.terms:
        raise ValueError(f"give `terms`, some of {', '.join(by_name)}, or write `stages` as tables")
    stages = stages_of(general.stages, names, tuple(part for name in names for part in by_name[name].parts))
    terms = [by_name[name] for name in names]
    terms = [
        term for term in terms if any(stage.weight(name) for stage in stages for name in (term.name, *term.parts))
    ]
    if patience and len(stages) > 1:
        raise ValueError(
            "with `patience` a run ends by its loss of next tokens, which a later stage may leave to others: set "
            "`patience` to 0, or have one stage"
        )
    if not terms:
        raise ValueError(
            f"no stage gives {' or '.join(names)} a weight above 0: do so, or take the objective `next_token`"
        )
    return stages, terms


def _shared_out(
    values: Mapping[str, Any], shared: set[str], terms: list[type[Term]], where: str
) -> dict[str, dict[str, Any]]:
    """Options by the term that has them: in a table of its name, or by themselves where a single term knows them."""
    given: dict[str, dict[str, Any]] = {term.name: {} for term in terms}
    known = {term.name: {field.name for field in fields(term.defaults)} for term in terms}
    for name, value in values.items():
        if name in given and isinstance(value, Mapping):
            given[name] |= value
            continue
        having = [term for term in known if name.replace("-", "_") in known[term]]
        if not having:
            listed = sorted(set.union(shared, *known.values()))
            close = nearest(name, listed)
            raise InputError(f"{where}there is no setting '{name}'{close}; there are {', '.join(listed)}.")
        if len(having) > 1:
            raise InputError(
                f"{where}{' and '.join(having)} both have `{name}`: say whose it is, such as {having[0]}.{name}=..."
            )
        given[having[0]][name] = value
    return given
