"""The entropy of a history, by counting its codes one by one."""

import math
from collections import Counter
from datetime import timedelta

import numpy as np
import polars as pl

from sequela.record.schema import BIRTH
from sequela.task.probing.variety import entropies
from tests.task.conftest import START, make_cohort, make_events


def test_entropy_counts_the_dated_codes_before_the_question() -> None:
    rows = [(1, None, "GENDER//M"), (1, -9000, BIRTH), (1, 0, "A"), (1, 1, "A"), (1, 2, "B"), (1, 3, "C"), (1, 5, "D")]
    events = make_events([*rows, (2, 0, "A"), (2, 1, "A"), (3, 9, "A")])
    at = START + timedelta(days=5)
    questions = pl.DataFrame({"subject_id": [3, 1, 2], "prediction_time": [at] * 3})
    np.testing.assert_allclose(entropies(events, questions), [0.0, 1.5, 0.0])  # halves and two quarters


def test_it_is_that_of_a_naive_count() -> None:
    events = make_cohort(40)
    questions = pl.DataFrame({"subject_id": list(range(40)), "prediction_time": [START + timedelta(days=5)] * 40})
    for row, bits in zip(questions.rows(), entropies(events, questions), strict=True):
        mine = events.filter((pl.col("subject_id") == row[0]) & (pl.col("time") < row[1]) & (pl.col("code") != BIRTH))
        counts = Counter(mine["code"])
        total = sum(counts.values())
        assert math.isclose(bits, -sum(n / total * math.log2(n / total) for n in counts.values()), abs_tol=1e-12)
