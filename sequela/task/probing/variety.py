"""How heterogeneous a course is: the entropy of the codes of its history."""

from __future__ import annotations

import numpy as np
import polars as pl

from sequela.record.questions import QUESTION
from sequela.record.schema import BIRTH
from sequela.record.spelling import meaning

THIRDS = ("lower third", "middle third", "upper third")


def entropies(events: pl.DataFrame, questions: pl.DataFrame) -> np.ndarray:
    """Shannon's entropy, in bits, of the codes of each history, [N]; 0 for a history of one code or none.

    Counted are all dated events strictly before the prediction time, without the birth. A history in which everything
    is measured alike has little of it, one in which many things happen once has much; so it grows with the length of a
    history too, as its number of diagnoses does.

    Args:
        events: sorted MEDS events.
        questions: distinct `subject_id`, `prediction_time`.
    """
    rows = questions.select(QUESTION).with_row_index("row")
    dated = events.filter(pl.col("time").is_not_null() & ~meaning(BIRTH)).select("subject_id", "time", "code")
    counted = (
        dated.join(rows, on="subject_id")
        .filter(pl.col("time") < pl.col("prediction_time"))
        .group_by("row", "code")
        .len("count")
    )
    share = pl.col("count") / pl.col("count").sum()
    bits = counted.group_by("row").agg(bits=-(share * share.log(2)).sum())
    joined = rows.join(bits, on="row", how="left", maintain_order="left")
    return np.abs(joined["bits"].fill_null(0.0).to_numpy())


def thirds(values_N: np.ndarray) -> np.ndarray:
    """0, 1 or 2 for each value: below the first tercile, between both, or above the second, [N].

    >>> thirds(np.array([5.0, 1.0, 3.0, 4.0, 2.0, 6.0])).tolist()
    [2, 0, 1, 1, 0, 2]
    """
    return np.searchsorted(np.quantile(values_N, [1 / 3, 2 / 3]), values_N, side="left")
