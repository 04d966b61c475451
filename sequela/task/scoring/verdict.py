"""The verdict in words: is simulation worth it here?"""

from __future__ import annotations

import math

from sequela.task.answers.prediction import SIMULATION
from sequela.task.kinds import KINDS
from sequela.task.scoring.bootstrap import Estimate


def verdict(
    kind: str,
    models: dict[str, dict[str, Estimate]],
    difference: dict[str, Estimate],
    unpredicted: int,
    reason: str = "",
) -> str:
    """Which models beat simulation, which it beats and by how much, and which cannot be told from it.

    A difference counts if its 95 % interval excludes 0.

    >>> score = {"auroc": Estimate(0.8, 0.7, 0.9)}
    >>> verdict("binary", {"sequela": score, "cox": score}, {"cox": Estimate(0.0, -0.02, 0.02)}, 0)
    'Simulation reaches AUROC 0.800 (0.700 to 0.900). It cannot be told from cox on these patients.'

    Args:
        kind: of the task; models are compared by its headline metric.
        difference: simulation less each other model.
        unpredicted: questions to which simulation gave no answer.
        reason: why nothing, or not everything, can be scored; empty for none.
    """
    if SIMULATION not in models:
        without = "No simulation is among these models."
        return f"{without} They cannot all be scored: {reason}." if reason else without
    spec = KINDS[kind]
    score = models[SIMULATION][spec.headline.name]
    if math.isnan(score.value):
        why = reason or "it answered nobody, or the answers known are all alike"
        return f"Simulation cannot be scored here: {why}."
    sense, digits = 1 if spec.headline.higher_is_better else -1, spec.words.digits
    gains = {model: sense * x.value for model, x in difference.items()}
    decided = {model: x.low > 0 or x.high < 0 for model, x in difference.items()}

    def listed(names: list[str], words: str) -> str:
        parts = [f"{name} by {_size(difference[name], digits)}" for name in names]
        return f" {words} {', '.join(parts)}." if parts else ""

    ranked = sorted(difference, key=lambda model: gains[model])
    level = [model for model in ranked if not decided[model]]
    missing = (
        f" It gave no answer for {unpredicted} patients, who are left out of every score."
        if unpredicted
        else ""
    )
    return (
        f"Simulation reaches {spec.words.reaches} {score.value:.{digits}f} "
        f"({score.low:.{digits}f} to {score.high:.{digits}f})."
        + listed([model for model in ranked if decided[model] and gains[model] < 0], "It is beaten by")
        + listed([model for model in ranked if decided[model] and gains[model] > 0], "It beats")
        + (f" It cannot be told from {', '.join(level)} on these patients." if level else "")
        + missing
    )


def _size(difference: Estimate, digits: int) -> str:
    low, high = sorted((abs(difference.low), abs(difference.high)))
    return f"{abs(difference.value):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
