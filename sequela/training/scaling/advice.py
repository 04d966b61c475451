"""The answer of a scaling study: what to train on this corpus with a compute budget, and how far to trust it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sequela.errors import InputError
from sequela.training.scaling import parametric
from sequela.training.scaling.isoflop import IsoFlop, Parabola, isoflop
from sequela.training.scaling.parametric import Law
from sequela.training.scaling.plan import MOST_EPOCHS, Candidate, nearest
from sequela.training.scaling.runs import FinishedRun, Interval, usable

PUBLISHED = {
    "CoMET (arXiv 2508.12104)": {"parameters": 0.520, "tokens": 0.512, "tokens_per_parameter": 1000},
    "Chinchilla, isoFLOP (arXiv 2203.15556)": {
        "parameters": 0.49,
        "tokens": 0.51,
        "tokens_per_parameter": 20,
    },
    "Chinchilla, law refitted (arXiv 2404.10102)": {
        "parameters": 0.513,
        "tokens": 0.487,
        "tokens_per_parameter": 20,
    },
}
GRID = 600  # sizes tried between the smallest and the largest shape
KNOTS = 60  # of them at which FLOPs are those of a shape
FAR = 10.0  # extrapolation in compute beyond which the answer warns
APART = 2.0  # factor between the sizes of the two methods beyond which it warns


@dataclass(frozen=True)
class Setting:
    """What an answer may choose from.

    Attributes:
        shapes: what can be trained.
        unique_tokens: of the corpus.
        most_epochs: how often the corpus may be seen.
        unit: of the loss, for people.
    """

    shapes: Sequence[Candidate]
    unique_tokens: float
    most_epochs: float = MOST_EPOCHS
    unit: str = "bits per event"


def study(
    runs: Sequence[FinishedRun], setting: Setting, budget: float | None = None, *, seed: int = 0
) -> dict[str, object]:
    """Everything that follows from the runs, as written to `fit.json` (docs/explain/scaling.md).

    Args:
        budget: FLOPs to give advice on; ten times the largest budget studied unless given.

    Raises:
        InputError: if neither a parabola nor the law can be fitted.
    """
    kept, notes = usable(runs, setting.most_epochs)
    laws = fits(kept, setting, seed)
    if laws.isoflop is None and laws.law is None:
        raise InputError(f"The runs cannot be fitted: {' '.join([*notes, *laws.notes])}")
    return {
        "unit": setting.unit,
        "runs": len(kept),
        "unique_tokens": setting.unique_tokens if math.isfinite(setting.unique_tokens) else None,
        "most_epochs": max(run.epochs for run in kept),
        "isoflop": laws.isoflop.as_dict() if laws.isoflop else None,
        "parametric": laws.law.as_dict() if laws.law else None,
        "check": check(kept, setting, seed=seed),
        "advice": advise(laws, setting, budget or 10 * laws.studied, seed),
        "published": compare(laws.isoflop, laws.law),
        "notes": [*notes, *laws.notes],
    }


def check(runs: Sequence[FinishedRun], setting: Setting, *, seed: int = 0) -> dict[str, object] | None:
    """Hold back the largest budget, fit the rest, and compare their prediction with it; None without a second budget.

    `holds` says whether the 95 % interval of predicted minus observed includes 0; None if one of them is unknown.
    """
    budgets = sorted({run.budget for run in runs})
    if len(budgets) < 2:
        return None
    rest, held = ([r for r in runs if (r.budget == budgets[-1]) == last] for last in (False, True))
    laws = fits(rest, setting, seed)
    seen = fits(held, setting, seed + 1).isoflop
    curve = seen.curves[0] if seen else None
    result: dict[str, object] = {
        "held_back_flops": budgets[-1],
        "extrapolation": budgets[-1] / budgets[-2],
        "observed": curve.as_dict() if curve else None,
        "isoflop": None,
        "parametric": None,
        "notes": laws.notes,
    }
    if laws.isoflop and laws.isoflop.parameters and laws.isoflop.predicted_loss:
        sizes, losses = (
            law.at(budgets[-1]) for law in (laws.isoflop.parameters, laws.isoflop.predicted_loss)
        )
        result["isoflop"] = _compared(sizes, losses, curve)
    if laws.law:
        best = _best(laws.law, setting, budgets[-1])
        result["parametric"] = (_compared(*best, curve) if best else {}) | _run_by_run(laws.law, held, seed)
    return result


def compare(isoflop: IsoFlop | None, law: Law | None) -> dict[str, object]:
    """Published exponents, and whether they lie inside this study's intervals (None if it has none).

    The study's tokens per parameter are those of its largest budget with a minimum.
    """
    measured: dict[str, dict[str, Interval]] = {}
    if isoflop and isoflop.parameters and isoflop.tokens:
        measured["isoflop"] = {"parameters": isoflop.parameters.exponent, "tokens": isoflop.tokens.exponent}
    if law:
        measured["parametric"] = {"parameters": law.parameters_exponent, "tokens": law.tokens_exponent}
    others: dict[str, object] = {}
    for name, values in PUBLISHED.items():
        inside = {
            method: {
                which: mine.holds(values[which]) if math.isfinite(mine.low) else None
                for which, mine in exponents.items()
            }
            for method, exponents in measured.items()
        }
        others[name] = {**values, "inside": inside}
    last = isoflop.bounded[-1] if isoflop and isoflop.bounded else None
    ratio = Interval.of(np.exp(last.tokens_R - last.optimum_R)).as_dict() if last else None
    return {"others": others, "tokens_per_parameter": ratio}


@dataclass(frozen=True, eq=False)
class Laws:
    """What is fitted to the runs, or None; `notes` say why. `studied` is the largest budget."""

    isoflop: IsoFlop | None
    law: Law | None
    studied: float
    notes: list[str]


def fits(runs: Sequence[FinishedRun], setting: Setting, seed: int = 0) -> Laws:
    """Both fits; a sentence for each that cannot be made."""
    results, notes = [], []
    for fit in (
        lambda: isoflop(runs, seed=seed),
        lambda: parametric.fit(runs, seed=seed, most_epochs=setting.most_epochs),
    ):
        try:
            results.append(fit())
        except InputError as error:
            results.append(None)
            notes.append(str(error))
    return Laws(*results, max(run.budget for run in runs), notes)


def advise(laws: Laws, setting: Setting, budget: float, seed: int = 0) -> dict[str, object]:
    """What to train with `budget` FLOPs, and the loss that one such run is expected to reach, with its interval.

    The size that the law L(N, D) prefers, discounting repeated tokens and within the epochs allowed; beside it the size
    and loss by the isoFLOP power laws, which do not know that the corpus ends.

    Raises:
        InputError: if nothing can be fitted, or no shape can spend the budget within the epochs allowed.
    """
    if not 0 < budget < math.inf:
        raise InputError(f"The compute to advise on must be above 0 FLOPs, not {budget:g}.")
    least = min(budget / shape.flops_per_token for shape in setting.shapes) / setting.unique_tokens
    if least > setting.most_epochs:
        raise InputError(
            f"With {budget:.3g} FLOPs every shape offered would see the data more than {setting.most_epochs:g} times: "
            "ask about less compute, offer larger shapes, or bring a larger corpus."
        )
    notes = _warnings(laws, setting, budget)
    power = _power(laws, budget, seed)
    best = _best(laws.law, setting, budget) if laws.law else None
    if best:
        sizes, losses = best
        answer = {"parameters": Interval.of(sizes), "loss": _one_run(losses, laws.law.spread, seed)}
    elif power:
        answer = {"parameters": power["parameters"], "loss": power["loss"]}
    else:
        raise InputError(
            f"No advice on {budget:.3g} FLOPs: {' '.join([*laws.notes, *notes]) or 'the runs determine no law.'}"
        )
    most = setting.most_epochs * setting.unique_tokens
    allowed = [shape for shape in setting.shapes if budget / shape.flops_per_token <= most]
    shape = nearest(allowed or setting.shapes, answer["parameters"].value)
    tokens = budget / shape.flops_per_token
    if power and best and abs(math.log(power["parameters"].value / best[0][0])) > math.log(APART):
        notes.append(
            f"The two methods disagree: {best[0][0]:,.0f} parameters by the law, {power['parameters'].value:,.0f} by "
            "the isoFLOP minima."
        )
    sentence = (
        f"With {budget:.3g} FLOPs: train {shape.parameters:,} parameters ({shape.depth} layers of width {shape.width}) "
        f"on {tokens:,.0f} tokens ({tokens / setting.unique_tokens:.2g} epochs), expected loss "
        f"{_words(answer['loss'])} {setting.unit}."
    )
    return {
        "flops": budget, "extrapolation": budget / laws.studied, "answer": sentence,
        "depth": shape.depth, "width": shape.width, "tokens": tokens, "epochs": tokens / setting.unique_tokens,
        **{name: value.as_dict() for name, value in answer.items()},
        "isoflop": {name: value.as_dict() for name, value in power.items()} if power else None,
        "notes": notes,
    }  # fmt: skip


def _warnings(laws: Laws, setting: Setting, budget: float) -> list[str]:
    notes = []
    if (factor := budget / laws.studied) > FAR:
        notes.append(
            f"This is {factor:,.0f} times the largest budget studied: the interval covers only the noise of runs."
        )
    free = _best(laws.law, Setting(setting.shapes, math.inf), budget) if laws.law else None
    if free:
        size = float(free[0][0])
        epochs = budget / float(_flops_per_token(setting.shapes, size)) / setting.unique_tokens
        if epochs > setting.most_epochs:
            notes.append(
                f"With enough data the best size would be {size:,.0f} parameters, which here means {epochs:.1f} "
                f"epochs, more than the {setting.most_epochs:g} allowed. More patients would help more than "
                "more compute."
            )
        sizes = [shape.parameters for shape in setting.shapes]
        if not min(sizes) * 1.01 < size < max(sizes) * 0.99:
            notes.append(
                "The best size lies at the edge of the shapes offered: offer smaller or larger ones."
            )
    return notes


def _power(laws: Laws, budget: float, seed: int) -> dict[str, Interval] | None:
    """The answer by the isoFLOP power laws."""
    iso = laws.isoflop
    if not (iso and iso.parameters and iso.tokens and iso.predicted_loss):
        return None
    sizes, tokens = (Interval.of(law.at(budget)) for law in (iso.parameters, iso.tokens))
    spread = laws.law.spread if laws.law else 0.0
    return {
        "parameters": sizes,
        "tokens": tokens,
        "loss": _one_run(iso.predicted_loss.at(budget), spread, seed),
    }


def _flops_per_token(shapes: Sequence[Candidate], parameters: np.ndarray | float) -> np.ndarray:
    """For sizes between the shapes: interpolated in logarithms between those that would be trained."""
    sizes = np.geomspace(*(end(shape.parameters for shape in shapes) for end in (min, max)), KNOTS)
    knots = sorted({nearest(shapes, size) for size in sizes}, key=lambda shape: shape.parameters)
    x, y = (np.log([getattr(shape, name) for shape in knots]) for name in ("parameters", "flops_per_token"))
    return np.exp(np.interp(np.log(parameters), x, y))


def _best(law: Law, setting: Setting, budget: float) -> tuple[np.ndarray, np.ndarray] | None:
    """The best parameters [R] and their loss [R], by the fit and each draw; None if all need too many epochs."""
    sizes = [shape.parameters for shape in setting.shapes]
    size_G = np.geomspace(min(sizes), max(sizes), GRID)
    tokens_G = budget / _flops_per_token(setting.shapes, size_G)
    allowed = tokens_G <= setting.most_epochs * setting.unique_tokens
    if not allowed.any():
        return None
    size_G, tokens_G = size_G[allowed], tokens_G[allowed]
    loss_GR = law.loss(size_G, parametric.effective(tokens_G, setting.unique_tokens))
    best_R = loss_GR.argmin(0)
    return size_G[best_R], loss_GR[best_R, np.arange(loss_GR.shape[1])]


def _one_run(loss_R: np.ndarray, spread: float, seed: int) -> Interval:
    """The prediction interval of one run: uncertainty of the law plus scatter of runs around it."""
    scatter = np.exp(spread * np.random.default_rng(seed).standard_normal(len(loss_R)))
    scatter[0] = 1.0
    return Interval.of(loss_R * scatter)


def _compared(size_R: np.ndarray, loss_R: np.ndarray, curve: Parabola | None) -> dict[str, object]:
    """Predicted optimum and loss, compared with those of the budget held back."""
    predicted = {"parameters": size_R, "loss": loss_R}
    observed = {} if curve is None or curve.edge else {"parameters": curve.optimum_R, "loss": curve.loss_R}
    result: dict[str, object] = {}
    for name, values in predicted.items():
        body = Interval.of(values).as_dict()
        if name in observed:
            count = min(len(values), len(observed[name]))
            off = Interval.of(np.log(values[:count]) - observed[name][:count])
            body |= {"ratio": math.exp(off.value), "holds": off.holds(0) if math.isfinite(off.low) else None}
        result[name] = body
    return result


def _run_by_run(law: Law, runs: Sequence[FinishedRun], seed: int) -> dict[str, object]:
    """The error of the law on the runs held back, and how many lie inside their prediction intervals."""
    tokens = parametric.effective([run.tokens for run in runs], [run.unique_tokens for run in runs])
    predicted = law.loss([run.parameters for run in runs], tokens)
    observed = np.array([run.loss for run in runs])
    inside = [_one_run(row, law.spread, seed + k).holds(observed[k]) for k, row in enumerate(predicted)]
    error = float(np.mean(np.abs(predicted[:, 0] / observed - 1)))
    return {"runs": len(runs), "mean_relative_error": error, "runs_inside": int(sum(inside))}


def _words(loss: Interval) -> str:
    return (
        f"{loss.value:.4g} [{loss.low:.4g}, {loss.high:.4g}]"
        if math.isfinite(loss.low)
        else f"{loss.value:.4g}"
    )
