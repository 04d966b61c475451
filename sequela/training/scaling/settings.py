"""Settings of a scaling study."""

from __future__ import annotations

from dataclasses import dataclass

from sequela.training.scaling.plan import MOST_EPOCHS, TOKENS_PER_PARAMETER


@dataclass(frozen=True)
class ScaleSettings:
    """Which models a scaling study trains, and what it advises on."""

    sizes: int = 7
    """Number of model sizes per budget, 5 to 9; more are added if the best one is the smallest or the largest."""
    seeds: int = 1
    """Number of runs of each size, with different initial weights and data order."""
    expected_tokens_per_parameter: float = TOKENS_PER_PARAMETER
    """Expected optimal tokens per parameter: centers the sizes of the first budget."""
    most_epochs: float = MOST_EPOCHS
    """Leave out runs that would see the data more often than this."""
    target_flops: float | None = None
    """Advise on a run of this many training FLOPs; ten times the largest budget unless given."""
    target_hours: float | None = None
    """Advise on a run of this many hours instead, at the speed of the fastest run of the study."""
    floor: float | None = None
    """Entropy of the data in bits per event, if known, as for a synthetic population."""

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ValueError(f"seeds must be 1 or more, not {self.seeds}")
        for name in ("expected_tokens_per_parameter", "most_epochs", "target_flops", "target_hours", "floor"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, not {value}")
        if self.target_flops and self.target_hours:
            raise ValueError("`target_flops` and `target_hours` exclude each other: give one of them")
