"""From finished runs to their optima: a parabola for each compute budget, and power laws through the minima.

Approach 2 of arXiv 2203.15556. Everything is fitted in logarithms: ln loss on ln parameters within a budget, ln optimum
on ln FLOPs between budgets. Intervals are 95 %, from resampling the residuals of the runs around their parabolas.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from sequela.errors import InputError
from sequela.training.scaling.power_law import PowerLaw, fit_power_law, fit_power_law_with_floor
from sequela.training.scaling.runs import FinishedRun, Interval, usable

RESAMPLES = 2000
# In ln parameters: a run this far from the minimum weighs exp(-1/2), because the curve is not quite a parabola
NEAR = math.log(3)
FLAT = 1e-6  # depth of a parabola over the sizes, in ln loss, that is nothing but the rounding of losses in fp32
FEWEST_FOR_FLOOR = 4  # budgets: a floor, a scale, a decay, and one to spare


@dataclass(frozen=True, eq=False)
class Parabola:
    """The fit to one budget: ln loss = c0 + c1 x + c2 x^2 with x = ln(parameters / center).

    Attributes:
        edge: "" if there is a minimum, else the size beyond which it lies: "smallest" or "largest".
        optimum_R, tokens_R, loss_R: ln of the best parameters, their tokens, and their loss: the fit, then the draws.
    """

    budget: float
    runs: tuple[FinishedRun, ...]
    center: float
    coefficients: np.ndarray
    edge: str
    optimum_R: np.ndarray = field(repr=False)
    tokens_R: np.ndarray = field(repr=False)
    loss_R: np.ndarray = field(repr=False)

    @property
    def best(self) -> FinishedRun:
        """The run with the lowest loss."""
        return min(self.runs, key=lambda run: run.loss)

    def as_dict(self) -> dict[str, object]:
        """Plain values, without the minimum if it lies at an edge."""
        sizes = [run.parameters for run in self.runs]
        body: dict[str, object] = {
            "flops": self.budget, "runs": len(self.runs), "smallest": min(sizes), "largest": max(sizes),
            "centre": self.center, "coefficients": self.coefficients.tolist(), "edge": self.edge or None,
            "best_run": {"parameters": self.best.parameters, "tokens": self.best.tokens, "loss": self.best.loss},
            "most_epochs": max(run.epochs for run in self.runs),
        }  # fmt: skip
        if not self.edge:
            names = {"parameters": self.optimum_R, "tokens": self.tokens_R, "loss": self.loss_R}
            body |= {name: Interval.of(np.exp(values)).as_dict() for name, values in names.items()}
        return body


@dataclass(frozen=True, eq=False)
class IsoFlop:
    """The fit of a study. A law is None if the runs do not determine it; `notes` say why."""

    curves: tuple[Parabola, ...]
    parameters: PowerLaw | None
    tokens: PowerLaw | None
    loss: PowerLaw | None
    loss_with_floor: PowerLaw | None
    notes: tuple[str, ...]

    @property
    def bounded(self) -> tuple[Parabola, ...]:
        """Parabolas whose minimum lies within the sizes tried."""
        return tuple(curve for curve in self.curves if not curve.edge)

    @property
    def predicted_loss(self) -> PowerLaw | None:
        """The form to extrapolate: with a floor if there are enough budgets to determine one."""
        return self.loss_with_floor or self.loss

    def optimum(self, budget: float) -> float:
        """Parameters expected to be best at another budget, for planning.

        By the power law; from a single budget, growth with the square root of compute; if that budget's minimum lies at
        an edge, from that edge.
        """
        if self.parameters:
            return float(self.parameters.at(budget)[0])
        near = min(self.bounded or self.curves, key=lambda curve: abs(math.log(curve.budget / budget)))
        known = near.best.parameters if near.edge else math.exp(near.optimum_R[0])
        return known * math.sqrt(budget / near.budget)

    def as_dict(self) -> dict[str, object]:
        """Plain values."""
        laws = {
            "parameters": self.parameters,
            "tokens": self.tokens,
            "loss": self.loss,
            "loss_with_floor": self.loss_with_floor,
        }
        return {
            "budgets": [curve.as_dict() for curve in self.curves],
            **{name: law.as_dict() if law else None for name, law in laws.items()},
            "notes": list(self.notes),
        }


def isoflop(runs: Iterable[FinishedRun], *, resamples: int = RESAMPLES, seed: int = 0) -> IsoFlop:
    """Fit a parabola to each budget and power laws to their minima.

    A budget with fewer than three sizes has no parabola. One whose minimum lies outside the sizes tried has no optimum
    and does not enter the laws. `notes` mention both.

    Raises:
        InputError: without runs, or without a budget of three sizes.
    """
    kept, notes = usable(runs)
    groups = {
        budget: [run for run in kept if run.budget == budget] for budget in sorted({r.budget for r in kept})
    }
    for budget, group in list(groups.items()):
        if (sizes := len({run.parameters for run in group})) < 3:
            notes.append(f"Budget {budget:.3g} has {sizes} of the 3 sizes that a parabola needs.")
            del groups[budget]
    if not groups:
        raise InputError(f"No budget can be fitted: {' '.join(notes)} Run more sizes per budget.")
    sound = [group for budget, group in groups.items() if not _curve(budget, group, None).edge]
    noise = _noise(sound or groups.values(), resamples, seed)
    if noise is None:
        notes.append("No budget has more than three runs: the fits have no intervals.")
    curves = tuple(_curve(budget, group, noise) for budget, group in groups.items())
    notes += [_edge_note(curve) for curve in curves if curve.edge]
    notes += [
        f"Budget {curve.budget:.3g}: the minimum is uncertain, {share:.0%} of its draws have none."
        for curve in curves
        if not curve.edge and (share := float(np.isnan(curve.optimum_R).mean())) > 0.025
    ]
    bounded = [curve for curve in curves if not curve.edge]
    if len(bounded) < 2:
        notes.append(
            f"Exponents need two budgets with a minimum within the sizes tried; there are {len(bounded)}."
        )
        return IsoFlop(curves, None, None, None, None, tuple(notes))
    flops = np.array([curve.budget for curve in bounded])
    minima = [
        np.stack(rows) for rows in zip(*((c.optimum_R, c.tokens_R, c.loss_R) for c in bounded), strict=True)
    ]
    laws = [fit_power_law(flops, minimum_KR) for minimum_KR in minima]
    notes += [
        f"The best {name} scatter {law.scatter:.1f} times as much between budgets as their runs explain: "
        "the intervals are as much wider."
        for name, law in (("parameters", laws[0]), ("tokens", laws[1]))
        if law.scatter > 1
    ]
    floored = None
    if len(bounded) >= FEWEST_FOR_FLOOR:
        floored = fit_power_law_with_floor(flops, np.exp(minima[2]))
    else:
        notes.append(
            f"A floor of the loss needs {FEWEST_FOR_FLOOR} budgets with a minimum; there are {len(bounded)}."
        )
    return IsoFlop(curves, *laws, floored, tuple(notes))


def _design(group: Sequence[FinishedRun]) -> tuple[float, np.ndarray, np.ndarray]:
    """The center of the sizes, the matrix [1, x, x^2], and ln loss."""
    log_n = np.log([run.parameters for run in group])
    x = log_n - log_n.mean()
    return math.exp(log_n.mean()), np.vander(x, 3, increasing=True), np.log([run.loss for run in group])


def _projection(design: np.ndarray, log_loss: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The matrix [3, n] from ln losses to coefficients, and its weights [n], which favor runs near the minimum."""
    x = design[:, 1]
    vertex, near = 0.0, math.inf
    for _ in range(3):
        weight = np.exp(-0.5 * ((x - vertex) / near) ** 2)
        root = np.sqrt(weight)
        project = np.linalg.pinv(design * root[:, None]) * root
        _, c1, c2 = project @ log_loss
        vertex = np.clip(-c1 / (2 * c2), x.min(), x.max()) if c2 > 0 else x[np.argmin(log_loss)]
        near = NEAR
    return project, weight


