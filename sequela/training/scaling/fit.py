"""From finished runs to power laws: a parabola for each budget, and its minimum against compute.

Approach 2 of arXiv 2203.15556. Everything is fitted in logarithms: ln loss against ln parameters within a budget, ln
optimum against ln FLOPs between budgets. Intervals are 95 %, by resampling the residuals of the runs around their
parabolas.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from sequela.errors import InputError

RESAMPLES = 2000
NEAR = math.log(
    3
)  # in ln parameters: a run this far from the minimum weighs exp(-1/2), for the curve is no parabola
MISFIT = 0.05  # probability below which the scatter between budgets is more than the scatter of runs explains
DECAYS = np.geomspace(0.005, 1.0, 240)  # of the loss with compute
FEWEST_FOR_FLOOR = 4  # budgets: a floor, a scale and a decay, and one to spare


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        budget: FLOPs of the isoFLOP curve that it belongs to.
        parameters: all weights, embeddings counted once when tied.
        tokens: trained on, repeats included.
        loss: on held-out patients, in any unit that is the same for all runs (bits per event).
        unique_tokens: of the corpus.
        seed: a second seed of the same run is a second run; the same seed is a duplicate.
    """

    budget: float
    parameters: float
    tokens: float
    loss: float
    unique_tokens: float = math.inf
    seed: int = 0

    @property
    def epochs(self) -> float:
        """How often each token was seen."""
        return self.tokens / self.unique_tokens


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval; `low` and `high` are NaN where the runs cannot tell."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @staticmethod
    def of(values_R: np.ndarray) -> Interval:
        """Of the fit (index 0) and its resampled draws (the rest); draws that are not defined are left out."""
        value, draws = float(values_R[0]), values_R[1:][np.isfinite(values_R[1:])]
        if not len(draws):
            return Interval(value)
        low, high = np.percentile(draws, (2.5, 97.5))
        return Interval(value, float(low), float(high))

    def holds(self, truth: float) -> bool:
        """Whether `truth` lies inside."""
        return self.low <= truth <= self.high

    def as_dict(self) -> dict[str, float | None]:
        """`value`, `low`, `high`; None where not defined, since JSON has no NaN."""
        pairs = {"value": self.value, "low": self.low, "high": self.high}
        return {name: x if math.isfinite(x) else None for name, x in pairs.items()}


@dataclass(frozen=True, eq=False)
class Curve:
    """One budget: ln loss = c0 + c1 x + c2 x^2 with x = ln(parameters / centre).

    Attributes:
        edge: why there is no minimum: "smallest" or "largest" (it lies beyond that size), or "" where there is one.
        optimum_R, tokens_R, loss_R: ln of the best parameters, their tokens and their loss: the fit, then the draws.
    """

    budget: float
    runs: tuple[Run, ...]
    centre: float
    coefficients: np.ndarray
    edge: str
    optimum_R: np.ndarray = field(repr=False)
    tokens_R: np.ndarray = field(repr=False)
    loss_R: np.ndarray = field(repr=False)

    @property
    def best(self) -> Run:
        """The run with the lowest loss."""
        return min(self.runs, key=lambda run: run.loss)

    def as_dict(self) -> dict[str, object]:
        """Plain values; the minimum is left out where it lies at an edge."""
        sizes = [run.parameters for run in self.runs]
        body: dict[str, object] = {
            "flops": self.budget, "runs": len(self.runs), "smallest": min(sizes), "largest": max(sizes),
            "centre": self.centre, "coefficients": self.coefficients.tolist(), "edge": self.edge or None,
            "best_run": {"parameters": self.best.parameters, "tokens": self.best.tokens, "loss": self.best.loss},
            "most_epochs": max(run.epochs for run in self.runs),
        }  # fmt: skip
        if not self.edge:
            names = {"parameters": self.optimum_R, "tokens": self.tokens_R, "loss": self.loss_R}
            body |= {name: Interval.of(np.exp(values)).as_dict() for name, values in names.items()}
        return body


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """y = floor + scale * flops^exponent; index 0 is the fit, the rest are draws.

    Attributes:
        scatter: how many times wider the intervals were made because the budgets scatter more than their runs explain.
    """

    exponent_R: np.ndarray
    log_scale_R: np.ndarray
    floor_R: np.ndarray
    scatter: float = 1.0

    @property
    def exponent(self) -> Interval:
        """With its interval."""
        return Interval.of(self.exponent_R)

    def at(self, flops: float) -> np.ndarray:
        """y at a compute: the fit, then the draws."""
        return self.floor_R + np.exp(self.log_scale_R + self.exponent_R * math.log(flops))

    def as_dict(self) -> dict[str, object]:
        """Plain values."""
        body = {"exponent": self.exponent.as_dict(), "scale": float(np.exp(self.log_scale_R[0]))}
        if self.floor_R.any():
            body["floor"] = Interval.of(self.floor_R).as_dict()
        return {**body, "scatter": self.scatter}


