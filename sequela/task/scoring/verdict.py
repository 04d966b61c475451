"""The verdict in words: is simulation worth it here?"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

from sequela.task.answers.prediction import SIMULATION
from sequela.task.kinds import KINDS
from sequela.task.scoring.bootstrap import LEVEL, Estimate
from sequela.task.scoring.comparison import BEATEN, BEATS, MATCHES, OPEN, Comparison


def verdict(
    kind: str,
    models: dict[str, dict[str, Estimate]],
    comparisons: dict[str, Comparison],
    unpredicted: int,
    reason: str = "",
) -> str:
    """Which models beat simulation, which it beats and by how much, which it matches, and what is not decided.

    >>> score = {"auroc": Estimate(0.8, 0.7, 0.9)}
    >>> cox = Comparison(Estimate(0.0, -0.03, 0.01), 0.0, 1.0, 0.02)
    >>> verdict("binary", {"sequela": score, "cox": score}, {"cox": cox}, 0)
    'Simulation reaches AUROC 0.800 (0.700 to 0.900). Not decided: cox (+0.000, -0.030 to +0.010).'

    Args:
        kind: of the task; models are compared by its headline metric.
        comparisons: of simulation with each other model, corrected for their number.
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
    digits = spec.words.digits

    def listed(word: str, words: str, size: Callable[[Estimate, int], str]) -> str:
        chosen = [(model, one) for model, one in comparisons.items() if one.word == word]
        ranked = sorted(chosen, key=lambda pair: pair[1].gain)
        parts = [f"{model} {size(one.difference, digits)}" for model, one in ranked]
        return f" {words} {', '.join(parts)}." if parts else ""

    missing = (
        f" It gave no answer for {unpredicted} patients, who are left out of every score."
        if unpredicted
        else ""
    )
    return (
        f"Simulation reaches {spec.words.reaches} {score.value:.{digits}f} "
        f"({score.low:.{digits}f} to {score.high:.{digits}f})."
        + listed(BEATEN, "It is beaten by", _size)
        + listed(BEATS, "It beats", _size)
        + listed(MATCHES, "It matches", _signed)
        + listed(OPEN, "Not decided:", _signed)
        + missing
    )


def in_words(count: int, margin: float, seeds: Collection[int]) -> str:
    """How the words of the verdicts are meant; empty if nothing is compared.

    >>> in_words(2, 0.02, {3}).partition(". ")[0]
    'Over all 2 comparisons, equal models pass for different in at most 5 % of such runs (Holm)'

    Args:
        count: of comparisons in all tasks.
        seeds: the number of training seeds whose answers are averaged, of every task with a simulation.
    """
    if not count:
        return ""
    level, share = f"{100 * LEVEL:.0f} %", f"{100 * (1 - LEVEL):.0f} %"
    training = (
        f"The intervals of simulation hold what other patients would change and another {max(seeds)} training runs."
        if min(seeds) > 1
        else "There is one training run: how far another one would move these numbers is not in the intervals."
    )
    return (
        f"Over all {count} comparisons, equal models pass for different in at most {share} of such runs (Holm). "
        f"Simulation matches a model if the {level} interval of their difference lies within {margin:g} of AUROC, or "
        f"within {100 * margin:g} % of an error. {training}"
    )


def _size(difference: Estimate, digits: int) -> str:
    """How large a difference is, whichever way.

    >>> _size(Estimate(-0.06, -0.09, -0.03), 3)
    'by 0.060 (0.030 to 0.090)'
    """
    sense = math.copysign(1, difference.value)
    low, high = sorted((sense * difference.low, sense * difference.high))
    return f"by {sense * difference.value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _signed(difference: Estimate, digits: int) -> str:
    return f"({difference.value:+.{digits}f}, {difference.low:+.{digits}f} to {difference.high:+.{digits}f})"
