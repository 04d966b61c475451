"""Finished runs of a scaling study, and numbers with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from sequela.errors import InputError


@dataclass(frozen=True)
class FinishedRun:
    """A finished run.

    Attributes:
        budget: FLOPs of the isoFLOP curve that it belongs to.
        parameters: all weights, embeddings counted once when tied.
        tokens: trained on, including repeats.
        loss: on held-out patients, in the same unit for all runs (bits per event).
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
        """How many times each token was seen."""
        return self.tokens / self.unique_tokens


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval; `low` and `high` are NaN if the runs do not determine them."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @staticmethod
    def of(values_R: np.ndarray) -> Interval:
        """Of the fit (index 0) and its resampled draws (the rest), ignoring undefined draws."""
        value, draws = float(values_R[0]), values_R[1:][np.isfinite(values_R[1:])]
        if not len(draws):
            return Interval(value)
        low, high = np.percentile(draws, (2.5, 97.5))
        return Interval(value, float(low), float(high))

    def holds(self, truth: float) -> bool:
        """Whether `truth` lies inside."""
        return self.low <= truth <= self.high

    def as_dict(self) -> dict[str, float | None]:
        """`value`, `low`, `high`; None if undefined, since JSON has no NaN."""
        pairs = {"value": self.value, "low": self.low, "high": self.high}
        return {name: x if math.isfinite(x) else None for name, x in pairs.items()}


def usable(runs: Iterable[FinishedRun], most_epochs: float = math.inf) -> tuple[list[FinishedRun], list[str]]:
    """The runs to fit, and a sentence for each reason to leave others out: failed, duplicate, data repeated too often.

    Raises InputError if none is left.
    """
    runs = list(runs)
    sound = [run for run in runs if math.isfinite(run.loss) and run.loss > 0]
    once = list({(run.budget, run.parameters, run.tokens, run.seed): run for run in sound}.values())
    kept = [run for run in once if run.epochs <= most_epochs]
    notes = []
    for dropped, words in (
        (len(runs) - len(sound), "without a finite loss above 0"),
        (len(sound) - len(once), "that repeat another of the same size, tokens and seed"),
        (len(once) - len(kept), f"that saw the data more than {most_epochs:g} times"),
    ):
        if dropped:
            notes.append(f"{dropped} of {len(runs)} runs {words} are left out of the fits.")
    if not kept:
        why = f": {' '.join(notes)}" if notes else "."
        raise InputError(f"No run can be fitted{why} Finish the runs of `sequela scale` first.")
    return kept, notes
