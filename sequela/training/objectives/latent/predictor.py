"""The predictor of a world model: from a state to what a window of time after it will be like, and on from there.

Shape letters: Q states, C hidden width, K windows in a row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FIRST, AGAIN = 0, -1  # horizons: the one that rollouts begin with, and the same from what was foreseen


class Predictor(nn.Module):
    """From a state and a horizon to the normalized mean of the future, [Q, C], and the logit that there is one."""

    def __init__(self, width: int, horizons: int):
        super().__init__()
        self.horizon = nn.Parameter(torch.randn(horizons + 1, width) * 0.02)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.came = nn.Linear(width, 1)

    def forward(self, state: Tensor, horizon: Tensor, action: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`action`: what is done within the horizon, [Q, C]; None: unknown."""
        foreseen = self._next(state + self.horizon[horizon], action)
        return foreseen, self.came(foreseen).squeeze(-1)

    def _next(self, seen: Tensor, action: Tensor | None) -> Tensor:
        if action is not None:
            seen = seen + action
        return self.down(F.gelu(self.up(self.norm(seen))))

    def rolled(self, state: Tensor, actions: Sequence[Tensor | None]) -> Tensor:
        """The K windows in a row, each as long as the first horizon, [Q, K, C]: each from what is foreseen of the one
        before. `actions`: within each of them, as in `forward`."""
        seen, windows = state + self.horizon[FIRST], []
        for action in actions:
            windows.append(self._next(seen, action))
            seen = windows[-1] + self.horizon[AGAIN]
        return torch.stack(windows, 1)
