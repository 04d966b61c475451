"""What a reader wants to know first: is simulation worth it here?"""

from __future__ import annotations

import math

from sequela.task.answers.prediction import SIMULATION
from sequela.task.scoring.bootstrap import Estimate

HEADLINE = {"binary": "auroc", "time": "mae", "count": "mae", "value": "mae"}  # what models are compared by
WORDS = {  # for it
    "binary": "AUROC",
    "time": "a mean error, in days, of",
    "count": "a mean error of",
    "value": "a mean error, in the unit of the values, of",
}


def verdict(
    kind: str, models: dict[str, dict[str, Estimate]], difference: dict[str, Estimate], unpredicted: int
) -> str:
    """Which models beat simulation, which it beats, and which cannot be told from it, by how much.

    A difference counts when its 95 % interval does not hold 0.

    Args:
        kind: of the task: "binary" is compared by AUROC, more is better; numbers by the mean absolute error, less is.
        difference: simulation less each other model.
        unpredicted: questions that simulation left without an answer.
    """
    if SIMULATION not in models:
        return "No simulation is among these models."
    own = models[SIMULATION][HEADLINE[kind]]
    if math.isnan(own.value):
        return "Simulation cannot be scored here: it answered nobody, or the answers known are all alike."
    sense, digits = (1, 3) if kind == "binary" else (-1, 2)
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
        f"Simulation reaches {WORDS[kind]} {own.value:.{digits}f} ({own.low:.{digits}f} to {own.high:.{digits}f})."
        + listed([model for model in ranked if decided[model] and gains[model] < 0], "It is beaten by")
        + listed([model for model in ranked if decided[model] and gains[model] > 0], "It beats")
        + (f" It cannot be told from {', '.join(level)} on these patients." if level else "")
        + missing
    )


def _size(difference: Estimate, digits: int) -> str:
    low, high = sorted((abs(difference.low), abs(difference.high)))
    return f"{abs(difference.value):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
