"""One token of every row: from logits to a token, and from a token to what is known of the row.

Shape letters: R rows, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sequela.rollout.engine.constraint import Constraint
from sequela.rollout.engine.rollouts import REASONS, Prompts
from sequela.rollout.engine.sampling import Sampling, sample, uniform
from sequela.rollout.engine.tracker import DecodingState, Tracker

LIMIT = REASONS.index("limit")


@dataclass(frozen=True)
class TokenStep:
    """What happens between two passes of the model.

    Attributes:
        constraint: what may follow what; None: anything.
        device: of the model.
    """

    tracker: Tracker
    constraint: Constraint | None
    sampling: Sampling
    device: torch.device | str = "cpu"

    def start(
        self, prompts: Prompts, rows: np.ndarray, seed: Tensor, opening: Tensor | None = None
    ) -> DecodingState:
        """New rollouts of the prompts at these indices, int64 [R], with these seeds, int64 [R].

        `opening`: float32 [R], the uniform numbers of their first tokens; None: the first of each seed's stream.
        """
        if opening is None:
            opening = uniform(seed, torch.zeros_like(seed))
        bits = np.zeros((len(rows), 0), bool) if prompts.bits is None else prompts.bits[rows]
        zeros = torch.zeros(len(rows), dtype=torch.int64, device=self.device)
        return DecodingState(
            seed, opening, zeros, zeros, torch.from_numpy(bits).to(self.device),
            torch.zeros(len(rows), device=self.device), self.tracker.start(prompts, rows),
        )  # fmt: skip

    def choose(self, logits: Tensor, state: DecodingState, first: Tensor | None) -> tuple[Tensor, Tensor]:
        """The next tokens [R], and the mass [R, V] that they were drawn from.

        `logits` [R, V] are overwritten; `first`: float32 [R, V], by what each is multiplied, or None.
        """
        mass = self.weigh(logits, state, first)
        if self.sampling.greedy:
            return mass.argmax(-1), mass
        drawn = torch.where(state.step == 0, state.opening, uniform(state.seed, state.step))
        return sample(mass, drawn), mass

    def weigh(self, logits: Tensor, state: DecodingState, first: Tensor | None) -> Tensor:
        """The mass [R, V] of what may come next, in the place of `logits`, as the tracker wants it sampled."""
        if self.sampling.temperature != 1:
            logits.div_(self.sampling.temperature)
        logits.sub_(logits.amax(-1, keepdim=True))
        cold = logits.clone() if self.sampling.temperature < 1 else None
        mass = logits.exp_()
        if first is not None:
            mass *= first
        if self.constraint is not None and self.constraint.masks:
            state.removed = state.removed + self.constraint.mask(mass, state.node, state.bits)
        if cold is not None:
            mass = self._weigh_cold(cold, state, first)
        return self.tracker.weigh(mass, state)

    def _weigh_cold(self, logits: Tensor, state: DecodingState, first: Tensor | None) -> Tensor:
        """The mass [R, V] of what may come, beside the likeliest that may: beside what may not, it could vanish."""
        allowed = torch.ones_like(logits) if first is None else first.clone()
        if self.constraint is not None and self.constraint.masks:
            self.constraint.mask(allowed, state.node, state.bits)
        logits.masked_fill_(allowed == 0, -torch.inf)
        return logits.sub_(logits.amax(-1, keepdim=True)).exp_().mul_(allowed)

    def take(self, token: Tensor, state: DecodingState, mass: Tensor | None) -> Tensor:
        """Account for these tokens [R] in `state`; int8 [R]: why each row ends, index into REASONS, or -1."""
        reason = self.tracker.take(token, state, mass)
        state.step = state.step + 1
        if self.constraint is not None:
            state.node, state.bits = self.constraint.advance(state.node, state.bits, token)
        reason[(reason < 0) & (state.step >= self.tracker.limit)] = LIMIT
        return reason
