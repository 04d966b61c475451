"""Events that stand where nobody could know them yet: what is coded after a stay, dated at its beginning.

Billing diagnoses are written when a patient has left; many exports date them at the admission. A model that is trained
on such a record reads the future. Here they are found, by the times alone, and moved to the end of their stay.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

AT_END = ("ICD9CM", "ICD10CM", "DRG", "DIAGNOSIS", "HOSPITAL_DISCHARGE")
# first part of a code that opens a stay -> the one that closes it; for encounters the second part must agree as well
STAYS = {
    "HOSPITAL_ADMISSION": "HOSPITAL_DISCHARGE",
    "ED_ADMISSION": "ED_DISCHARGE",
    "ED_REGISTRATION": "ED_OUT",
    "ICU_ADMISSION": "ICU_DISCHARGE",
    "ENCOUNTER_START": "ENCOUNTER_END",
}
PAIRED = "ENCOUNTER_START"


@dataclass(frozen=True)
class Leaks:
    """What is known only at the end of a stay.

    Attributes:
        codes: first parts of codes (the text before the first slash); none: nothing is looked for.
    """

    codes: tuple[str, ...] = AT_END


def boundaries(events: pl.DataFrame) -> pl.DataFrame:
    """When stays open and close: rows (subject_id, stay, time, opens, closes), sorted.

    `stay` is the kind of stay, named by the code that opens it; `opens` and `closes` count the events of that time.
    """
    opening = pl.DataFrame({"_head": list(STAYS), "stay": list(STAYS), "opens": [1] * len(STAYS)})
    closing = pl.DataFrame({"_head": list(STAYS.values()), "stay": list(STAYS), "opens": [0] * len(STAYS)})
    kinds = _distinct_codes(events).join(pl.concat([opening, closing]), on="_head")
    second = pl.col("code").str.split("//").list.get(1, null_on_oob=True).fill_null("")
    named = (
        pl.when(pl.col("stay") == PAIRED).then(pl.concat_str("stay", pl.lit("//"), second)).otherwise("stay")
    )
    kinds = kinds.select("code", "opens", stay=named)
    dated = _with_codes(events.select("subject_id", "time", "code"), kinds["code"]).drop_nulls("time")
    counts = {"opens": pl.col("opens").sum(), "closes": (1 - pl.col("opens")).sum()}
    of_stays = dated.join(kinds, on="code").group_by("subject_id", "stay", "time").agg(**counts)
    return of_stays.sort("subject_id", "stay", "time")


def find_leaks(events: pl.DataFrame, leaks: Leaks | None = None) -> pl.DataFrame:
    """Events that are known only at the end of a stay, but stand at its beginning.

    An event leaks where a stay opens at its time and closes later, unless another stay, opened before, closes at that
    very time: then it may belong to that one. A stay closes where the next boundary of its kind is a closing one.

    Args:
        events: any MEDS frame, in any order.
        leaks: which codes are known late; the common ones unless you say otherwise.

    Returns:
        Rows (row, subject_id, time, code, end): `row` is the event's place in `events` (from 0), `end` when its stay
        ends; where several stays open, the last of their ends. Sorted by row.
    """
    return _suspects(events, leaks or Leaks()).filter(~pl.col("_closing")).drop("_closing")


def _suspects(events: pl.DataFrame, leaks: Leaks) -> pl.DataFrame:
    """Events that are known late and stand where a stay opens; `_closing`: whether another one closes there."""
    edges = boundaries(events).with_columns(
        _before=pl.col("opens").shift(1).over("subject_id", "stay").fill_null(0),
        _next=pl.col("time").shift(-1).over("subject_id", "stay"),
        _closes=pl.col("closes").shift(-1).over("subject_id", "stay").fill_null(0),
    )
    ends = pl.col("_next").filter((pl.col("opens") > 0) & (pl.col("_closes") > 0)).max()
    closing = ((pl.col("closes") > 0) & (pl.col("_before") > 0)).any()
    stays = edges.group_by("subject_id", "time").agg(end=ends, _closing=closing)
    stays = stays.filter(pl.col("end").is_not_null())
    known = _distinct_codes(events).filter(pl.col("_head").is_in(leaks.codes))["code"]
    suspects = _with_codes(events.select("subject_id", "time", "code").with_row_index("row"), known)
    return suspects.join(stays, on=["subject_id", "time"]).sort("row")


def move_leaks(events: pl.DataFrame, leaks: Leaks | None = None) -> tuple[pl.DataFrame, int, int]:
    """The events, in the order given, with those that leak at the end of their stay; how many were moved, and how many
    were left because another stay closes at their time (an emergency visit that ends with the admission, say)."""
    suspects = _suspects(events, leaks or Leaks())
    closes = (
        pl.col("code").str.extract("^([^/]*)", 1).is_in(list(STAYS.values()))
    )  # what closes a stay is at its place
    left = suspects.filter(pl.col("_closing") & ~closes).height
    found = suspects.filter(~pl.col("_closing")).select("row", "end")
    if found.is_empty():
        return events, 0, left
    numbered = events.with_row_index("row").join(found, on="row", how="left", maintain_order="left")
    return numbered.with_columns(time=pl.coalesce("end", "time")).drop("row", "end"), found.height, left


def _distinct_codes(events: pl.DataFrame) -> pl.DataFrame:
    """Rows (code, _head), where the head is the text before the first slash."""
    codes = events["code"].unique().cast(pl.String).sort().to_frame()
    return codes.with_columns(_head=pl.col("code").str.extract("^([^/]*)", 1))


def _with_codes(events: pl.DataFrame, codes: pl.Series) -> pl.DataFrame:
    """The events with one of these codes; few as a rule, so that only theirs are turned into texts."""
    return events.filter(pl.col("code").is_in(codes.implode())).with_columns(pl.col("code").cast(pl.String))
