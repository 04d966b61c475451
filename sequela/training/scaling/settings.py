"""The choices of a scaling study."""

from __future__ import annotations

from dataclasses import dataclass

from sequela.training.scaling.plan import MOST_EPOCHS, TOKENS_PER_PARAMETER


@dataclass(frozen=True)
class ScaleSettings:
    """Which models a scaling study trains, and what it is asked."""

    sizes: int = 7
    """How many sizes to train a budget, 5 to 9; more where the best one is the smallest or the largest."""
    seeds: int = 1
    """Train each size so often, from other first weights and in another order."""
    expected_tokens_per_parameter: float = TOKENS_PER_PARAMETER
    """How many tokens a parameter is expected to want: where the sizes of the first budget lie."""
    most_epochs: float = MOST_EPOCHS
    """Leave out runs that would see the data more often."""
    target_flops: float | None = None
    """Plan a run of so many training FLOPs; ten times the largest budget unless given."""
    target_hours: float | None = None
    """Plan a run of so many hours instead, at the speed of the fastest run of the study."""
    floor: float | None = None
    """The entropy of the data in bits per event, where it is known, as of a simulated population."""

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ValueError(f"seeds must be 1 or more, not {self.seeds}")
        for name in ("expected_tokens_per_parameter", "most_epochs", "target_flops", "target_hours", "floor"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, not {value}")
        if self.target_flops and self.target_hours:
            raise ValueError("target_flops and target_hours say the same thing: give one")
