"""The choices of a simulation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SimulateSettings:
    """How futures are sampled."""

    rollouts: int = 20
    """Futures per history."""
    limit: int = 256
    """Most tokens of one future; a future cut there is undecided."""
    temperature: float = 1.0
    """1 samples from the model as it is; anything else is no longer the model's probability."""
    rows: int = 1024
    """Futures computed at once."""
    seed: int = 0
    """Seed of the futures; each depends on it, its patient, its time and its number alone."""

    def __post_init__(self) -> None:
        for name, least in (("rollouts", 1), ("limit", 1), ("rows", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or more, not {getattr(self, name)}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, not {self.temperature}")
