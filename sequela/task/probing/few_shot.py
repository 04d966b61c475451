"""Few-shot probes: what a head learns from k patients with and k without the outcome, drawn several times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sequela.errors import InputError
from sequela.task.baselines.baseline import one_thread
from sequela.task.probing.heads import ProbeRows, fit_logistic
from sequela.task.scoring.metric import AUROC

SHOTS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 128)  # EHRSHOT's


@dataclass(frozen=True)
class FewShot:
    """Which few-shot probes are made.

    Attributes:
        shots: patients of each class, k.
        replicates: how often they are drawn.
        seed: of the draws, which are the same for every arm.
    """

    shots: tuple[int, ...] = ()
    replicates: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if any(shots < 1 for shots in self.shots):
            raise InputError(f"`few_shot` must be 1 or more, not {min(self.shots)}.")
        if self.replicates < 1:
            raise InputError(f"`replicates` must be 1 or more, not {self.replicates}.")

    def possible(self, train: ProbeRows) -> list[int]:
        """Those k for which there are enough patients of each class."""
        most = min(len(rows) for rows in by_class(train, self.seed))
        return [shots for shots in sorted(set(self.shots)) if shots <= most]

    @one_thread
    def scores(
        self, train: ProbeRows, tuning: ProbeRows, asked: ProbeRows
    ) -> dict[int, list[float]]:
        """The AUROC on `asked` by k, one for each replicate.

        The penalty is chosen on k tuning patients of each class, or as many as there are: who has few patients to learn
        from has few to choose on.
        """
        judge = _judge(asked)
        return {
            shots: [
                judge(fit_logistic(*(self.drawn(rows, shots, replicate) for rows in (train, tuning))).predict)
                for replicate in range(self.replicates)
            ]
            for shots in self.possible(train)
        }

    def drawn(self, rows: ProbeRows, shots: int, replicate: int) -> ProbeRows:
        """At most so many patients of each class, a row of each."""
        classes = by_class(rows, [self.seed, shots, replicate])
        return rows.take(np.sort(np.concatenate([each[:shots] for each in classes])))


def by_class(rows: ProbeRows, seed: int | list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows without and with the outcome in a random order, each of another patient."""
    order = np.random.default_rng(seed).permutation(len(rows.patient))
    order = order[rows.sample.decided[order]]
    _, first = np.unique(rows.patient[order], return_index=True)
    order = order[np.sort(first)]
    happened = rows.sample.outcome[order] == 1
    return order[~happened], order[happened]


def _judge(asked: ProbeRows) -> Callable[[Callable[[np.ndarray], np.ndarray]], float]:
    known = asked.sample.decided
    values, outcome, weights = asked.sample.values[known], asked.sample.outcome[known], asked.sample.weights[known]
    return lambda predict: float(AUROC(outcome, predict(values), weights))
