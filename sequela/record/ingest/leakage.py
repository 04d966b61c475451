"""Events that stand where nobody could know them yet: what is coded after a stay, dated at its beginning.

Billing diagnoses are written when a patient has left; many exports date them at the admission. A model that is trained
on such a record reads the future. Here they are found, by the times alone, and moved to the end of their stay.

Where one stay closes in the very minute in which another opens, a diagnosis there may be that of the first, known by
then (an emergency visit), or a leak of the second. The second decides: where it, or a stay around it, has codes of that
kind at its own end, the source dates them well, and what stands at its beginning belongs to the other.
"""

from __future__ import annotations

from collections import Counter
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

COMPARE, MOVE, KEEP = AT_TRANSFER = ("compare", "move", "keep")
MOVED = "at admission -> at discharge"
MOVED_AT_TRANSFER = "where another stay closes -> at discharge"
KEPT = "not moved: another stay closes then"


@dataclass(frozen=True)
class Leaks:
    """What is known only at the end of a stay.

    Attributes:
        codes: first parts of codes (the text before the first slash); none: only `late` is looked for.
        late: rules of a mapping, by number, all of whose events are known late, whatever their code.
        timely: rules whose events are known when they stand, whatever their code.
        at_transfer: what becomes of an event where one stay opens and another closes: "compare" moves it unless codes
            with the same first part stand at the end of the one that opens, or of one around it; "move" always, "keep"
            never.
    """

    codes: tuple[str, ...] = AT_END
    late: frozenset[int] = frozenset()
    timely: frozenset[int] = frozenset()
    at_transfer: str = COMPARE


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

    An event leaks where a stay opens at its time and closes later; of one where another stay, opened before, closes at
    that very time, `Leaks.at_transfer` says whether it does. A stay closes where the next boundary of its kind is a
    closing one.

    Args:
        events: any MEDS frame, in any order; where it has the column `rule`, `late` and `timely` are heeded.
        leaks: what is known late; the common codes unless you say otherwise.

    Returns:
        Rows (row, subject_id, time, code, end): `row` is the event's place in `events` (from 0), `end` when its stay
        ends; where several stays open, the last of their ends. Sorted by row.
    """
    return _judged(events, leaks or Leaks()).filter("_leaks").drop("_leaks", "_closing")


def move_leaks(events: pl.DataFrame, leaks: Leaks | None = None) -> tuple[pl.DataFrame, Counter[str]]:
    """The events, in the order given, with those that leak at the end of their stay; and how many were moved, or were
    not though they stand where a stay opens (`MOVED`, `MOVED_AT_TRANSFER`, `KEPT`)."""
    judged = _judged(events, leaks or Leaks())
    found = judged.filter("_leaks")
    at_transfer = found["_closing"].sum()
    moved = Counter({MOVED: found.height - at_transfer})
    moved.update({MOVED_AT_TRANSFER: at_transfer} if at_transfer else {})
    moved.update({KEPT: judged.height - found.height} if judged.height > found.height else {})
    if found.is_empty():
        return events, moved
    numbered = events.with_row_index("row").join(
        found.select("row", "end"), on="row", how="left", maintain_order="left"
    )
    return numbered.with_columns(time=pl.coalesce("end", "time")).drop("row", "end"), moved


def _judged(events: pl.DataFrame, leaks: Leaks) -> pl.DataFrame:
    """Events that are known late and stand where a stay opens: `_closing`, whether another one closes there, and
    `_leaks`. What itself closes a stay there is at its place."""
    edges = _edges(events)
    closing = ((pl.col("closes") > 0) & pl.col("_before")).any()
    stays = edges.group_by("subject_id", "time").agg(end=pl.col("_end").max(), _closing=closing).drop_nulls("end")
    watched = _watched(events, leaks)
    suspects = watched.join(stays, on=["subject_id", "time"])
    suspects = suspects.filter(~(pl.col("_closing") & pl.col("_head").is_in(list(STAYS.values()))))
    own = _dated_well(edges, watched.join(stays, on=["subject_id", "time"], how="anti"), suspects.filter("_closing"))
    judged = suspects.join(own.with_columns(_own=True), on=own.columns, how="left")
    kept = {COMPARE: pl.col("_own").fill_null(False), MOVE: pl.lit(False), KEEP: pl.lit(True)}
    judged = judged.with_columns(_leaks=~(pl.col("_closing") & kept[leaks.at_transfer]))
    return judged.drop("_head", "_own").sort("row")


def _dated_well(edges: pl.DataFrame, sure: pl.DataFrame, suspects: pl.DataFrame) -> pl.DataFrame:
    """Rows (subject_id, time, _head) of the suspects at whose time a stay is open that has such codes at its end.

    Args:
        sure: what is known late and stands where no stay opens: else it may be the next one's, and says nothing.
    """
    stays = edges.select("subject_id", "_end", _begin="time").drop_nulls()
    during = suspects.select("subject_id", "time").unique().join(stays, on="subject_id")
    during = during.filter(pl.col("time").is_between("_begin", "_end", closed="left"))
    at_end = sure.select("subject_id", "_head", _end="time")
    return during.join(at_end, on=["subject_id", "_end"]).select("subject_id", "time", "_head").unique()


def _edges(events: pl.DataFrame) -> pl.DataFrame:
    """`boundaries` with `_before`, whether a stay of the kind is open before, and `_end`, where the one that opens then
    closes; null where none opens, or it is not known when it closes."""
    kind = ("subject_id", "stay")
    opens, closes = pl.col("opens"), pl.col("closes")
    # Where as many open as close, either one follows another or they take no time: what was before tells.
    edges = boundaries(events).with_columns(
        _open=pl.when(opens != closes).then(opens > closes).forward_fill().over(kind).fill_null(False)
    )
    then = pl.when(closes.shift(-1).over(kind) > 0).then(pl.col("time").shift(-1).over(kind))
    return edges.with_columns(
        _before=pl.col("_open").shift(1).over(kind).fill_null(False),
        _end=pl.when((opens > 0) & pl.col("_open")).then(then),
    )


def _watched(events: pl.DataFrame, leaks: Leaks) -> pl.DataFrame:
    """Rows (row, subject_id, time, code, _head) of the events that are known late."""
    codes = _distinct_codes(events)
    known = pl.col("code").is_in(codes.filter(pl.col("_head").is_in(leaks.codes))["code"].implode())
    if "rule" in events.columns and (leaks.late or leaks.timely):
        rule = pl.col("rule")
        known = (known & ~rule.is_in(list(leaks.timely))) | rule.is_in(list(leaks.late))
    watched = events.with_row_index("row").filter(known & pl.col("time").is_not_null())
    texts = watched.select("row", "subject_id", "time", pl.col("code").cast(pl.String))
    return texts.join(codes, on="code", how="left")


def _distinct_codes(events: pl.DataFrame) -> pl.DataFrame:
    """Rows (code, _head), where the head is the text before the first slash."""
    codes = events["code"].unique().cast(pl.String).sort().to_frame()
    return codes.with_columns(_head=pl.col("code").str.extract("^([^/]*)", 1))


def _with_codes(events: pl.DataFrame, codes: pl.Series) -> pl.DataFrame:
    """The events with one of these codes; few as a rule, so that only theirs are turned into texts."""
    return events.filter(pl.col("code").is_in(codes.implode())).with_columns(pl.col("code").cast(pl.String))
