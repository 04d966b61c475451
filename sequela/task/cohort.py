"""Cohorts: who is asked, and when."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from sequela.record.questions import QUESTION
from sequela.record.schema import DEATH
from sequela.task.codes import matches

FIRST, ALL = OCCURRENCES = ("first", "all")


@dataclass(frozen=True)
class Cohort:
    """The patients who have the event `after`, asked `offset` later.

    Attributes:
        after: the code, or prefix with `*`, that triggers a question.
        offset: microseconds from the trigger to the prediction time, not negative. The history is everything strictly
            before the prediction time.
        exclude: codes that rule a question out if they occur anywhere in its history (prevalent disease).
        occurrence: "first", one question per patient; or "all", one for every occurrence of the trigger.
    """

    after: str
    offset: int
    exclude: tuple[str, ...] = ()
    occurrence: str = FIRST

    def questions(self, events: pl.DataFrame) -> pl.DataFrame:
        """The questions about the patients of sorted MEDS `events`: distinct `subject_id`, `prediction_time`, sorted.

        Patients who died before a prediction time are not asked: the dead have no future. Patients whose record merely
        stops before it are asked; their label is not known.
        """
        triggers = events.filter(matches((self.after,)) & pl.col("time").is_not_null())
        if self.occurrence == FIRST:
            triggers = triggers.group_by("subject_id").agg(pl.col("time").min())
        asked = triggers.select(
            "subject_id",
            prediction_time=(pl.col("time") + pl.duration(microseconds=self.offset)).cast(pl.Datetime("us")),
        ).unique()
        return without_history_of((*self.exclude, DEATH), asked, events)


def of_the_living(questions: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """The questions about patients who have not died before them, sorted: the dead have no future."""
    return without_history_of((DEATH,), questions, events)


def without_history_of(codes: tuple[str, ...], questions: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """The questions whose history has none of these codes, sorted."""
    ruled_out = (
        events.filter(matches(codes))
        .join(questions, on="subject_id")
        .filter(pl.col("time").is_null() | (pl.col("time") < pl.col("prediction_time")))
    )
    return questions.join(ruled_out, on=QUESTION, how="anti").sort(QUESTION)
