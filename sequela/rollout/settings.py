"""The choices of a simulation."""

from __future__ import annotations

from dataclasses import dataclass

ESTIMATORS = ("scope", "mc", "reach", "auto")
BACKENDS = ("own", "vllm")
NO_AVOIDING = (
    "vLLM cannot avoid an outcome while it samples, as reach does, and auto for a single task: take --estimator scope "
    "or mc, or --backend own"
)
NO_GRAMMAR = (
    "vLLM cannot keep futures to the grammar while it samples: add --no-well-formed, or take --backend own"
)


@dataclass(frozen=True)
class SimulateSettings:
    """How futures are sampled."""

    estimator: str = "scope"
    """scope or mc (one pool for all tasks), reach (one for each, its outcome avoided), auto (as few as will do)."""
    rollouts: int = 20
    """Futures per history; with auto, the most."""
    target_error: float | None = None
    """With auto: the standard error that a risk may have; 0.02 where neither this nor a threshold is given."""
    threshold: float | None = None
    """With auto: the risk of which a patient must be surely on one side."""
    limit: int = 256
    """Most tokens of one future; a future cut there is undecided."""
    temperature: float = 1.0
    """1 samples from the model as it is; anything else is no longer the model's probability."""
    well_formed: bool = True
    """Sample only tokens that may follow, by what the training patients show."""
    precision: str = "auto"
    """fp32 or bf16, in which the model's blocks compute; auto is bf16 where the processor has it, for large models."""
    rows: int = 128
    """Futures computed at once in each process."""
    backend: str = "own"
    """What samples: our own engine, or vllm where that is installed (docs/how-to/predict.md)."""
    seed: int = 0
    """Seed of the futures; each depends on it, its patient, its time and its number alone."""

    def __post_init__(self) -> None:
        if self.estimator not in ESTIMATORS:
            raise ValueError(
                f"there is no estimator {self.estimator!r}: choose one of {', '.join(ESTIMATORS)}"
            )
        for name, least in (("rollouts", 1), ("limit", 1), ("rows", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or more, not {getattr(self, name)}")
        if self.estimator == "auto" and self.rollouts < 4:
            raise ValueError(f"auto needs 4 rollouts or more to see how they differ, not {self.rollouts}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, not {self.temperature}")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise ValueError(f"precision must be auto, fp32 or bf16, not {self.precision!r}")
        if self.backend not in BACKENDS:
            raise ValueError(f"there is no backend {self.backend!r}: choose one of {', '.join(BACKENDS)}")
        if self.backend == "vllm" and self.estimator == "reach":
            raise ValueError(NO_AVOIDING)
        if self.backend == "vllm" and self.well_formed:
            raise ValueError(NO_GRAMMAR)
        if self.estimator != "auto" and (self.target_error is not None or self.threshold is not None):
            raise ValueError("a target error or a threshold is for the estimator auto: add --estimator auto")
        if self.target_error is not None and not self.target_error > 0:
            raise ValueError(f"target_error must be above 0, not {self.target_error}")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1, not {self.threshold}")