@dataclass(frozen=True, eq=False)
class _Noise:
    """Draws the noise of a run (in ln loss) from the residuals of all runs, in proportion to their weights."""

    pool: np.ndarray
    weight: np.ndarray
    generator: np.random.Generator
    resamples: int

    def draw(self, count: int) -> np.ndarray:
        """[count, resamples]."""
        return self.generator.choice(self.pool, size=(count, self.resamples), p=self.weight)


def _noise(groups: Iterable[Sequence[FinishedRun]], resamples: int, seed: int) -> _Noise | None:
    """Residuals of all budgets, each scaled up for the degrees of freedom of the fit; None if none are left."""
    residuals, weights, spare = [], [], 0
    for group in groups:
        _, design, log_loss = _design(group)
        project, weight = _projection(design, log_loss)
        hat = design @ project
        spare += len(group) - 3
        if len(group) > 3:
            left = log_loss - hat @ log_loss
            residuals.append(left / np.sqrt(np.maximum(1 - np.diag(hat), 1e-3)))
            weights.append(weight)
    if spare <= 0:
        return None
    pool, weight = np.concatenate(residuals), np.concatenate(weights) / np.concatenate(weights).sum()
    wider = stats.t.ppf(0.975, spare) / stats.norm.ppf(0.975)  # for few degrees of freedom
    return _Noise((pool - weight @ pool) * wider, weight, np.random.default_rng(seed), resamples)


def _curve(budget: float, group: Sequence[FinishedRun], noise: _Noise | None) -> Parabola:
    center, design, log_loss = _design(group)
    project, _ = _projection(design, log_loss)
    fit = project @ log_loss
    drawn = (design @ fit)[:, None] + noise.draw(len(group)) if noise else np.empty((len(group), 0))
    c0, c1, c2 = np.c_[fit, project @ drawn]
    x, reach = design[:, 1], np.ptp(design[:, 1])
    with np.errstate(divide="ignore", invalid="ignore"):
        vertex = np.where(c2 > 0, -c1 / (2 * c2), np.nan)
    inside = fit[2] * reach**2 > FLAT and x.min() < vertex[0] < x.max()  # False for NaN too
    falls = fit @ (design[np.argmax(x)] - design[np.argmin(x)]) < 0
    edge = "" if inside else ("largest" if falls else "smallest")
    vertex = np.clip(vertex, x.min() - reach, x.max() + reach)  # for a draw that is nearly straight
    loss = c0 + c1 * vertex + c2 * vertex**2
    to_tokens = np.polynomial.Polynomial.fit(x, np.log([run.tokens for run in group]), 2)
    return Parabola(budget, tuple(group), center, fit, edge, math.log(center) + vertex, to_tokens(vertex), loss)


def _edge_note(curve: Parabola) -> str:
    sizes = [run.parameters for run in curve.runs]
    below = curve.edge == "smallest"
    size, side, word = (min(sizes), "below", "smaller") if below else (max(sizes), "above", "larger")
    return (
        f"Budget {curve.budget:.3g}: the best size lies {side} the {curve.edge} tried ({size:,.0f} parameters): run "
        f"{word} sizes. It does not enter the laws."
    )
