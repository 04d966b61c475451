"""Settings of a training run, saved with every checkpoint."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import ClassVar

from sequela.model.config import SHAPES

REPORT = "train.json"
"""In the folder of a model: how it was trained, and how well."""
RESIDUALS = "residuals"
"""In it, and in the manifest: what came over what the model expected, on tuning patients."""
SIZES = ("depth", "layers", "width", "heads", "kv_heads", "head_dim", "intermediate")
HOW = ("parallel", "checkpoint_minutes", "log", "ignore_spikes")
ONE_OF = {
    "optimizer": ("muon", "adamw"),
    "precision": ("auto", "bf16", "fp32"),
    "log": ("none", "tensorboard", "mlflow"),
}
LEAST = dict.fromkeys(SIZES, 1) | {"context": 16, "row_tokens": 16, "batch_tokens": 1}
LEAST |= dict.fromkeys(("seed", "checkpoint_minutes", "checks", "patience"), 0)
LEAST |= dict.fromkeys(("final_rate", "second_moment", "warmup", "weight_decay", "lora_rank"), 0)
BELOW_ONE = ("second_moment", "warmup")
ABOVE_ZERO = (
    "epochs",
    "tokens",
    "tokens_per_parameter",
    "learning_rate",
    "matrix_rate",
    "outcome_weight",
    "clip",
    "lora_alpha",
    "rope_theta",
)


@dataclass(frozen=True)
class TrainSettings:
    """How a decoder is trained. Settings that are None follow from the others (`sequela.training.derive`)."""

    # At most one of each group may be given
    EITHER: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("preset", "depth"),
        ("epochs", "tokens", "tokens_per_parameter"),
    )

    preset: str | None = None
    """A named size: nano, demo, comet-s (62 M parameters), comet-m (119 M), or comet-l (1.1 B)."""
    depth: int | None = None
    """Number of layers, 2 by default, from which everything else follows: the width is 64 times as large."""
    layers: int | None = None
    """Number of layers, if it should not set the width too."""
    width: int | None = None
    """Width of the hidden states."""
    heads: int | None = None
    """Number of attention heads."""
    kv_heads: int | None = None
    """Number of key-value heads, each shared by a group of heads."""
    head_dim: int | None = None
    """Dimensions per head."""
    intermediate: int | None = None
    """Inner width of the feed-forward layers."""
    family: str = "qwen2"
    """qwen2, qwen3, or llama."""
    rope_theta: float = 10000.0
    """Base of the rotary position embedding."""
    tied: bool = True
    """Use one matrix for the embedding and the output head."""
    context: int | None = None
    """Tokens that the model sees at once; longer patients are cut into windows."""
    row_tokens: int | None = None
    """Tokens per forward pass; a step takes as many passes as it needs."""
    batch_tokens: int | None = None
    """Tokens per optimizer step, rounded to whole passes."""
    epochs: float | None = None
    """Passes over the training patients, at most (see patience)."""
    tokens: float | None = None
    """Number of training tokens, at most, instead of epochs."""
    tokens_per_parameter: float | None = None
    """Number of training tokens per parameter, at most, instead of epochs."""
    patience: int = 0
    """Cool down and stop when so many checks of tuning patients find the loss of outcomes no better than as many
    before; 0 for never."""
    optimizer: str = "muon"
    """muon (for matrices inside the blocks, AdamW for the rest) or adamw (for everything)."""
    learning_rate: float | None = None
    """Peak learning rate of AdamW."""
    matrix_rate: float | None = None
    """Peak learning rate of Muon."""
    final_rate: float = 0.0
    """Final learning rate as a share of the peak. CoMET ends at 0.1, which biases the hazards of rare events."""
    second_moment: float = 0.999
    """AdamW's beta 2. A shorter memory, such as 0.95, lowers the hazards of rare events slightly."""
    warmup: float = 0.05
    """Share of the tokens over which the learning rate warms up."""
    objective: str = "next_token"
    """What the model learns: next_token; or beside next tokens to foresee what a state leads to (state_jepa), when what
    comes (time_to_event), masked futures (smb_faithful), or several of these (world_model)."""
    options: tuple[str, ...] = ()
    """Options of the objective, as NAME=VALUE."""
    outcome_weight: float = 1.0
    """How many times as much the outcomes count in the loss; hazards stay calibrated."""
    outcomes: tuple[str, ...] = ("diagnosis", "death")
    """The kinds of events that are outcomes."""
    lora_rank: int = 0
    """Train adapters of this rank (LoRA) on all linear maps of the checkpoint that it starts from, and nothing else of
    it; 0: train all weights. They are merged into the weights that are written."""
    lora_alpha: float | None = None
    """How much adapters count, times their rank; twice the rank by default."""
    weight_decay: float = 0.1
    """Decoupled weight decay of matrices inside the blocks."""
    clip: float = 1.0
    """Maximum gradient norm."""
    seed: int = 0
    """Seed for initial weights and the order of patients."""
    precision: str = "auto"
    """bf16 (weights, gradients, and sums stay fp32), fp32, or auto: the faster one on this hardware at this width."""
    parallel: str | None = None
    """Under torchrun: ddp (each process holds all weights; the default) or fsdp (each holds a shard)."""
    checkpoint_minutes: float = 5.0
    """Minutes between checkpoints, from which an interrupted run continues."""
    checks: int = 10
    """How many times to score a sample of tuning patients, if the run takes its full length."""
    log: str = "none"
    """Also write metrics for tensorboard or mlflow into OUT-log; no server needed."""
    ignore_spikes: bool = False
    """Continue when the loss jumps or rises."""

    @property
    def of_result(self) -> dict[str, object]:
        """The settings that determine the result, without those that only determine how it is reached."""
        return {name: value for name, value in self.as_dict.items() if name not in HOW}

    @property
    def as_dict(self) -> dict[str, object]:
        """Every setting, as JSON gives it back."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }

    def __post_init__(self) -> None:
        for name, known in ONE_OF.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be {' or '.join(known)}, not {getattr(self, name)!r}")
        if self.preset is not None and self.preset not in SHAPES:
            raise ValueError(f"preset must be one of {', '.join(SHAPES)}, not {self.preset!r}")
        for group in self.EITHER:
            given = [name for name in group if getattr(self, name) is not None]
            if len(given) > 1:
                names = " and ".join(f"`{name}`" for name in given)
                raise ValueError(f"{names} exclude each other: give one of them")
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
