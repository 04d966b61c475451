"""The choices of a training run, saved with every checkpoint."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainSettings:
    """How a decoder is pretrained."""

    depth: int = 2
    """The one dial: number of layers; width is 64 times as much."""
    context: int = 1024
    """Length of a packed row, in tokens; longer patients are cut into windows."""
    batch_tokens: int = 4096
    """Tokens per optimiser step."""
    epochs: float = 5.0
    """Passes over the training patients."""
    optimiser: str = "muon"
    """muon (for the matrices inside the blocks; AdamW for the rest) or adamw (for all)."""
    learning_rate: float = 6e-3
    """Peak learning rate of AdamW."""
    matrix_rate: float = 6e-3
    """Peak learning rate of Muon."""
    final_rate: float = 0.0
    """Share of the peak at which the cosine ends. CoMET ends at 0.1, which leaves hazards of rare events too low."""
    second_moment: float = 0.999
    """AdamW's beta 2. A shorter memory, such as 0.95, leaves the hazards of rare events too low."""
    warmup: float = 0.05
    """Share of the steps with a rising learning rate."""
    weight_decay: float = 0.1
    """Decoupled weight decay of the matrices inside the blocks."""
    clip: float = 1.0
    """Largest gradient norm."""
    seed: int = 0
    """Seed of the weights and of the order of patients."""

    def __post_init__(self) -> None:
        if self.optimiser not in ("muon", "adamw"):
            raise ValueError(f"optimiser must be muon or adamw, not {self.optimiser!r}")
        for name, least in (("depth", 1), ("context", 16), ("batch_tokens", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or more, not {getattr(self, name)}")
        for name in ("epochs", "learning_rate", "matrix_rate", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
