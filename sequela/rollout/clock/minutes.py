"""How far each token moves the clock of a rollout.

A time token moves it by a gap of its class, drawn by a random number of its own: of the rollout's seed and the token's
place, and of no token, so that nothing else depends on it and nothing is stored.

Shape letters: R rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import numpy as np
import torch
from torch import Tensor

from sequela.rollout.engine.rollouts import Prompts, Rollouts
from sequela.rollout.engine.sampling import seeds, uniform
from sequela.tokens.ehr.clock import TIME_PREFIX, Intervals
from sequela.tokens.ehr.scheme import EhrScheme
from sequela.tokens.ragged import within

GAPS = -1  # the stream of the gaps; numbers of rollouts and tokens are 0 or more


@dataclass(frozen=True, eq=False)
class TokenClock:
    """How far tokens move the clock.

    Attributes:
        intervals: the classes of time tokens.
        interval_V: int64 [V], the class of each token; -1 for tokens that move no time.
    """

    intervals: Intervals
    interval_V: np.ndarray

    @staticmethod
    def of(scheme: EhrScheme) -> TokenClock:
        """The clock of a vocabulary."""
        interval_V = np.full(len(scheme.vocabulary), -1)
        times = scheme.vocabulary.matching(TIME_PREFIX)
        interval_V[times] = np.arange(len(times))
        return TokenClock(scheme.intervals, interval_V)

    @staticmethod
    def constant(minutes_V: np.ndarray) -> TokenClock:
        """A clock that each token moves by the same number of minutes wherever it comes."""
        return TokenClock(
            Intervals.constant(minutes_V, minutes_V), np.where(minutes_V > 0, np.arange(len(minutes_V)), -1)
        )

    @cached_property
    def key(self) -> Hashable:
        """Equal for clocks that do the same."""
        arrays = (self.intervals.quantiles, self.interval_V)
        return tuple((array.shape, sha256(array.tobytes()).hexdigest()) for array in arrays)

    def moves(self, token: Tensor, seed: Tensor, step: Tensor, clock: Tensor) -> Tensor:
        """By how many minutes each token [R] moves its clock, int64 [R].

        The first token of a rollout carries the clock to 0, now, or beyond: its gap is known to be longer than the time
        that passed before.

        Args:
            seed: int64 [R], of the rollouts.
            step: int64 [R], the place of each token in its rollout.
            clock: int64 [R], minutes at the end of the prompt, where a token is the first; read of no other.
        """
        place, before = step.cpu().numpy(), clock.cpu().numpy()
        drawn = uniform(seeds(seed, torch.full_like(seed, GAPS)), step).cpu().numpy()
        silent = np.where(place == 0, -before, 0)
        interval = self.interval_V[token.cpu().numpy()]
        out = np.zeros(len(interval), np.int64)
        timed = np.flatnonzero(interval >= 0)
        out[timed] = self.intervals.minutes(interval[timed], drawn[timed], silent[timed] - 1)
        return torch.from_numpy(np.maximum(out, silent)).to(token.device)

    def moves_of(self, prompts: Prompts, rollouts: Rollouts) -> np.ndarray:
        """The same of every token of finished rollouts, int64 [tokens]."""
        lengths, prompt = rollouts.tokens.lengths, rollouts.prompt
        seed = seeds(torch.from_numpy(prompts.key[prompt]), torch.from_numpy(rollouts.number))
        clock = np.zeros(len(prompt), np.int64) if prompts.clock is None else prompts.clock[prompt]
        moved = self.moves(
            torch.from_numpy(rollouts.tokens.flat.astype(np.int64)),
            seed.repeat_interleave(torch.from_numpy(lengths)),
            torch.from_numpy(within(lengths)),
            torch.from_numpy(np.repeat(clock, lengths)),
        )
        return moved.numpy()
