"""Where a value head and a simulation by the same model say the same, and where they do not.

Both are answers of one model to one question, so a gap beyond the error of sampling says that one of them is off: the
head was trained too little or the outcome is none of its events, or rollouts drift from what the model has seen.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl

from sequela.record.questions import QUESTION
from sequela.task.answers.prediction import BY_HEAD, SIMULATION
from sequela.task.kinds import Kind
from sequela.task.scoring.bootstrap import Estimate, interval, resamples

CLIP = 1e-3  # risks further out are as if here, where their logits are compared
THIRDS = ("lowest", "middle", "highest")
FEWEST = 3  # questions


def agreement(kind: Kind, answers: dict[str, pl.DataFrame], seed: int = 0) -> dict[str, object]:
    """How the answers of the head compare with those of the simulation beside it.

    Args:
        answers: by model, as `read_predictions` gives them.
        seed: of the bootstrap of patients.

    Returns:
        Empty unless both answered `FEWEST` questions. Else `n` questions that both answered; `correlation` (of risks:
        of their logits; None where one of the two is constant); `difference`, head less simulation, as `value`, `low`
        and `high`; `sampling`, the root mean square of the simulation's error of sampling (None if it is not known);
        and `thirds`, by the mean of both answers: `n`, the mean `simulation` and `head`, and the `difference`.
    """
    if SIMULATION not in answers or BY_HEAD not in answers:
        return {}
    simulated = answers[SIMULATION].select(*QUESTION, "prediction", "standard_error")
    headed = answers[BY_HEAD].select(*QUESTION, head="prediction")
    both = simulated.join(headed, on=QUESTION, maintain_order="left").drop_nulls(["prediction", "head"])
    if both.height < FEWEST:
        return {}
    patient, error = both["subject_id"].to_numpy(), both["standard_error"].drop_nulls().to_numpy()
    y_N, x_N = both["prediction"].to_numpy(), both["head"].to_numpy()
    order = np.argsort((x_N + y_N) / 2, kind="stable")
    parts = [np.sort(part) for part in np.array_split(order, len(THIRDS))]
    means = _differences(x_N - y_N, patient, [np.arange(len(x_N)), *parts], seed)
    return {
        "n": both.height,
        "correlation": _correlation(*(each if kind.numeric else _logit(each) for each in (x_N, y_N))),
        "difference": means[0].as_dict(),
        "sampling": float(np.sqrt(np.mean(error.astype(np.float64) ** 2))) if len(error) else None,
        "thirds": {
            name: {
                "n": len(part),
                "simulation": float(y_N[part].mean()),
                "head": float(x_N[part].mean()),
                "difference": mean.as_dict(),
            }
            for name, part, mean in zip(THIRDS, parts, means[1:], strict=True)
        },
    }


def agreement_in_words(found: dict, kind: Kind) -> str:
    """One sentence of what `agreement` found; empty for nothing.

    >>> from sequela.task.kinds import KINDS
    >>> low, high = ({"value": x, "low": x - 0.001, "high": x + 0.001} for x in (0.002, -0.03))
    >>> thirds = {"lowest": {"difference": low}, "middle": {"difference": low}, "highest": {"difference": high}}
    >>> found = {"n": 90, "correlation": 0.91, "difference": low, "sampling": 0.02, "thirds": thirds}
    >>> print(agreement_in_words(found, KINDS["binary"]))
    value head and simulation correlate by 0.91 (logits); the head is higher by 0.002 [0.001, 0.003], by thirds \
+0.002, +0.002 and -0.03
    """
    if not found:
        return ""
    together, each = found["correlation"], found["difference"]
    logits = "" if kind.numeric else " (logits)"
    first = "do not vary together" if together is None else f"correlate by {together:.2g}{logits}"
    bounds = [each["low"], each["high"]]
    low, high = bounds if each["value"] >= 0 else [None if x is None else -x for x in bounds[::-1]]
    span = "" if low is None or high is None else f" [{low:.2g}, {high:.2g}]"
    thirds = [f"{third['difference']['value']:+.2g}" for third in found["thirds"].values()]
    return (
        f"value head and simulation {first}; the head is {'higher' if each['value'] >= 0 else 'lower'} by "
        f"{abs(each['value']):.2g}{span}, by thirds {', '.join(thirds[:-1])} and {thirds[-1]}"
    )


def _logit(risk_N: np.ndarray) -> np.ndarray:
    inside = np.clip(risk_N, CLIP, 1 - CLIP)
    return np.log(inside / (1 - inside))


def _correlation(x_N: np.ndarray, y_N: np.ndarray) -> float | None:
    if min(np.ptp(x_N), np.ptp(y_N)) == 0:
        return None
    return float(np.corrcoef(x_N, y_N)[0, 1])


def _differences(d_N: np.ndarray, patient: np.ndarray, parts: Iterable[np.ndarray], seed: int) -> list[Estimate]:
    """The mean over each part, with its interval by bootstrap of patients."""
    found = []
    for part in parts:
        draws = []
        for copies in resamples(patient[part], seed=seed):
            with np.errstate(invalid="ignore"):
                draws.append(d_N[part] @ copies / copies.sum(0))
        found.append(interval(float(d_N[part].mean()), np.concatenate(draws)))
    return found
