"""Has a joint-embedding objective collapsed? Where target and predictor agree because nothing tells patients apart, the
loss is perfect and the states are worthless.

Rank and skill against persistence do not see every collapse; scale and skill against the mean do
(docs/records/world_model.md).

Shape letters: Q pairs of a state and a future, C hidden width.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from sequela.errors import InputError
from sequela.training.objectives.target import normalized

LEAST_SPREAD = 0.02
FEWEST = 50  # pairs, to judge


@dataclass(frozen=True)
class Panel:
    """Figures of a check.

    Attributes:
        pairs: Q.
        state_spread, future_spread: mean standard deviation of a feature over pairs, of states and of futures, as a
            share of the root mean square of the features.
        skill: 1 - squared error of what is foreseen over the variance of futures: 0 for who foresees their mean.
        persistence_skill: the same over the error of the state itself.
        rank: effective rank of the states, exp of the entropy of their principal variances.
    """

    pairs: int
    state_spread: float
    future_spread: float
    skill: float
    persistence_skill: float
    rank: float

    def as_dict(self) -> dict[str, float]:
        """By name."""
        return asdict(self)

    def check(self) -> None:
        """Raises InputError if patients can no longer be told apart."""
        if self.pairs < FEWEST:
            return
        for name, value in (("states", self.state_spread), ("futures", self.future_spread)):
            if not value >= LEAST_SPREAD:
                raise InputError(
                    f"the model has collapsed: the {name} of different patients differ by {value:.1%} of their size. "
                    "Give next tokens more weight, or the moving average a longer memory (`decay` nearer to 1)."
                )


def panel(state: Tensor, foreseen: Tensor, future: Tensor) -> Panel:
    """Of states, what was foreseen from each, and what came, all float32 [Q, C]; futures before normalization."""
    target = normalized(future)
    error = ((foreseen - target) ** 2).mean()
    variance = ((target - target.mean(0)) ** 2).mean().clamp_min(1e-12)
    stays = ((normalized(state) - target) ** 2).mean().clamp_min(1e-12)
    values = torch.linalg.svdvals(state - state.mean(0)) ** 2
    share = (values / values.sum().clamp_min(1e-12)).clamp_min(1e-12)
    return Panel(
        len(state), _spread(state), _spread(future), float(1 - error / variance), float(1 - error / stays),
        float(torch.exp(-(share * share.log()).sum())),
    )  # fmt: skip


def _spread(x: Tensor) -> float:
    return float(x.std(0, correction=0).mean() / (x**2).mean().sqrt().clamp_min(1e-12))
