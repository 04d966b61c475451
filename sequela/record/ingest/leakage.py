"""Finds events that are dated before anyone could know them, and moves them to the end of their stay.

Billing diagnoses are coded after discharge, but many exports date them at admission. A model trained on such a record
reads the future. Leaks are found by their times alone.

If one stay closes at the very time another opens, a diagnosis at that time may belong to the first stay and be known by
then (an emergency visit), or be a leak of the second. The second stay decides: if it, or a stay around it, has codes of
that kind at its own end, then the source dates them well, and the code at its start belongs to the first stay.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import polars as pl

AT_END = ("ICD9CM", "ICD10CM", "ICD9", "ICD10", "ICD10GM", "DRG", "MS_DRG", "APR_DRG", "MSDRG", "APRDRG", "DIAGNOSIS",
          "DISCHARGE_DIAGNOSIS", "DISCHARGE_DISPOSITION", "DISCHARGE_LOCATION", "HOSPITAL_DISCHARGE")  # fmt: skip
# Billed at the end too, but also done in the first minutes of a stay: watched, and moved only if a mapping says so
PROCEDURES = ("ICD9PROC", "ICD10PCS", "CPT4", "CPT", "HCPCS", "OPS", "CDT", "PROCEDURE", "CCSPROC")
# What is rightly dated where a stay opens
AT_BEGIN = ("CHIEF_COMPLAINT", "DEPARTMENT", "INSURANCE", "TRIAGE", "VITAL", "WARD", "SERVICE", "COHORT", "TRANSFER_TO")
# First part of the code that opens a stay -> that of the code that closes it; encounters must share the second part too
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
KEPT_OPEN = "not moved: the end of the stay is not known"


@dataclass(frozen=True)
class LeakageRules:
    """Which events are known only at the end of a stay.

    Attributes:
        codes: first parts of codes (the text before the first slash); if empty, only `late` counts.
        late: numbers of the mapping rules all of whose events are known late, whatever their code.
        timely: numbers of the rules whose events are known at their time, whatever their code.
        at_transfer: what to do with an event at a time when one stay opens and another closes. "compare" moves it
            unless codes with the same first part are at the end of the stay that opens, or of one around it; "move"
            always moves it, "keep" never.
    """

    codes: tuple[str, ...] = AT_END
    late: frozenset[int] = frozenset()
    timely: frozenset[int] = frozenset()
    at_transfer: str = COMPARE


def boundaries(events: pl.DataFrame) -> pl.DataFrame:
    """When stays open and close: rows (subject_id, stay, time, opens, closes), sorted.

    `stay` is the kind of stay, named by its opening code; `opens` and `closes` count the events at that time.
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


def find_leaks(events: pl.DataFrame, leaks: LeakageRules | None = None) -> pl.DataFrame:
    """Events that are known only at the end of a stay, but are dated at its start.

    An event leaks if a stay opens at its time and closes later. If another stay, opened before, closes at that very
    time, `LeakageRules.at_transfer` decides. A stay closes if the next boundary of its kind is a closing one.

    Args:
        events: any MEDS frame, in any order; `late` and `timely` apply if it has the column `rule`.
        leaks: what is known late; by default the common codes.

    Returns:
        Rows (row, subject_id, time, code, end): `row` is the index in `events`, `end` the end of its stay, or the last
        end if several stays open. Sorted by row.
    """
    return _judged(events, leaks or LeakageRules()).filter("_leaks").drop("_leaks", "_closing")


def move_leaks(events: pl.DataFrame, leaks: LeakageRules | None = None) -> tuple[pl.DataFrame, Counter[str]]:
    """The events in the given order, with leaks moved to the end of their stay.

    Also the number of events at the opening of a stay that were moved or kept (`MOVED`, `MOVED_AT_TRANSFER`, `KEPT`,
    `KEPT_OPEN`).
    """
    judged = _judged(events, leaks or LeakageRules())
    leaking, endless = judged.filter("_leaks"), judged["end"].null_count()
    judged = judged.filter(pl.col("end").is_not_null())
    at_transfer = leaking["_closing"].sum()
    moved = Counter({MOVED: leaking.height - at_transfer})
    moved.update({MOVED_AT_TRANSFER: at_transfer} if at_transfer else {})
    moved.update({KEPT: judged.height - leaking.height} if judged.height > leaking.height else {})
    moved.update({KEPT_OPEN: endless} if endless else {})
    if leaking.is_empty():
        return events, moved
    numbered = events.with_row_index("row").join(
        leaking.select("row", "end"), on="row", how="left", maintain_order="left"
    )
    return numbered.with_columns(time=pl.coalesce("end", "time")).drop("row", "end"), moved


def _judged(events: pl.DataFrame, leaks: LeakageRules) -> pl.DataFrame:
    """Events that are known late and are dated where a stay opens.

    `_closing` tells whether another stay closes at that time, `_leaks` whether the event leaks; `end` is null if nobody
    knows when the stay closes. An event that itself closes a stay is where it belongs, and so is one whose row named
    its stay (the column `named`).
    """
    edges = open_after(events)
    closing = ((pl.col("closes") > 0) & pl.col("_before")).any()
    opening = (pl.col("opens") > 0) & pl.col("_open")
    stays = edges.group_by("subject_id", "time").agg(end=pl.col("_end").max(), _closing=closing, _opening=opening.any())
    stays = stays.filter("_opening").drop("_opening")
    watched = _watched(events, leaks)
    suspects = watched.filter(~pl.col("_named")).join(stays, on=["subject_id", "time"])
    suspects = suspects.filter(~(pl.col("_closing") & pl.col("_head").is_in(list(STAYS.values()))))
    timely = _dated_well(edges, watched.join(stays, on=["subject_id", "time"], how="anti"), suspects.filter("_closing"))
    judged = suspects.join(timely.with_columns(_timely=True), on=timely.columns, how="left")
    kept = {COMPARE: pl.col("_timely").fill_null(False), MOVE: pl.lit(False), KEEP: pl.lit(True)}
    leak = pl.col("end").is_not_null() & ~(pl.col("_closing") & kept[leaks.at_transfer])
    return judged.with_columns(_leaks=leak).drop("_head", "_timely", "_named").sort("row")