@dataclass(frozen=True, eq=False)
class IsoFlop:
    """The study's fit. A law is None where the runs cannot tell it; `notes` say why."""

    curves: tuple[Curve, ...]
    parameters: PowerLaw | None
    tokens: PowerLaw | None
    loss: PowerLaw | None
    loss_with_floor: PowerLaw | None
    notes: tuple[str, ...]

    @property
    def bounded(self) -> tuple[Curve, ...]:
        """Curves whose minimum lies inside the sizes tried."""
        return tuple(curve for curve in self.curves if not curve.edge)

    @property
    def predicted_loss(self) -> PowerLaw | None:
        """Of the two forms the one to extrapolate: with a floor where there are budgets enough to tell it."""
        return self.loss_with_floor or self.loss

    def optimum(self, budget: float) -> float:
        """Parameters expected to be best at another budget, for planning it.

        The power law; from a single budget, growth with the square root of compute; from one whose minimum lies at an
        edge, that edge.
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


def usable(runs: Iterable[Run], most_epochs: float = math.inf) -> tuple[list[Run], list[str]]:
    """The runs that can be fitted, and a sentence for each kind that cannot: failed, double, data repeated too often.

    Raises InputError where none is left.
    """
    runs = list(runs)
    sound = [run for run in runs if math.isfinite(run.loss) and run.loss > 0]
    once = list({(run.budget, run.parameters, run.tokens, run.seed): run for run in sound}.values())
    kept = [run for run in once if run.epochs <= most_epochs]
    notes = []
    for lost, words in (
        (len(runs) - len(sound), "without a finite loss above 0"),
        (len(sound) - len(once), "that repeat another of the same size, tokens and seed"),
        (len(once) - len(kept), f"that saw the data more than {most_epochs:g} times"),
    ):
        if lost:
            notes.append(f"{lost} of {len(runs)} runs {words} are left out of the fits.")
    if not kept:
        why = f": {' '.join(notes)}" if notes else "."
        raise InputError(f"No run can be fitted{why} Finish the runs of `sequela scale` first.")
    return kept, notes


def isoflop(runs: Iterable[Run], *, resamples: int = RESAMPLES, seed: int = 0) -> IsoFlop:
    """Fit a parabola to each budget and power laws to their minima.

    A budget with fewer than three sizes has no parabola; one whose minimum lies outside the sizes tried has no optimum
    and does not enter the laws. Both are told in `notes`.

    Raises:
        InputError: for no runs, or no budget with three sizes.
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
        raise InputError(f"No budget can be fitted: {' '.join(notes)} Run more sizes a budget.")
    sound = [group for budget, group in groups.items() if not _curve(budget, group, None).edge]
    noise = _noise(sound or groups.values(), resamples, seed)
    if noise is None:
        notes.append("No run to spare beyond three sizes a budget: the fits have no intervals.")
    curves = tuple(_curve(budget, group, noise) for budget, group in groups.items())
    notes += [_edge_note(curve) for curve in curves if curve.edge]
    notes += [
        f"Budget {curve.budget:.3g}: the minimum is uncertain, {share:.0%} of its draws have none."
        for curve in curves
        if not curve.edge and (share := float(np.isnan(curve.optimum_R).mean())) > 0.025
    ]
    found = [curve for curve in curves if not curve.edge]
    if len(found) < 2:
        notes.append(
            f"Exponents need two budgets with a minimum among the sizes tried; there are {len(found)}."
        )
        return IsoFlop(curves, None, None, None, None, tuple(notes))
    flops = np.array([curve.budget for curve in found])
    minima = [
        np.stack(rows) for rows in zip(*((c.optimum_R, c.tokens_R, c.loss_R) for c in found), strict=True)
    ]
    laws = [_power_law(flops, minimum_KR) for minimum_KR in minima]
    notes += [
        f"The best {name} scatter {law.scatter:.1f} times as much between budgets as their runs explain: "
        "the intervals are as much wider."
        for name, law in (("parameters", laws[0]), ("tokens", laws[1]))
        if law.scatter > 1
    ]
    floored = None
    if len(found) >= FEWEST_FOR_FLOOR:
        floored = _power_law_with_floor(flops, np.exp(minima[2]))
    else:
        notes.append(
            f"A floor of the loss needs {FEWEST_FOR_FLOOR} budgets with a minimum; there are {len(found)}."
        )
    return IsoFlop(curves, *laws, floored, tuple(notes))


