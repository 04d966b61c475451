"""Features for plain statistical models: summaries of the history, one row per question."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from sequela.record.questions import QUESTION
from sequela.task.baselines.histories import as_recorded

MOST_CODES = 300  # the codes that most patients have; a table of a hospital's 50,000 codes does not fit into memory
FEWEST_PATIENTS = 10
MOST_WITHOUT = 0.9  # share of histories without a sex; more is said
SUMMARIES = ("count", "last", "mean", "min", "max")


@dataclass(frozen=True, eq=False)
class Features:
    """A table of summaries.

    Attributes:
        names: F names: "age" (years), "sex" (1 male, 0 female), then "CODE count", "CODE last" and so on.
        times: `subject_id`, `prediction_time` of the N rows.
        values: float32 [N, F]; if the history has no such event, counts are 0 and values NaN.
    """

    names: tuple[str, ...]
    times: pl.DataFrame
    values: np.ndarray

    def of(self, times: pl.DataFrame) -> np.ndarray:
        """The rows [M, F] for the questions `times`, in their order."""
        known = self.times.select(QUESTION).with_row_index()
        rows = times.select(QUESTION).join(known, on=QUESTION, how="left", maintain_order="left")
        assert rows["index"].null_count() == 0, "no features were built for some of these questions"
        return self.values[rows["index"].to_numpy()]

    def without_sex(self) -> str:
        """A sentence if sex is known for hardly any row; else empty."""
        unknown = int(np.isnan(self.values[:, self.names.index("sex")]).sum())
        if unknown <= MOST_WITHOUT * len(self.values):
            return ""
        return (
            f"The baselines know no sex in {unknown:,} of {len(self.values):,} histories: give the patients GENDER//M "
            "or GENDER//F without a time, if the source knows it."
        )


def build_features(events: pl.DataFrame, times: pl.DataFrame, train: pl.Series) -> Features:
    """Summarize the history of every row of `times`, strictly before its prediction time.

    Per code: how often it occurred, and the last, mean, least and greatest of its values. The patients `train` alone
    decide which codes get columns.

    Args:
        events: sorted MEDS events.
        times: distinct `subject_id`, `prediction_time`.
        train: the patients on whom models are fitted.
    """
    known = as_recorded(events, times)
    rows = times.select("subject_id").with_row_index("row").filter(pl.col("subject_id").is_in(train.implode()))
    columns = _columns(known.events.join(rows, on="row"))
    number = pl.col("number")
    summary = known.events.join(columns, on="code", maintain_order="left").group_by("row", "code").agg(
        pl.len().alias("count"), number.drop_nulls().last().alias("last"), number.mean().alias("mean"),
        number.min().alias("min"), number.max().alias("max"), pl.col("first", "valued").first(),
    )  # fmt: skip
    names, first = ["age", "sex"], []
    for code, valued in columns.select("code", "valued").iter_rows():
        first.append(len(names))
        names += [f"{code} {word}" for word in (SUMMARIES if valued else SUMMARIES[:1])]
    values = np.full((times.height, len(names)), np.nan, dtype=np.float32)
    values[:, first] = 0
    values[:, :2] = known.person[:, :2]
    row, start = summary["row"].to_numpy(), summary["first"].to_numpy()
    valued = summary["valued"].to_numpy()
    for shift, word in enumerate(SUMMARIES):
        chosen = valued | (shift == 0)
        values[row[chosen], start[chosen] + shift] = summary[word].cast(pl.Float32).to_numpy()[chosen]
    return Features(tuple(names), times.select(QUESTION), values)


def _columns(coded: pl.DataFrame) -> pl.DataFrame:
    """`code`, `valued` (does it come with numbers), `first` (its first column), for the most frequent codes."""
    codes = (
        coded.group_by("code")
        .agg(patients=pl.col("subject_id").n_unique(), valued=pl.col("number").is_not_null().any())
        .filter(pl.col("patients") >= FEWEST_PATIENTS)
        .sort(["patients", "code"], descending=[True, False])
        .head(MOST_CODES)
    )
    width = pl.when("valued").then(len(SUMMARIES)).otherwise(1)
    return codes.select("code", "valued", first=2 + width.cum_sum() - width)
