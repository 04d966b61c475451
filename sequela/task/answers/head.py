"""Answers of the value head: read off the state of each history, without any rollout.

A risk is the incidence of the outcome by the horizon, where its ends and death compete; a time is the median of those
who reach the outcome. There is no error of sampling, so `standard_error` is 0 and a risk has no `low` and `high`: how
wrong the head is, only outcomes can tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from sequela.errors import InputError
from sequela.record.duration import DAY
from sequela.record.questions import QUESTION
from sequela.rollout.settings import HEAD
from sequela.task.requests import request
from sequela.task.task import Task

if TYPE_CHECKING:
    from sequela.rollout.values.head import ValueHead

PATIENTS = 256  # at a time


@dataclass(frozen=True, eq=False)
class ReadStates:
    """The states of many questions.

    Attributes:
        known: the questions whose history has a token, sorted.
        states: float32 [Q, C], of these.
    """

    head: ValueHead
    known: pl.DataFrame
    states: np.ndarray

    @staticmethod
    def of(head: ValueHead, events: pl.DataFrame, questions: pl.DataFrame) -> ReadStates:
        """Of `questions`, given the `events` of their patients as recorded."""
        asked = questions.select(QUESTION).unique().sort(QUESTION)
        patients = asked["subject_id"].unique(maintain_order=True)
        parts = []
        for first in range(0, len(patients), PATIENTS):
            some = pl.col("subject_id").is_in(patients[first : first + PATIENTS].implode())
            parts.append(head.states(events.filter(some), asked.filter(some)))
        if not parts:
            raise InputError("there are no questions: give at least one row of subject_id and prediction_time.")
        return ReadStates(head, pl.concat(known for known, _ in parts), np.concatenate([states for _, states in parts]))

    def answers(self, task: Task, questions: pl.DataFrame, level: float) -> pl.DataFrame:
        """The head's answers, in the columns of `sequela.task.answers.estimate.estimate`.

        Args:
            questions: those asked; of these the ones that have a state are answered.
            level: for numbers, the share of those who reach the outcome between `low` and `high`.

        Raises:
            InputError: if the answer is of a kind that does not follow from rates, or the head does not foresee the
                outcome or an end.
        """
        if task.asks.by_rates is None:
            raise InputError(
                f"Task {task.name}: the value head tells whether and when an outcome first comes, and a task of kind "
                f"{task.kind} asks for another answer: simulate it, with the estimator scope."
            )
        rows = self.known.with_row_index("row").join(questions, on=QUESTION, how="semi", maintain_order="left")
        rates = self.head.rates(self.states[rows["row"].to_numpy()], request(task, rows.select(QUESTION)))
        horizon = np.inf if task.horizon is None else task.horizon / DAY
        columns = task.asks.by_rates(rates, horizon, level)
        nothing = [pl.lit(0, dtype).alias(name) for name, dtype in NO_ROLLOUTS.items()]
        return rows.select(QUESTION).with_columns(
            *(pl.Series(name, values, dtype=pl.Float64).fill_nan(None) for name, values in columns.items()),
            *nothing,
            standard_error=pl.lit(0.0),
            estimator=pl.lit(HEAD),
        )


NO_ROLLOUTS = {"rollouts": pl.Int64, "undecidable_rollouts": pl.Int64, "tokens": pl.Int64}


def same_codes(heads: Sequence[ValueHead]) -> None:
    """Refuse heads of models that read other codes, whose answers cannot be averaged.

    Raises:
        InputError: if there are such.
    """
    first, *others = heads
    for other in others:
        if other.embedder.tokenizer.maps != first.embedder.tokenizer.maps:
            raise InputError(
                f"{first.model} and {other.model} were trained with other code maps, so their codes differ: train all "
                "models on one corpus."
            )
