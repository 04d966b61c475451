"""Which runs to make: for each compute budget a few sizes around the expected optimum (an isoFLOP grid)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import asdict, dataclass

from sequela.errors import InputError

TOKENS_PER_PARAMETER = 1000.0  # CoMET's optimum, where nothing is known yet about the corpus
MOST_EPOCHS = 4.0  # up to here repeated data are worth nearly as much as new ones (arXiv 2305.16264)
STEP = 2.0  # each size is twice the one before
FEWEST, MOST = (
    5,
    9,
)  # sizes a budget: a parabola has three numbers, and fewer than two runs to spare tell no noise
ASPECT = 64.0  # width over depth of the dial
STRAY = 0.2  # how far from that a shape may stray for a size nearer to the one wanted


@dataclass(frozen=True)
class Shape:
    """A decoder that can be trained.

    Attributes:
        depth: layers.
        width: of the hidden state.
        parameters: all weights, embeddings counted once when tied.
        flops_per_token: of training (three times the forward pass), exact at the corpus's lengths.
    """

    depth: int
    width: int
    parameters: int
    flops_per_token: float


@dataclass(frozen=True)
class PlannedRun:
    """One run to make. Its learning rate falls, and its warm-up is a share, over its own `tokens` alone.

    A run that was cut short from a longer one has a learning rate that is still high, and a loss that misleads the
    study (arXiv 2203.15556, section 3).

    Attributes:
        budget: FLOPs of the isoFLOP curve that it belongs to.
        tokens: predicted in training, repeats included; times `flops_per_token` this is the budget.
        epochs: how often each token of the corpus is seen; above 1 the data are repeated.
    """

    budget: float
    depth: int
    width: int
    parameters: int
    flops_per_token: float
    tokens: int
    epochs: float

    def as_dict(self) -> dict[str, float | None]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class StudyPlan:
    """The runs of a study, and words on them and on those it leaves out because they repeat the data too often."""

    runs: tuple[PlannedRun, ...]
    notes: tuple[str, ...]


def ladder(
    measure: Callable[[int, int], tuple[int, float]], depths: Iterable[int], widths: Iterable[int]
) -> list[Shape]:
    """Shapes of every depth and width that is 16 to 256 times its depth, smallest first.

    Args:
        measure: of (depth, width), gives the parameters and the training FLOPs per token.
        depths: layers to choose from.
        widths: of the hidden state to choose from.
    """
    pairs = [(depth, width) for depth in depths for width in widths if 0.25 <= width / depth / ASPECT <= 4]
    return sorted((Shape(*pair, *measure(*pair)) for pair in pairs), key=lambda shape: shape.parameters)


def expected(tokens_per_parameter: float = TOKENS_PER_PARAMETER) -> Callable[[float], float]:
    """The optimal parameters at a budget if a parameter wants so many tokens, from budget = 6 N D.

    >>> round(expected(20)(5.76e23) / 1e9)  # Chinchilla
    69
    """
    return lambda budget: math.sqrt(budget / (6 * tokens_per_parameter))


def grid(
    budgets: Sequence[float],
    shapes: Sequence[Shape],
    unique_tokens: float,
    *,
    sizes: int = 7,
    optimum: Callable[[float], float] | None = None,
    most_epochs: float = MOST_EPOCHS,
) -> StudyPlan:
    """An isoFLOP grid: for each budget `sizes` shapes, each about twice the one before, around the expected optimum.

    Args:
        budgets: training FLOPs, in any order.
        shapes: what can be trained.
        unique_tokens: of the corpus, that is of one epoch.
        sizes: 5 to 9 for each budget.
        optimum: of a budget, gives the parameters expected to be best: `expected()`, or `IsoFlop.optimum` of the
            budgets that are finished.
        most_epochs: runs that see the data more often are left out, and told.

    Raises:
        InputError: for budgets, shapes or sizes that cannot make a grid.
    """
    if len(budgets) == 0 or not all(0 < budget < math.inf for budget in budgets):
        raise InputError("--flops needs one or more budgets above 0, for example --flops 1e13 3e13 1e14.")
    if not FEWEST <= sizes <= MOST:
        raise InputError(f"--sizes must be {FEWEST} to {MOST} a budget, not {sizes}.")
    if not shapes:
        raise InputError("No shape can be trained: allow more depths or widths.")
    if not unique_tokens > 0:
        raise InputError("The corpus holds no training tokens: tokenize a dataset with a training split.")
    optimum = optimum or expected()
    runs, notes = [], []
    for budget in sorted(set(budgets)):
        chosen = _around(shapes, optimum(budget), sizes)
        made = [_run(budget, shape, unique_tokens) for shape in chosen]
        kept = [run for run in made if run.epochs <= most_epochs]
        runs += kept
        notes += _notes(budget, sizes, made, kept, most_epochs)
    if not runs:
        raise InputError(
            f"Every run would see the data more than {most_epochs:g} times: lower --flops "
            f"(now {min(budgets):.3g} and more) or bring a larger corpus ({unique_tokens:,.0f} tokens)."
        )
    return StudyPlan(tuple(runs), tuple(notes))


def nearest(shapes: Sequence[Shape], parameters: float) -> Shape:
    """The shape of about so many parameters; of several, the one whose width is nearest to 64 times its depth."""

    def far(shape: Shape) -> float:
        stray = abs(math.log(shape.width / shape.depth / ASPECT))
        return abs(math.log(shape.parameters / parameters)) + STRAY * stray

    return min(shapes, key=far)


def beyond(
    budget: float,
    tried: Set[int],
    edge: str,
    shapes: Sequence[Shape],
    unique_tokens: float,
    *,
    most_epochs: float = MOST_EPOCHS,
) -> list[PlannedRun]:
    """Two more sizes of a budget whose best one is at the edge of those tried; fewer where there are no more.

    Args:
        tried: the parameters of its runs so far.
        edge: "smallest" or "largest", as `Curve.edge`.
    """
    last, step = (max(tried), STEP) if edge == "largest" else (min(tried), 1 / STEP)
    new = {nearest(shapes, last * step**place) for place in (1, 2)}
    more = [_run(budget, shape, unique_tokens) for shape in new if shape.parameters not in tried]
    return sorted((run for run in more if run.epochs <= most_epochs), key=lambda run: run.parameters)


def _around(shapes: Sequence[Shape], centre: float, sizes: int) -> list[Shape]:
    """A shape for each step of a geometric ladder around `centre`; none where the nearest is half a step off.

    Where the shapes end on one side, the ladder begins there.
    """
    reach = STEP ** ((sizes - 1) / 2)
    low, high = (end(shape.parameters for shape in shapes) for end in (min, max))
    centre = max(min(centre, high / reach), low * reach)
    wanted = [centre * STEP ** (place - (sizes - 1) / 2) for place in range(sizes)]
    found = {size: nearest(shapes, size) for size in wanted}
    close = {s for size, s in found.items() if abs(math.log(s.parameters / size)) <= math.log(STEP) / 2}
    return sorted(close, key=lambda shape: shape.parameters)


def _run(budget: float, shape: Shape, unique: float) -> PlannedRun:
    tokens = max(1, round(budget / shape.flops_per_token))
    return PlannedRun(
        budget, shape.depth, shape.width, shape.parameters, shape.flops_per_token, tokens, tokens / unique,
    )  # fmt: skip


def _notes(
    budget: float, sizes: int, made: list[PlannedRun], kept: list[PlannedRun], most_epochs: float
) -> list[str]:
    notes = []
    if len(made) < sizes:
        notes.append(
            f"Budget {budget:.3g}: {len(made)} of {sizes} sizes, because no other shape is near enough."
        )
    if len(kept) < len(made):
        most = max(run.epochs for run in made)
        notes.append(
            f"Budget {budget:.3g}: {len(made) - len(kept)} runs are left out, because they would see the data "
            f"up to {most:.1f} times (at most {most_epochs:g})."
        )
    repeated = [run.epochs for run in kept if run.epochs > 1]
    if repeated:
        notes.append(
            f"Budget {budget:.3g}: {len(repeated)} of {len(kept)} runs repeat the data, up to "
            f"{max(repeated):.1f} times."
        )
    if 0 < len(kept) < FEWEST:
        notes.append(f"Budget {budget:.3g}: fewer than {FEWEST} sizes; its minimum will be uncertain.")
    return notes
