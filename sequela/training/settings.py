"""The choices of a training run, saved with every checkpoint."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from sequela.model.config import SHAPES

REPORT = "train.json"
"""In the folder of a model: how it was trained, and how well."""
SIZES = ("depth", "layers", "width", "heads", "kv_heads", "head_dim", "intermediate")
HOW = ("parallel", "checkpoint_minutes", "checks", "log", "ignore_spikes")
ONE_OF = {
    "optimizer": ("muon", "adamw"),
    "precision": ("auto", "bf16", "fp32"),
    "log": ("none", "tensorboard", "mlflow"),
}
LEAST = dict.fromkeys(SIZES, 1) | {"context": 16, "row_tokens": 16, "batch_tokens": 1}
LEAST |= dict.fromkeys(("seed", "checkpoint_minutes", "checks"), 0)
LEAST |= dict.fromkeys(("final_rate", "second_moment", "warmup", "weight_decay"), 0)
BELOW_ONE = ("second_moment", "warmup")
# Of each group at most one is given
EITHER = (("preset", "depth"), ("epochs", "tokens", "tokens_per_parameter"))
ABOVE_ZERO = (
    "epochs",
    "tokens",
    "tokens_per_parameter",
    "learning_rate",
    "matrix_rate",
    "clip",
    "rope_theta",
)


@dataclass(frozen=True)
class TrainSettings:
    """How a decoder is pretrained. What is None follows from the rest (`sequela.training.derive`)."""

    preset: str | None = None
    """A named size: nano, demo, comet-s (62 M parameters), comet-m (119 M) or comet-l (1.1 B)."""
    depth: int | None = None
    """The one dial, 2 unless given: number of layers; width is 64 times as much, and the rest follows."""
    layers: int | None = None
    """Number of layers, if another than the dial's."""
    width: int | None = None
    """Width of the hidden states."""
    heads: int | None = None
    """Number of attention heads."""
    kv_heads: int | None = None
    """Number of key-value heads, which groups of heads share."""
    head_dim: int | None = None
    """Dimensions of a head."""
    intermediate: int | None = None
    """Width inside the feed-forward layers."""
    family: str = "qwen2"
    """qwen2, qwen3 or llama."""
    rope_theta: float = 10000.0
    """Base of the rotary positions."""
    tied: bool = True
    """One matrix for the embedding and the head."""
    context: int | None = None
    """At most so many tokens are seen at once; longer patients are cut into windows."""
    row_tokens: int | None = None
    """Tokens of whole windows in one pass; a step takes as many passes as it needs."""
    batch_tokens: int | None = None
    """Tokens per optimizer step, rounded to whole rows."""
    epochs: float | None = None
    """Passes over the training patients."""
    tokens: float | None = None
    """Tokens to train on, instead of epochs."""
    tokens_per_parameter: float | None = None
    """Tokens to train on for each parameter, instead of epochs."""
    optimizer: str = "muon"
    """muon (for the matrices inside the blocks; AdamW for the rest) or adamw (for all)."""
    learning_rate: float | None = None
    """Peak learning rate of AdamW."""
    matrix_rate: float | None = None
    """Peak learning rate of Muon."""
    final_rate: float = 0.0
    """Share of the peak at which the cosine ends. CoMET ends at 0.1, which moves the hazards of rare events."""
    second_moment: float = 0.999
    """AdamW's beta 2. A shorter memory, such as 0.95, lowers the hazards of rare events a little."""
    warmup: float = 0.05
    """Share of the tokens with a rising learning rate."""
    weight_decay: float = 0.1
    """Decoupled weight decay of the matrices inside the blocks."""
    clip: float = 1.0
    """Largest gradient norm."""
    seed: int = 0
    """Seed of the weights and of the order of patients."""
    precision: str = "auto"
    """bf16 (weights, gradients and sums stay fp32), fp32, or auto: what is faster on this hardware at this width."""
    parallel: str | None = None
    """Under torchrun: ddp (each process holds all weights; the default there) or fsdp (each holds a share)."""
    checkpoint_minutes: float = 5.0
    """How often the run is saved, so that it can go on after an interruption."""
    checks: int = 10
    """How often some of the tuning patients are scored on the way."""
    log: str = "none"
    """Also write metrics for tensorboard or mlflow, into OUT-log, without a server."""
    ignore_spikes: bool = False
    """Go on when the loss jumps or rises."""

    @property
    def of_result(self) -> dict[str, object]:
        """The settings that decide what comes out, not how one gets there."""
        return {name: value for name, value in asdict(self).items() if name not in HOW}

    def __post_init__(self) -> None:
        for name, known in ONE_OF.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be {' or '.join(known)}, not {getattr(self, name)!r}")
        if self.preset is not None and self.preset not in SHAPES:
            raise ValueError(f"preset must be one of {', '.join(SHAPES)}, not {self.preset!r}")
        for group in EITHER:
            given = [name for name in group if getattr(self, name) is not None]
            if len(given) > 1:
                raise ValueError(f"{' and '.join(given)} exclude each other: give one of them")
        for name, value in asdict(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number, not {value}")
        for name, least in LEAST.items():
            if getattr(self, name) is not None and getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or more, not {getattr(self, name)}")
        for name in ABOVE_ZERO:
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        for name in BELOW_ONE:
            if getattr(self, name) >= 1:
                raise ValueError(f"{name} must be below 1, not {getattr(self, name)}")
        if self.final_rate > 1:
            raise ValueError(f"final_rate must be 1 or less, not {self.final_rate}")
