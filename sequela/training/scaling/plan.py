"""Which runs to make: for each compute budget a few sizes around the expected optimum (an isoFLOP grid)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import asdict, dataclass

from sequela.errors import InputError

TOKENS_PER_PARAMETER = 1000.0  # CoMET's optimum, as long as nothing is known about the corpus
MOST_EPOCHS = 4.0  # up to here repeated data are worth nearly as much as new data (arXiv 2305.16264)
STEP = 2.0  # each size is twice the previous one
# Sizes per budget: a parabola has three coefficients, and fewer than two more runs do not show the noise
FEWEST, MOST = 5, 9
ASPECT = 64.0  # width over depth of `depth`
STRAY = 0.2  # price of another aspect, in ln of the distance from the size wanted


@dataclass(frozen=True)
class Candidate:
    """A shape of decoder that can be trained.

    Attributes:
        depth: layers.
        width: of the hidden state.
        parameters: all weights, tied embeddings counted once.
        flops_per_token: of training (three times the forward pass), exact for the lengths in the corpus.
    """

    depth: int
    width: int
    parameters: int
    flops_per_token: float


@dataclass(frozen=True)
class PlannedRun:
    """One run to make, with a learning-rate schedule over its own `tokens`.

    A run that is a prefix of a longer one still has a high learning rate, and its loss misleads the study
    (arXiv 2203.15556, section 3).

    Attributes:
        budget: FLOPs of the isoFLOP curve that it belongs to.
        tokens: predicted in training, including repeats; times `flops_per_token` this is the budget.
        epochs: how many times each token of the corpus is seen; above 1 data are repeated.
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
    """The runs of a study, and notes on them and on runs left out because they repeat the data too often."""

    runs: tuple[PlannedRun, ...]
    notes: tuple[str, ...]


def ladder(
    measure: Callable[[int, int], tuple[int, float]], depths: Iterable[int], widths: Iterable[int]
) -> list[Candidate]:
    """All shapes whose width is 16 to 256 times the depth, smallest first.

    Args:
        measure: of (depth, width), gives the parameters and the training FLOPs per token.
        depths: layers to choose from.
        widths: of the hidden state to choose from.
    """
    pairs = [(depth, width) for depth in depths for width in widths if 0.25 <= width / depth / ASPECT <= 4]
    return sorted((Candidate(*pair, *measure(*pair)) for pair in pairs), key=lambda shape: shape.parameters)


def expected(tokens_per_parameter: float = TOKENS_PER_PARAMETER) -> Callable[[float], float]:
    """The optimal parameters at a budget, given the optimal tokens per parameter, from budget = 6 N D.

    >>> round(expected(20)(5.76e23) / 1e9)  # Chinchilla
    69
    """
    return lambda budget: math.sqrt(budget / (6 * tokens_per_parameter))


def grid(
    budgets: Sequence[float],
    shapes: Sequence[Candidate],
    unique_tokens: float,
    *,
    sizes: int = 7,
    optimum: Callable[[float], float] | None = None,
    most_epochs: float = MOST_EPOCHS,
) -> StudyPlan:
    """An isoFLOP grid: for each budget `sizes` shapes, each about twice the previous one, around the expected optimum.

    Args:
        budgets: training FLOPs, in any order.
        shapes: what can be trained.
        unique_tokens: of the corpus, that is, of one epoch.
        sizes: 5 to 9 per budget.
        optimum: the parameters expected to be best at a budget: `expected()`, or `IsoFlop.optimum` of finished
            budgets.
        most_epochs: runs that see the data more often are left out and noted.

    Raises:
        InputError: for budgets, shapes or sizes that cannot make a grid.
    """
    if len(budgets) == 0 or not all(0 < budget < math.inf for budget in budgets):
        raise InputError("`flops` needs one or more budgets above 0, for example 1e13 3e13 1e14.")
    if not FEWEST <= sizes <= MOST:
        raise InputError(f"sizes must be {FEWEST} to {MOST}, not {sizes}.")
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
            f"Every run would see the data more than {most_epochs:g} times: lower `flops` "
            f"(now {min(budgets):.3g} and more) or bring a larger corpus ({unique_tokens:,.0f} tokens)."
        )
    return StudyPlan(tuple(runs), tuple(notes))


def nearest(shapes: Sequence[Candidate], parameters: float) -> Candidate:
    """The shape nearest to so many parameters; among several, the one whose width is nearest to 64 times its depth."""

    def far(shape: Candidate) -> float:
        stray = abs(math.log(shape.width / shape.depth / ASPECT))
        return abs(math.log(shape.parameters / parameters)) + STRAY * stray

    return min(shapes, key=far)


def beyond(
    budget: float,
    tried: Set[int],
    edge: str,
    shapes: Sequence[Candidate],
    unique_tokens: float,
    *,
    most_epochs: float = MOST_EPOCHS,
) -> list[PlannedRun]:
    """Two more sizes for a budget whose best size is at the edge of those tried; fewer if there are no more.

    Args:
        tried: the parameters of its runs so far.
        edge: "smallest" or "largest", as `Parabola.edge`.
    """
    last, step = (max(tried), STEP) if edge == "largest" else (min(tried), 1 / STEP)
    new = {nearest(shapes, last * step**steps) for steps in (1, 2)}
    more = [_run(budget, shape, unique_tokens) for shape in new if shape.parameters not in tried]
    return sorted((run for run in more if run.epochs <= most_epochs), key=lambda run: run.parameters)


def _around(shapes: Sequence[Candidate], center: float, sizes: int) -> list[Candidate]:
    """A shape for each step of a geometric ladder around `center`; none if the nearest is half a step off.

    Where the shapes end on one side, the ladder starts there.
    """
    reach = STEP ** ((sizes - 1) / 2)
    low, high = (end(shape.parameters for shape in shapes) for end in (min, max))
    center = max(min(center, high / reach), low * reach)
    wanted = [center * STEP ** (number - (sizes - 1) / 2) for number in range(sizes)]
    candidates = {size: nearest(shapes, size) for size in wanted}
    close = {s for size, s in candidates.items() if abs(math.log(s.parameters / size)) <= math.log(STEP) / 2}
    return sorted(close, key=lambda shape: shape.parameters)


def _run(budget: float, shape: Candidate, unique: float) -> PlannedRun:
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
            f"Budget {budget:.3g}: {len(made) - len(kept)} runs are left out because they would see the data "
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
