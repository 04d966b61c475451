"""How frozen embeddings are probed."""

from __future__ import annotations

from dataclasses import dataclass

from sequela.errors import InputError


@dataclass(frozen=True)
class LabelWindow:
    """How labels are read.

    Attributes:
        gap: microseconds from the question that events must come after to count; None: those at the question count too.
        drop_lost: whether those are left out whose record ends before the answer is known.
    """

    gap: int | None = None
    drop_lost: bool = False


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
    gap: str = ""
    """Let nothing count that comes within so long after the question, such as "1 minute" or "24 hours". Horizons
    count from the question: with a gap of a day, 30 days after it end at a horizon of 31 days."""
    drop_lost: bool = False
    """Leave out whose record ends before the answer is known, and let nobody stand for them, as femr and INSPECT do."""
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
        if self.gap:
            self.window  # noqa: B018  says what is wrong with it

    @property
    def window(self) -> LabelWindow:
        """Which events count, and whose answers are known."""
        from sequela.record.duration import parse_duration  # brings polars along

        return LabelWindow(parse_duration(self.gap, "`gap`") if self.gap else None, self.drop_lost)
