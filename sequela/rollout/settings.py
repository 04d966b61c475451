"""Settings of a simulation."""

from __future__ import annotations

from dataclasses import dataclass

HEAD = "head"  # answers without rollouts
CONTROLLED = "cv"
ESTIMATORS = ("scope", "mc", "reach", CONTROLLED, "auto", HEAD)
ENGINES = ("own", "vllm")
COLDEST = 0.001  # the likeliest token is as good as certain; far below, logits overflow
RULES = 2
"""How rollouts are counted. 1: an end closed a question at its token; 2: once the clock has passed its moment."""
NO_AVOIDING = (
    "vLLM cannot exclude an outcome while it samples, which reach does, and auto for a single task: "
    "set `estimator` to scope or mc, or `engine` to own"
)
NO_GRAMMAR = "vLLM cannot keep rollouts to the grammar while it samples: set `well_formed` to false, or `engine` to own"


@dataclass(frozen=True)
class SimulateSettings:
    """How futures are simulated."""

    estimator: str = "scope"
    """scope or mc: one pool of rollouts for all tasks; cv: the same, steadied by the model's value head; reach: one per
    task, which excludes its outcome; auto: as few rollouts as are needed; head: none, what the value head says."""
    rollouts: int = 20
    """Rollouts per question; with auto, the maximum."""
    target_error: float | None = None
    """With auto: the standard error to reach for each risk; 0.02 if neither this nor a threshold is given."""
    threshold: float | None = None
    """With auto: roll out until it is clear on which side of this risk a patient is."""
    overdispersion: float | None = None
    """With auto: how much scores vary, as known from other patients: their variance over that of votes; .3 unless
    given."""
    limit: int = 256
    """Maximum tokens per rollout; one that is truncated counts with what it has shown."""
    temperature: float = 1.0
    """1 samples from the model as it is; with anything else, risks are no longer the model's."""
    well_formed: bool = True
    """Sample only tokens that may follow, judging by the training patients."""
    precision: str = "auto"
    """Of the model's blocks: fp32, bf16, or auto, which is bf16 for large models if the processor supports it."""
    rows: int = 128
    """Rollouts computed at once in each process."""
    engine: str = "own"
    """What samples: our own engine, or vllm if it is installed (docs/how-to/predict.md)."""
    seed: int = 0
    """Random seed; a rollout depends on it, the patient, the prediction time, and the rollout's number alone."""

    def __post_init__(self) -> None:
        if self.estimator not in ESTIMATORS:
            raise ValueError(
                f"there is no estimator {self.estimator!r}: choose one of {', '.join(ESTIMATORS)}"
            )
        for name, least in (("rollouts", 1), ("limit", 1), ("rows", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or more, not {getattr(self, name)}")
        if self.estimator == "auto" and self.rollouts < 4:
            raise ValueError(
                f"auto needs `rollouts` of 4 or more to see how they differ, not {self.rollouts}"
            )
        if not self.temperature >= COLDEST:
            raise ValueError(f"temperature must be {COLDEST} or more, not {self.temperature}")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise ValueError(f"precision must be auto, fp32 or bf16, not {self.precision!r}")
        if self.engine not in ENGINES:
            raise ValueError(f"there is no engine {self.engine!r}: choose one of {', '.join(ENGINES)}")
        if self.engine == "vllm" and self.estimator == "reach":
            raise ValueError(NO_AVOIDING)
        if self.engine == "vllm" and self.well_formed:
            raise ValueError(NO_GRAMMAR)
        if self.estimator != "auto" and {self.target_error, self.threshold, self.overdispersion} != {None}:
            raise ValueError(
                "`target_error`, `threshold` and `overdispersion` are for the estimator auto: set `estimator` to auto"
            )
        if self.target_error is not None and not self.target_error > 0:
            raise ValueError(f"target_error must be above 0, not {self.target_error}")
        if self.overdispersion is not None and not self.overdispersion > 0:
            raise ValueError(f"overdispersion must be above 0, not {self.overdispersion}")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise ValueError(f"`threshold` must lie between 0 and 1, not {self.threshold}")
