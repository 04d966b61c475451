"""When events come after a state: piecewise exponential, as in MOTOR (Steinberg et al. 2023, arXiv 2301.03150).

    -ln likelihood = sum over pieces of rate x days at risk, - ln rate where the event came

Shape letters: S states, E events, B pieces, C hidden width, R rank.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

RARE = -8.0  # ln of a rate a day to begin with: once in eight years


class Hazards(nn.Module):
    """Rates of events a day, by piece, from states.

    Attributes:
        edges: float32 [B], the day on which each piece begins.
    """

    def __init__(self, width: int, events: int, edges: tuple[float, ...], rank: int = 32):
        super().__init__()
        self.register_buffer("edges", torch.tensor(edges, dtype=torch.float32))
        self.pieces = nn.Linear(width, len(edges) * rank)
        self.norm = nn.RMSNorm(rank)
        self.events = nn.Linear(rank, events)
        self.base = nn.Parameter(torch.full((len(edges), events), RARE))

    def forward(self, state: Tensor) -> Tensor:
        """Their natural logarithms, [S, B, E]."""
        rank = self.pieces(state).unflatten(-1, (len(self.edges), -1))
        return self.events(self.norm(rank)) + self.base

    def exposed(self, days: Tensor) -> Tensor:
        """How many of the first `days` [S, E] are in each piece, [S, B, E]."""
        begin = self.edges[:, None]
        length = torch.cat([self.edges.diff(), self.edges.new_tensor([torch.inf])])[:, None]
        return torch.minimum((days[:, None, :] - begin).clamp_min(0), length)

    def loss(self, state: Tensor, days: Tensor, came: Tensor) -> Tensor:
        """-ln likelihood of the waits `days` [S, E], in nats: the mean over S and E."""
        log_rate = self(state)
        piece = torch.searchsorted(self.edges, days, right=True).clamp_min(1) - 1
        risked = (log_rate.exp() * self.exposed(days)).sum(1)
        at_the_end = log_rate.gather(1, piece[:, None, :]).squeeze(1)
        return (risked - torch.where(came, at_the_end, 0.0)).mean()

    def risk(self, state: Tensor, days: float) -> Tensor:
        """How likely each event comes within so many days where nothing else ends the wait, [S, E]."""
        within = self.exposed(state.new_full((len(state), self.base.shape[1]), days))
        return -torch.expm1(-(self(state).exp() * within).sum(1))
