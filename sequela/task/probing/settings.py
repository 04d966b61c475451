"""How frozen embeddings are probed."""

from __future__ import annotations

from dataclasses import dataclass

from sequela.errors import InputError


@dataclass(frozen=True)
class ProbeSettings:
    """What is fitted on the embeddings, and beside them."""

    reference: str = ""
    """The arm that the others are compared with; the first unless given."""
    pool: bool = False
    """Also fit one head on the rows of all landmarks together, in which each patient counts once."""
    cox: bool = False
    """Also fit Cox heads, for tasks with a horizon, as arms of their own (ARM_cox)."""
    few_shot: tuple[int, ...] = ()
    """Also fit heads on so many patients with and so many without the outcome, such as 1 8 64."""
    replicates: int = 5
    """How often the patients of few-shot heads are drawn."""
    baselines: bool = True
    """Also fit the baselines and a head on last values, on the same rows."""
    strong: bool = True
    """Also fit the strong baselines, which take longer."""
    margin: float = 0.02
    """Two arms are as good as each other if the 95 % interval of their difference lies within so much of AUROC, or
    within that share of the reference's error."""
    seed: int = 0
    """Seed of the bootstrap, of the few-shot draws and of the baselines."""

    def __post_init__(self) -> None:
        if not self.margin > 0:
            raise InputError(f"`margin` must be above 0, not {self.margin}.")
