"""The engine: rollouts of many prompts, those of one prompt sharing its prefill.

It knows tokens, how far each moves a clock, and stop conditions as data; nothing of medicine. A rollout depends on the
model, its prompt and its own seed alone, not on what else is computed beside it, nor on how many threads compute.

A lane of rows is computed together (see `decoding`). As rollouts end, others of other prompts take their place.
Nothing is padded. Several lanes on threads of one process would wait for each other in Python more than they
compute; several processes have a lane each (see `sequela.rollout.engine.processes`).

Shape letters: P prompts, R rollouts, V vocabulary, K watched outcomes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from sequela.model.decoder import Decoder
from sequela.model.prepacked import packed
from sequela.progress import Progress, silent
from sequela.rollout.budget import RolloutBudget
from sequela.rollout.engine.constraint import Automaton
from sequela.rollout.engine.decoding import Lane, Source
from sequela.rollout.engine.queue import Ended, Prompts, Queue
from sequela.rollout.tracker import Stop, Watch, Watching
from sequela.tokens.ehr.grammar.grammar import Grammar
from sequela.tokens.ragged import Ragged

Cut = Callable[[np.ndarray, int], np.ndarray]


@dataclass(frozen=True)
class Rollouts:
    """What came of the prompts, in the order of prompts and numbers.

    Attributes:
        prompt, number: int64 [R], whose rollout it is.
        tokens: ragged [R, length], the new tokens.
        clock: int64 [R], minutes at the end.
        reason: int8 [R], index into REASONS.
        hazard: float32 [R, K], the summed conditional probability of each watched outcome, over every position inside
            its horizon up to its first occurrence (the SCOPE score, arXiv 2602.03730).
        reached: float32 [R, K], 1 less the product of the complements of the same hazards (the REACH score, where the
            outcome was avoided).
        happened: int32 [R, K], how often the outcome came while it was watched.
        watched: bool [R, K], whether it was still watched when the rollout ended.
        removed: float32 [R], the share of probability that the grammar took away, summed over positions.
        windows: int64 [R], how often the context was filled and begun anew.
    """

    prompt: np.ndarray
    number: np.ndarray
    tokens: Ragged
    clock: np.ndarray
    reason: np.ndarray
    hazard: np.ndarray
    reached: np.ndarray
    happened: np.ndarray
    watched: np.ndarray
    removed: np.ndarray
    windows: np.ndarray

    @staticmethod
    def of(ended: list[list[Ended]], outcomes: int) -> Rollouts:
        """The rollouts of each prompt, in order."""
        flat = [one for some in ended for one in some]

        def stacked(name: str, kind: type) -> np.ndarray:
            return np.array([getattr(one, name) for one in flat], kind)

        def of_outcomes(name: str, kind: type) -> np.ndarray:
            return stacked(name, kind).reshape(len(flat), outcomes)

        return Rollouts(
            np.repeat(np.arange(len(ended)), [len(some) for some in ended]),
            stacked("number", np.int64),
            Ragged.of([one.tokens for one in flat]),
            stacked("clock", np.int64),
            stacked("reason", np.int8),
            of_outcomes("hazard", np.float32),
            of_outcomes("reached", np.float32),
            of_outcomes("happened", np.int32),
            of_outcomes("watched", bool),
            stacked("removed", np.float32),
            stacked("windows", np.int64),
        )


class Engine:
    """A decoder made ready for rollouts.

    Args:
        minutes: int64 [V], how far each token moves the clock.
        grammar: what may follow what; where it is given, nothing else is sampled (see `well_formed`).
        well_formed: False: the grammar only tells where a row is in an event, and nothing is taken away.
        cut: a whole prompt and a length to at most so many tokens of it. The oldest ones are left out by default.
        precision: fp32, or bf16 for the products of the blocks; the next token's probabilities are always of fp32.
    """

    def __init__(
        self,
        model: Decoder,
        minutes: np.ndarray,
        *,
        grammar: Grammar | None = None,
        well_formed: bool = True,
        cut: Cut = lambda ids, length: ids[-length:],
        precision: str = "fp32",
    ):
        self.device = model.embedding.weight.device
        self.model = packed(model, precision)
        self.precision, self.cut = precision, cut
        self.minutes = torch.from_numpy(minutes).to(self.device)
        self.automaton = None if grammar is None else Automaton(grammar, self.device)
        self.well_formed = well_formed

    def extend(
        self,
        prompts: Prompts,
        plan: RolloutBudget,
        stop: Stop,
        watch: Watch,
        *,
        temperature: float = 1.0,
        greedy: bool = False,
        avoid: bool = False,
        rows: int = 128,
        progress: Progress = silent,
    ) -> Rollouts:
        """Continue every prompt as often as the plan says.

        A rollout that fills the context goes on in a new window: its prompt and its own tokens, cut to the context less
        `room`, are read anew. `room` is the limit, at most half of the context; so no rollout is read anew that fits,
        and a longer one costs at most one token read for each one sampled.

        Args:
            avoid: sample only futures without the watched outcomes, while they are watched. The plan then gets the
                scores `reached`, otherwise `hazard`.
            rows: rollouts at once, about.
        """
        queue = Queue(prompts, plan, len(watch.horizon), lambda one: one.score(avoided=avoid))
        lane = self.lane(queue, stop, watch, rows, temperature=temperature, greedy=greedy, avoid=avoid)
        while lane.step():
            progress(queue.settled, len(prompts.ids), tokens=queue.tokens)
        progress(queue.settled, len(prompts.ids), tokens=queue.tokens)
        return Rollouts.of(queue.ended, len(watch.horizon))

    def lane(self, source: Source, stop: Stop, watch: Watch, rows: int, **choice: float) -> Lane:
        """A lane that makes what the source asks for; `choice` is that of `watching`."""
        return Lane(
            self.model,
            self.precision,
            self.watching(stop, watch, **choice),
            source,
            lambda ids: self.window(ids, stop.limit),
            rows,
        )

    def window(self, ids: np.ndarray, limit: int) -> np.ndarray:
        """The tokens of a whole prompt, or of one with new tokens behind it, that are read before it goes on."""
        context = self.model.config.context
        return self.cut(ids, context - min(limit, context // 2))

    def watching(
        self, stop: Stop, watch: Watch, *, avoid: bool = False, temperature: float = 1.0, greedy: bool = False
    ) -> Watching:
        """What keeps account of rollouts by the rules of this engine."""
        return Watching(
            stop, watch, self.minutes, self.automaton,
            mask=self.well_formed, avoid=avoid, temperature=temperature, greedy=greedy,
        )  # fmt: skip
