"""The value head: how likely an outcome comes, read straight from the state of a history.

    head = ValueHead.load(Path("model/"))
    known, states = head.states(events, questions)
    head.rates(states, request).incidence(np.array([30.0]))       # risk within 30 days

It foresees when each of its events (see `ForeseenEvents`) first comes. An outcome that is one of them is read as it was
trained. One that is made of several is taken to come at the sum of their rates, which is exact where they come
independently of each other, and else an approximation: what comes together is counted twice. The same holds for ends
other than death, after which the head was trained to go on waiting.

Shape letters: Q questions, V vocabulary, E events, B pieces.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch

from sequela.errors import InputError
from sequela.model.hazards import ForeseenEvents, Hazards
from sequela.rollout.embeddings.embedder import Embedder
from sequela.rollout.embeddings.settings import EmbedSettings
from sequela.rollout.outcomes import Outcomes
from sequela.rollout.request import Request
from sequela.rollout.values.competing import CompetingRates
from sequela.tokens.ehr.grammar.fit import load_grammar

MINUTES = 24 * 60  # of a day
FIRST = "first"  # of `Request.counted`


@dataclass(frozen=True, eq=False)
class ValueHead:
    """A model's rates of events, and what it takes to read states.

    Attributes:
        model: its folder, for error messages.
        sets: bool [E, V], the tokens of each event.
    """

    model: Path
    embedder: Embedder
    hazards: Hazards
    events: ForeseenEvents
    outcomes: Outcomes
    sets: np.ndarray

    @staticmethod
    def kept_in(model: Path) -> bool:
        """Whether a checkpoint has a value head."""
        return Hazards.kept_in(model)

    @staticmethod
    def load(model: Path, precision: str = "auto") -> ValueHead:
        """That of a checkpoint.

        Raises:
            InputError: if it has none, it belongs to another model, or the checkpoint is damaged.
        """
        hazards, events = Hazards.load(model)
        embedder = Embedder.load(model, EmbedSettings(precision=precision))
        vocabulary = embedder.tokenizer.vocabulary
        if events.vocabulary != vocabulary.hash or hazards.pieces.in_features != embedder.decoder.config.hidden_size:
            raise InputError(
                f"{model}: the value head is that of another model than the checkpoint beside it: copy both from one "
                "folder, or train again."
            )
        sets = np.zeros((len(events), len(vocabulary)), bool)
        for number, tokens in enumerate(events.tokens):
            sets[number, list(tokens)] = True
        device = embedder.decoder.embedding.weight.device
        outcomes = Outcomes(embedder.tokenizer, load_grammar(model, embedder.tokenizer))
        return ValueHead(Path(model), embedder, hazards.to(device), events, outcomes, sets)

    def states(self, events: pl.DataFrame, questions: pl.DataFrame) -> tuple[pl.DataFrame, np.ndarray]:
        """The questions whose history has a token, and the states after these histories (see `Embedder.vectors`)."""
        return self.embedder.vectors(events, questions)

    def can(self, request: Request) -> bool:
        """Whether the outcome of the request is one that the head foresees."""
        try:
            self._columns(request)
        except InputError:
            return False
        return True

    def rates(self, states_QC: np.ndarray, request: Request) -> CompetingRates:
        """The rates of the outcome of the request, and of what ends the wait for it: its ends, and death.

        Raises:
            InputError: if the answer does not follow from the first event of some code, or the head does not foresee
                that event.
        """
        outcome, end = self._columns(request)
        states = torch.from_numpy(states_QC).to(self.hazards.edges.device)
        with torch.no_grad():
            rates = self.hazards(states).double().exp().cpu().numpy()
        edges = self.hazards.edges.double().cpu().numpy()
        return CompetingRates(edges, rates[:, :, outcome].sum(2), rates[:, :, end].sum(2))

    def _columns(self, request: Request) -> tuple[list[int], list[int]]:
        """Which events of the head are the outcome, and which are its ends."""
        if request.counted != FIRST:
            raise InputError(
                f"Task {request.name}: the value head tells when something first comes, not how often, with which "
                "value, or by a rule over several events: simulate it, with the estimator scope."
            )
        outcome = self._tokens(request.outcome, request.name)
        ends = np.zeros_like(outcome)
        ends[self.embedder.tokenizer.final] = True
        if request.ends:
            ends |= self._tokens(request.ends, request.name)
        return self._events(outcome, request.name), self._events(ends & ~outcome, request.name)

    def _tokens(self, patterns: tuple[str, ...], task: str) -> np.ndarray:
        """The tokens that decide that a code matches, bool [V]."""
        wanted = np.zeros(self.sets.shape[1], bool)
        for pattern in patterns:
            tokens, pairs = self.outcomes.of(pattern, task)
            if pairs:
                raise InputError(
                    f"Task {task}: {pattern!r} takes more than one token, which the value head cannot tell apart: "
                    "simulate it, with the estimator scope."
                )
            wanted |= tokens
        return wanted

    def _events(self, wanted: np.ndarray, task: str) -> list[int]:
        """The events that together are these tokens: as few as possible, and no token twice."""
        left, found = wanted.copy(), []
        inside = [number for number in range(len(self.sets)) if not (self.sets[number] & ~wanted).any()]
        for number in sorted(inside, key=lambda one: -self.sets[one].sum()):
            tokens = self.sets[number]
            if tokens.any() and not (tokens & ~left).any():
                found.append(number)
                left &= ~tokens
        if left.any():
            missing = [self.embedder.tokenizer.vocabulary.tokens[token] for token in np.flatnonzero(left)[:3]]
            raise InputError(
                f"Task {task}: the value head of {self.model} does not foresee {', '.join(missing)}"
                f"{' and others' if left.sum() > 3 else ''}: simulate it, with the estimator scope, or train a head "
                "whose events hold it (docs/how-to/predict.md)."
            )
        return found