def _design(group: Sequence[Run]) -> tuple[float, np.ndarray, np.ndarray]:
    """The centre of the sizes, the matrix [1, x, x^2] and ln loss."""
    log_n = np.log([run.parameters for run in group])
    x = log_n - log_n.mean()
    return math.exp(log_n.mean()), np.vander(x, 3, increasing=True), np.log([run.loss for run in group])


def _projection(design: np.ndarray, log_loss: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The matrix [3, n] that takes ln losses to coefficients, and the weights [n] in it: more near the minimum."""
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
    """Draws of a run's noise (in ln loss) from the residuals of all runs, in proportion to their weights."""

    pool: np.ndarray
    weight: np.ndarray
    generator: np.random.Generator
    resamples: int

    def draw(self, count: int) -> np.ndarray:
        """[count, resamples]."""
        return self.generator.choice(self.pool, size=(count, self.resamples), p=self.weight)


def _noise(groups: Iterable[Sequence[Run]], resamples: int, seed: int) -> _Noise | None:
    """Residuals of all budgets together, each enlarged by what the fit takes up; None where there are none to spare."""
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
    wider = stats.t.ppf(0.975, spare) / stats.norm.ppf(0.975)  # few runs to spare
    return _Noise((pool - weight @ pool) * wider, weight, np.random.default_rng(seed), resamples)


def _curve(budget: float, group: Sequence[Run], noise: _Noise | None) -> Curve:
    centre, design, log_loss = _design(group)
    project, _ = _projection(design, log_loss)
    fit = project @ log_loss
    drawn = (design @ fit)[:, None] + noise.draw(len(group)) if noise else np.empty((len(group), 0))
    c0, c1, c2 = np.c_[fit, project @ drawn]
    x, reach = design[:, 1], np.ptp(design[:, 1])
    with np.errstate(divide="ignore", invalid="ignore"):
        vertex = np.where(c2 > 0, -c1 / (2 * c2), np.nan)
    inside = x.min() < vertex[0] < x.max()  # False for NaN too
    falls = fit @ (design[np.argmax(x)] - design[np.argmin(x)]) < 0
    edge = "" if inside else ("largest" if falls else "smallest")
    vertex = np.clip(vertex, x.min() - reach, x.max() + reach)  # of a draw that is nearly straight
    loss = c0 + c1 * vertex + c2 * vertex**2
    to_tokens = np.polynomial.Polynomial.fit(x, np.log([run.tokens for run in group]), 2)
    return Curve(budget, tuple(group), centre, fit, edge, math.log(centre) + vertex, to_tokens(vertex), loss)


def _edge_note(curve: Curve) -> str:
    beyond = "below the smallest" if curve.edge == "smallest" else "above the largest"
    size = (
        min(run.parameters for run in curve.runs)
        if curve.edge == "smallest"
        else max(r.parameters for r in curve.runs)
    )
    word = "smaller" if curve.edge == "smallest" else "larger"
    return (
        f"Budget {curve.budget:.3g}: the best size lies {beyond} tried ({size:,.0f} parameters): run {word} sizes. "
        "It does not enter the laws."
    )


def _weights(values_KR: np.ndarray) -> np.ndarray:
    """1 / variance of each budget's minimum; equal where there are no draws."""
    if values_KR.shape[1] < 3:
        return np.ones(len(values_KR))
    low, high = np.nanpercentile(values_KR[:, 1:], (15.87, 84.13), axis=1)
    spread = np.maximum((high - low) / 2, 1e-9)
    return 1 / spread**2


def _power_law(flops_K: np.ndarray, log_y_KR: np.ndarray) -> PowerLaw:
    """Weighted least squares of ln y on ln flops."""
    weight = _weights(log_y_KR)
    x = np.log(flops_K)
    x_mean, y_mean_R = weight @ x / weight.sum(), weight @ log_y_KR / weight.sum()
    slope_R = (weight * (x - x_mean)) @ (log_y_KR - y_mean_R) / (weight @ (x - x_mean) ** 2)
    scatter, spare = 1.0, len(x) - 2
    if spare and log_y_KR.shape[1] > 1:
        left = log_y_KR[:, 0] - y_mean_R[0] - slope_R[0] * (x - x_mean)
        chi2 = float(weight @ left**2)
        if stats.chi2.sf(chi2, spare) < MISFIT:
            scatter = math.sqrt(chi2 / spare)
    slope_R = slope_R[0] + scatter * (slope_R - slope_R[0])
    y_mean_R = y_mean_R[0] + scatter * (y_mean_R - y_mean_R[0])
    return PowerLaw(slope_R, y_mean_R - slope_R * x_mean, np.zeros_like(slope_R), scatter)


def _power_law_with_floor(flops_K: np.ndarray, y_KR: np.ndarray) -> PowerLaw:
    """y = E + K flops^-c: for each c of a grid the best E >= 0 and K are a line's, then the best c."""
    weight = _weights(y_KR)
    weight = weight / weight.sum()
    relative = flops_K / flops_K.max()
    best = np.full(y_KR.shape[1], np.inf)
    c_R, k_R, e_R = np.zeros_like(best), np.zeros_like(best), np.zeros_like(best)
    for c in DECAYS:
        z = relative**-c
        z_mean, y_mean = weight @ z, weight @ y_KR
        k = (weight * (z - z_mean)) @ (y_KR - y_mean) / (weight @ (z - z_mean) ** 2)
        k = np.where(y_mean < k * z_mean, (weight * z) @ y_KR / (weight @ z**2), k)  # a floor below 0
        e = np.maximum(y_mean - k * z_mean, 0)
        wrong = weight @ (y_KR - e - k * z[:, None]) ** 2
        better = wrong < best  # False for NaN too
        best = np.where(better, wrong, best)
        c_R, k_R, e_R = (np.where(better, new, old) for new, old in ((c, c_R), (k, k_R), (e, e_R)))
    valid = np.isfinite(best) & (k_R > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_scale = np.where(valid, np.log(k_R) + c_R * math.log(flops_K.max()), np.nan)
    return PowerLaw(np.where(valid, -c_R, np.nan), log_scale, e_R)