def _dated_well(edges: pl.DataFrame, sure: pl.DataFrame, suspects: pl.DataFrame) -> pl.DataFrame:
    """Rows (subject_id, time, _head) of the suspects during a stay that has such codes at its own end.

    Args:
        sure: events known late where no stay opens; others may belong to the next stay and prove nothing.
    """
    stays = edges.select("subject_id", "_end", _begin="time").drop_nulls()
    during = suspects.select("subject_id", "time").unique().join(stays, on="subject_id")
    during = during.filter(pl.col("time").is_between("_begin", "_end", closed="left"))
    at_end = sure.select("subject_id", "_head", _end="time")
    return during.join(at_end, on=["subject_id", "_end"]).select("subject_id", "time", "_head").unique()


def open_after(events: pl.DataFrame) -> pl.DataFrame:
    """`boundaries` with `_before` and `_open`, whether such a stay is open before and after, and `_end`.

    `_end` is when the stay that opens closes: null if none opens, or if that is not known. If several of a kind are
    open together, nobody knows which of them closes first: then it is when the last of them has closed.
    """
    kind = ("subject_id", "stay")
    opens, closes = pl.col("opens"), pl.col("closes")
    # If as many stays open as close, they follow one another or take no time: the state before decides.
    edges = boundaries(events).with_columns(
        _open=pl.when(opens != closes).then(opens > closes).forward_fill().over(kind).fill_null(False)
    )
    alone = (closes.shift(-1).over(kind) > 0) & (opens - closes.cast(pl.Int64) <= 1)
    then = pl.when(alone).then(pl.col("time").shift(-1).over(kind))
    # How many are open, if the record begins with none; an end too many is that of one that began before
    balance = (opens.cast(pl.Int64) - closes).cum_sum().over(kind)
    none_left = balance == pl.min_horizontal(balance.cum_min().over(kind), 0)
    all_closed = pl.when(none_left).then("time").backward_fill().over(kind)
    return edges.with_columns(
        _before=pl.col("_open").shift(1).over(kind).fill_null(False),
        _end=pl.when((opens > 0) & pl.col("_open")).then(pl.coalesce(then, all_closed)),
    )


def count_at_opening(events: pl.DataFrame, leaks: LeakageRules) -> tuple[Counter[str], Counter[str]]:
    """How many events stand where a stay opens that closes later, and how many have a time, by the head of the code.

    Left out are the events that `leaks` judges, those of its `timely` rules, and what opens and closes stays.
    Encounters are no stays here: most of what happens in a visit is dated at its beginning.
    """
    edges = open_after(events).filter(~pl.col("stay").str.starts_with(PAIRED)).drop_nulls("_end")
    begins = edges.select("subject_id", "time").unique()
    codes = _distinct_codes(events)
    codes = codes.filter(~pl.col("_head").is_in([*leaks.codes, *STAYS, *STAYS.values()]))
    others = events.filter(pl.col("time").is_not_null() & pl.col("code").is_in(codes["code"].implode()))
    if "rule" in others.columns and (leaks.late or leaks.timely):
        others = others.filter(~pl.col("rule").is_in([*leaks.late, *leaks.timely]))
    heads = codes.with_columns(pl.col("code").cast(events["code"].dtype))

    def by_head(chosen: pl.DataFrame) -> Counter[str]:
        counted = chosen.group_by("code").len().join(heads, on="code").group_by("_head").agg(pl.col("len").sum())
        return Counter(dict(counted.sort("_head").rows()))

    return by_head(others.join(begins, on=["subject_id", "time"], how="semi")), by_head(others)


def _watched(events: pl.DataFrame, leaks: LeakageRules) -> pl.DataFrame:
    """Rows (row, subject_id, time, code, _named, _head) of the dated events that are known late."""
    codes = _distinct_codes(events)
    known = pl.col("code").is_in(codes.filter(pl.col("_head").is_in(leaks.codes))["code"].implode())
    if "rule" in events.columns and (leaks.late or leaks.timely):
        rule = pl.col("rule")
        known = (known & ~rule.is_in(list(leaks.timely))) | rule.is_in(list(leaks.late))
    watched = events.with_row_index("row").filter(known & pl.col("time").is_not_null())
    named = pl.col("named") if "named" in events.columns else pl.lit(False)
    texts = watched.select("row", "subject_id", "time", pl.col("code").cast(pl.String), _named=named)
    return texts.join(codes, on="code", how="left")


def _distinct_codes(events: pl.DataFrame) -> pl.DataFrame:
    """Rows (code, _head); the head is the text before the first slash."""
    codes = events["code"].unique().cast(pl.String).sort().to_frame()
    return codes.with_columns(_head=pl.col("code").str.extract("^([^/]*)", 1))


def _with_codes(events: pl.DataFrame, codes: pl.Series) -> pl.DataFrame:
    """The events with one of these codes. They are few, so only their codes are cast to strings."""
    return events.filter(pl.col("code").is_in(codes.implode())).with_columns(pl.col("code").cast(pl.String))
