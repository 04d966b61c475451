"""The features of strong models: each code over its whole history and over several look-backs.

Which codes and which look-backs there are is decided by training histories alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from sequela.task.baselines.histories import PERSON, Histories

MOST_COLUMNS = 1_000
FEWEST_HISTORIES = 10  # a rarer code gets no columns
LOOK_BACKS = (0.125, 0.25, 0.5)  # of the events of training histories, the latest share that a look-back holds
OF_ALL = ("events", "codes", "last event", "first event")
OF_CODE = ("count", "since")
OF_VALUES = ("last", "mean", "min", "max", "std", "slope", "change", "step")
UNITS_OF_TREND = 1e-9  # days; values that stand at one time have no slope


@dataclass(frozen=True, eq=False)
class WindowTable:
    """The columns: `PERSON`, `OF_ALL`, and some of each of C codes.

    Attributes:
        codes: `code`, `c` (its number, UInt32), `valued`: whether it comes with numbers.
        look_backs: days, rising.
    """

    codes: pl.DataFrame
    look_backs: tuple[float, ...]

    @staticmethod
    def of(histories: Histories) -> WindowTable:
        """The table for these training histories: the most frequent codes, as many as fit."""
        events = histories.events
        codes = (
            events.group_by("code")
            .agg(histories=pl.col("row").n_unique(), valued=pl.col("number").is_not_null().any())
            .filter(pl.col("histories") >= FEWEST_HISTORIES)
            .sort(["histories", "code"], descending=[True, False])
        )
        ago = events["ago"].drop_nulls()
        days = sorted({float(ago.quantile(share) or 0.0) for share in LOOK_BACKS} - {0.0})
        of_code, of_values = len(OF_CODE) + len(days), len(OF_VALUES) + len(days)
        width = pl.when("valued").then(of_code + of_values).otherwise(of_code)
        fits = width.cum_sum() <= MOST_COLUMNS - len(PERSON) - len(OF_ALL)
        return WindowTable(codes.filter(fits).with_row_index("c").drop("histories"), tuple(days))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the F columns, such as "LAB//A mean, 2 days"."""
        every, valued = self.codes["code"], self.codes.filter("valued")["code"]
        return (
            *PERSON, *OF_ALL,
            *(f"{code} {word}" for word in OF_CODE for code in every),
            *(f"{code} {word}" for word in OF_VALUES for code in valued),
            *(
                f"{code} {word}, {days:.3g} days"
                for days in self.look_backs
                for word, codes in (("count", every), ("mean", valued))
                for code in codes
            ),
        )  # fmt: skip

    def values(self, histories: Histories) -> np.ndarray:
        """Float32 [N, F]. Counts and times are logarithms of 1 + n; what was not measured is NaN."""
        known = histories.events.join(self.codes, on="code", maintain_order="left").drop("code")
        dated = known.filter(pl.col("ago").is_not_null())
        ago, number = pl.col("ago"), pl.col("number")
        all_events = known.group_by("row").agg(
            pl.len().log1p().alias("events"), pl.col("c").n_unique().alias("codes"),
            ago.min().log1p().alias("last event"), ago.max().log1p().alias("first event"),
        )  # fmt: skip
        measured = known.filter(number.is_not_null())
        spread = ago.var()
        slope = pl.when(spread > UNITS_OF_TREND).then(-pl.cov("ago", "number") / spread)
        of_values = (
            number.last(), number.mean(), number.min(), number.max(), number.std(), slope,
            number.last() - number.first(), number.last() - number.slice(pl.len() - 2, 1).first(),
        )  # fmt: skip
        per_code = known.group_by("row", "c").agg(count=pl.len().log1p(), since=ago.min().log1p())
        per_value = measured.group_by("row", "c").agg(
            expression.alias(word) for word, expression in zip(OF_VALUES, of_values, strict=True)
        )
        height = len(histories.person)
        parts = [
            histories.person,
            _row_columns(all_events, OF_ALL, height),
            *(self._columns(per_code, word, height) for word in OF_CODE),
            *(self._columns(per_value, word, height) for word in OF_VALUES),
        ]
        for days in self.look_backs:
            recent = dated.filter(ago <= days).group_by("row", "c")
            window = recent.agg(count=pl.len().log1p(), mean=number.mean())
            parts += [self._columns(window, word, height) for word in ("count", "mean")]
        return np.concatenate(parts, axis=1, dtype=np.float32)

    def _columns(self, groups: pl.DataFrame, word: str, height: int) -> np.ndarray:
        """One column a code, float32 [N, C or fewer], from a row per history and code."""
        dense = np.full((height, self.codes.height), 0 if word == "count" else np.nan, np.float32)
        values = groups[word].cast(pl.Float32).fill_null(np.nan).to_numpy()
        dense[groups["row"].to_numpy(), groups["c"].to_numpy()] = values
        return dense if word in OF_CODE else dense[:, self.codes["valued"].to_numpy()]


def _row_columns(groups: pl.DataFrame, words: tuple[str, ...], height: int) -> np.ndarray:
    dense = np.full((height, len(words)), np.nan, np.float32)
    dense[groups["row"].to_numpy()] = groups.select(words).cast(pl.Float32).fill_null(np.nan).to_numpy()
    return dense
