"""The engine: rollouts of many prompts, where those of one prompt share its prefill.

It knows tokens, a constraint on what may follow what, and a tracker that says when a rollout ends; what the tokens
stand for is no business of the engine. A rollout depends on the model, its prompt, and its own seed alone: not on what
is computed beside it, nor on how many threads compute.

One batch of rows is decoded together (see `decoding`); as rollouts end, rollouts of other prompts take their places.
Nothing is padded. Several batches on threads of one process would wait for each other in Python more than they compute;
several processes have a batch each (see `sequela.rollout.engine.processes`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sequela.model.decoder import Decoder
from sequela.model.prepacked import packed
from sequela.progress import Progress, silent
from sequela.rollout.engine.constraint import Constraint
from sequela.rollout.engine.decoding import DecodingBatch
from sequela.rollout.engine.queue import PromptBudget, Queue, Source
from sequela.rollout.engine.rollouts import Prompts, Rollouts
from sequela.rollout.engine.sampling import Sampling
from sequela.rollout.engine.step import TokenStep
from sequela.rollout.engine.tracker import Tracker, no_rollouts

Cut = Callable[[np.ndarray, int], np.ndarray]
"""A whole prompt and a length to at most so many tokens of it."""


def newest_tokens(ids: np.ndarray, length: int) -> np.ndarray:
    """The last tokens."""
    return ids[-length:]


@dataclass(frozen=True)
class Window:
    """Which tokens the model reads before it goes on.

    A rollout that fills the context goes on in a new window: its prompt and its own tokens, cut to the context less
    some room for new ones, are read anew. The room is the rollout's limit, at most half of the context; so no rollout
    that fits is read anew, and a longer one costs at most one token read for each one sampled.
    """

    context: int
    cut: Cut = newest_tokens

    def __call__(self, ids: np.ndarray, limit: int) -> np.ndarray:
        """The window of a whole prompt, or of one followed by new tokens, for rollouts of at most `limit` tokens."""
        return self.cut(ids, self.context - min(limit, self.context // 2))


class Extender(Protocol):
    """Continues prompts: this process, several, or another library."""

    def extend(
        self,
        prompts: Prompts,
        budget: PromptBudget,
        tracker: Tracker,
        sampling: Sampling = Sampling(),
        progress: Progress = silent,
    ) -> Rollouts:
        """Continue every prompt as often as the budget says. Progress counts prompts that got all their rollouts."""
        ...


class Engine:
    """A decoder made ready for rollouts.

    Args:
        constraint: what may follow what; None: any token may follow any.
        cut: see `Window`. By default the oldest tokens are left out.
        precision: fp32, or bf16 for the products of the blocks; next-token probabilities are always fp32.

    Raises:
        InputError: for bf16 on a processor without bf16 products.
    """

    def __init__(
        self,
        model: Decoder,
        *,
        constraint: Constraint | None = None,
        cut: Cut = newest_tokens,
        precision: str = "fp32",
    ):
        self.device = model.embedding.weight.device
        self.model = packed(model, precision)
        self.constraint, self.precision = constraint, precision
        self.window = Window(model.config.context, cut)

    def extend(
        self,
        prompts: Prompts,
        budget: PromptBudget,
        tracker: Tracker,
        sampling: Sampling = Sampling(),
        progress: Progress = silent,
    ) -> Rollouts:
        """See `Extender`."""
        queue = Queue(prompts, budget, tracker.scores)
        batch = self.batch(queue, tracker, sampling)
        while batch.step():
            progress(queue.settled, len(prompts), tokens=queue.tokens)
        progress(queue.settled, len(prompts), tokens=queue.tokens)
        return queue.rollouts(no_rollouts(tracker, prompts))

    def batch(self, source: Source, tracker: Tracker, sampling: Sampling) -> DecodingBatch:
        """A batch that makes what the source asks for."""
        step = self.token_step(tracker, sampling)
        return DecodingBatch(
            self.model, self.precision, step, source, lambda ids: self.window(ids, tracker.limit)
        )

    def token_step(self, tracker: Tracker, sampling: Sampling) -> TokenStep:
        """What happens between two passes of this engine's model."""
        return TokenStep(tracker, self.constraint, sampling, self.device)
