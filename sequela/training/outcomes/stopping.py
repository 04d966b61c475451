"""When a run cools down and ends: by its loss on tuning patients, not by a fixed number of epochs.

A cosine falls to its end at a length that has to be known before, and a run stopped on the way would stop at a high
rate, with weights that still shake. So the rate stays at its peak until the loss stalls, or the length planned leaves
only the cool-down; then it falls in a straight line, over a `COOLDOWN` share of the run (arXiv 2405.18392). A loss
stalls when the mean of `patience` checks is not below the mean of as many before: one check alone shakes as the weights
do. The weights that a check found best are kept, and the run ends with them.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field

from sequela.training.settings import TrainSettings

COOLDOWN = 0.3


@dataclass
class Stopping:
    """The state of this, the same in all processes.

    Attributes:
        total: tokens planned, the most that the run takes.
        patience: how many checks are compared with as many before; 0: its length is fixed, and its rate a cosine.
        warmup: share of `total` over which the rate rises.
        final: the last rate, as a share of the peak.
        losses: of the checks so far.
        best_tokens: tokens seen at the lowest of them.
        stalled: tokens at which it began to cool down because the loss stalled.
    """

    total: int
    patience: int
    warmup: float = 0.0
    final: float = 0.0
    losses: list[float] = field(default_factory=list)
    best_tokens: int = 0
    stalled: int | None = None

    @staticmethod
    def of(settings: TrainSettings) -> Stopping:
        """Before the first step of a run, of whose settings every one is filled in."""
        assert settings.tokens is not None
        return Stopping(int(settings.tokens), settings.patience, settings.warmup, settings.final_rate)

    @property
    def cools_from(self) -> float:
        """Tokens at which the rate begins to fall, as it is known now."""
        planned = (1 - COOLDOWN) * self.total
        return planned if self.stalled is None else min(planned, self.stalled)

    @property
    def end(self) -> int:
        """Tokens after which the run ends, as it is known now."""
        return min(self.total, math.ceil(self.cools_from / (1 - COOLDOWN)))

    @property
    def best(self) -> float:
        """The lowest loss of a check."""
        return min(self.losses, default=math.inf)

    def judge(self, loss: float, tokens: int) -> bool:
        """Take the loss of a check after so many tokens; returns whether it is the best so far."""
        better = loss < self.best
        self.losses.append(loss)
        if better:
            self.best_tokens = tokens
        return better

    def stalls(self, tokens: int) -> bool:
        """Whether the loss stalled at this check, so that the run cools down from here on: true once."""
        few = self.patience
        if not few or len(self.losses) < 2 * few or not self.warmup * self.total < tokens < self.cools_from:
            return False
        if sum(self.losses[-few:]) < sum(self.losses[-2 * few : -few]):
            return False
        self.stalled = tokens
        return True

    def rate(self, tokens: float) -> float:
        """Share of the peak rate after so many tokens: linear warm-up, the peak, and a straight fall; or a cosine.

        >>> run = Stopping(total=1000, patience=3, warmup=0.1)
        >>> [round(run.rate(tokens), 2) for tokens in (50, 100, 700, 850, 1000)]
        [0.5, 1.0, 1.0, 0.5, 0.0]
        """
        warm = self.warmup * self.total
        if tokens < warm:
            return tokens / warm
        start, end = (max(self.cools_from, warm), self.end) if self.patience else (warm, self.total)
        done = min(1.0, max(0.0, tokens - start) / max(1e-9, end - start))
        left = 1 - done if self.patience else (1 + math.cos(math.pi * done)) / 2
        return self.final + (1 - self.final) * left

    def summary(self, weights_of: int) -> dict:
        """For `train.json`; the weights are those after so many tokens."""
        return {"planned_tokens": self.total, "stalled_tokens": self.stalled, "weights_of_tokens": weights_of}

    def state(self) -> dict:
        """What `restore` needs, as JSON values."""
        return asdict(self)

    @staticmethod
    def restored(state: dict) -> Stopping:
        """What `state` returned."""
        return Stopping(**state)
