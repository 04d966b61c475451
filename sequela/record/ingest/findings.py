"""What in the report of an ingest deserves a look."""

from __future__ import annotations

from collections.abc import Iterator

from sequela.record.finding import ENOUGH, NO_SEX, Finding
from sequela.record.follow_up import follow_up_findings
from sequela.record.ingest.leakage import AT_BEGIN, KEPT, KEPT_OPEN, PROCEDURES
from sequela.record.ingest.plausibility import AFTER_DISCHARGE, EARLY, ENDS, TOO_OLD

MANY = 0.1  # share of the rows that a rule selects, or of a table, that deserves a look
MANY_KEPT = 0.001  # share of all events
ALMOST_ALL = 0.9  # share of the events of one kind
FEW = 10  # events of one kind that may stand together by chance
# What rules count because the source did not tell when it was known
DOUBTFUL = ("encounter of another patient", "encounter not in the export", "recorded date not readable",
            "release not readable", "clock not readable")  # fmt: skip
MANY_IN_OTHER_UNIT = 100  # events of one code
# What a mapping leaves out on purpose, and what happens in any export
EXPECTED = (
    "not selected", "duplicate", "no value", "race not known", "ethnicity not known", "older version", "cancelled",
    "test cancelled", "not given", "rate of zero", "diluent", "doses recorded in emar", "alarm setting",
)  # fmt: skip
COPY = "copy "  # begins reasons to drop what is there twice
OUTSIDE = "outside the years "  # begins reasons to drop a time that no calendar has: never a habit of a source
# What patients are counted with: what it means for them, and what to do about it. Others are named as they are counted.
PATIENTS = {
    "no birth": (
        "no birth, so no age",
        "Give the mapping their birth (code MEDS_BIRTH) if the source knows it.",
    ),
    "no sex": NO_SEX,
    "no split": (
        "no split in the source, although others have one; a hash of the patient's number decided",
        "Add them to the source's table of splits if that is not what you want.",
    ),
    EARLY: (
        "events before birth, which were dropped",
        "Check the births and the dates of these patients in the source.",
    ),
    TOO_OLD: (
        f"{TOO_OLD} at some event",
        "Check their births, and dates far ahead; name days that stand for no date in `sentinels` of the mapping.",
    ),
    ENDS: (
        f"{ENDS}, of which the last counts",
        "Give each patient one, if the record does not go on until the last.",
    ),
    AFTER_DISCHARGE: (
        f"{AFTER_DISCHARGE}, so it does not count as a death in hospital",
        "Let the code of the discharge say that the patient died (`HOSPITAL_DISCHARGE//DIED`), or give deaths a clock.",
    ),
}
COMMON = ("events after death",)  # any hospital's last results; on the page only
LOOK = "Check these patients in the source."


def findings_of(report: dict) -> list[Finding]:
    """The findings in a report (see `report_of`), in the order of its tables, those about patients last."""
    findings: list[Finding] = []
    for name, table in report["tables"].items():
        findings += _of_table(name, table, report["own_mapping"])
    findings += _of_stays(report)
    findings += _of_admissions(report)
    findings += _of_dates(report)
    findings += _of_patients(report)
    if "follow_up" in report:
        findings += follow_up_findings(report["follow_up"], "patients")
    findings += _of_units(report)
    return findings


def _of_table(name: str, table: dict, own_mapping: bool) -> Iterator[Finding]:
    where, rows = f"table {name}", table["rows"]
    if own_mapping and table.get("rows_without_rule", 0) > MANY * rows:
        yield Finding(
            table["rows_without_rule"], "rows", "no rule takes them", "Add a rule, or leave them out on purpose.",
            rows, where,
        )  # fmt: skip
    for column, bad in table["unreadable_times"].items():
        yield Finding(
            bad["rows"], "rows", f"not a time, the first in {bad['first']}",
            "Correct the column's time format in the mapping, or the cells.", rows, f"{where}, column {column}",
        )  # fmt: skip
    for reason, aside in table.get("quarantined", {}).items():
        yield Finding(
            aside["rows"], "rows", f"set aside ({reason}), the first in {aside['first'][0]}",
            "Mend or remove them in the source.", 0, where,
        )  # fmt: skip
    for column, count in table.get("two_spellings", {}).items():
        yield Finding(
            count, "numbers", "written with leading zeros and without, and read as one",
            "If they are ids of different patients, read the column as text and make the patient's number from it.", 0,
            f"{where}, column {column}",
        )  # fmt: skip
    for rule in table["rules"]:
        yield from _of_rule(rule, f"{where}, rule {rule['rule']}", own_mapping)


def _of_rule(rule: dict, where: str, own_mapping: bool) -> Iterator[Finding]:
    selected = rule["rows_in"] - rule["dropped"].get("not selected", 0)
    for reason, rows in rule["dropped"].items():
        many = rows > MANY * selected or reason.startswith(OUTSIDE)
        if reason not in EXPECTED and not reason.startswith(COPY) and many:
            do = "Check the rule and a few of these rows."
            yield Finding(rows, "rows", f"dropped: {reason}", do, selected, where)
    for label, events in rule.get("counted", {}).items():
        if label in DOUBTFUL and events > MANY_KEPT * rule["events_out"]:
            do = "They may be dated too early; add what is missing to the export, or date them in the source."
            yield Finding(events, "events", label, do, rule["events_out"], where)
    if (rule["rows_in"] if own_mapping else selected) and not rule["events_out"]:
        do = "Check the rule's conditions against the table."
        yield Finding(rule["rows_in"], "rows", "none makes an event", do, 0, where)


def _of_stays(report: dict) -> Iterator[Finding]:
    kept = report["moved"].get(KEPT, 0)
    if kept > MANY_KEPT * report["events"]:
        what = (
            "known only at the end of a stay, dated where one stay begins and another ends, and so not moved"
        )
        yield Finding(
            kept,
            "events",
            what,
            "Date them in the source, or with `at_transfer` in the mapping.",
            report["events"],
        )


    endless = report["moved"].get(KEPT_OPEN, 0)
    if endless > MANY_KEPT * report["events"]:
        what = "known only at the end of a stay, dated at its beginning, and not moved: its end is not known"
        do = "Add the ends of these stays, or leave such events out."
        yield Finding(endless, "events", what, do, report["events"])


def _of_admissions(report: dict) -> Iterator[Finding]:
    """Kinds of events that stand where stays open, as if they had been known then."""
    for head, (events, of) in report.get("at_admission", {}).items():
        procedures = head in PROCEDURES and events > MANY * of
        if procedures or (events >= FEW and events > ALMOST_ALL * of and head not in AT_BEGIN):
            what = "dated in the minute a stay opens, and not moved"
            do = (
                f'If they did not happen then, add "{head}" to `codes` in `[leaks]` of the mapping, or `late = true` '
                "to their rule: then they stand at the end of the stay."
            )
            yield Finding(events, f"{head} events", what, do, of)


def _of_dates(report: dict) -> Iterator[Finding]:
    far = report.get("far_dates", {"events": 0})
    if far["events"]:
        low, high = far["most"]
        what = f"far from the years {low} to {high}, in which most events lie ({', '.join(far['codes'])})"
        do = "Correct them in the source, or name days that stand for no date in `sentinels` of the mapping."
        yield Finding(far["events"], "events", what, do, report["events"])


def _of_patients(report: dict) -> Iterator[Finding]:
    everyone = report["patients"]
    for what, count in report["patients_with"].items():
        if count and what not in COMMON:
            yield Finding(count, "patients", *PATIENTS.get(what, (what, LOOK)), everyone)
    if not report["deaths"] and everyone >= ENOUGH:
        do = "If the source knows who died, give the mapping their death (code MEDS_DEATH)."
        yield Finding(everyone, "patients", "no death", do, everyone)


def _of_units(report: dict) -> Iterator[Finding]:
    mixed = [
        code
        for code, units in report["units"].items()
        if sum(units.values()) - max(units.values()) > max(MANY_IN_OTHER_UNIT, MANY * sum(units.values()))
    ]
    if mixed:
        what = f"values in more than one unit, such as {mixed[0]}"
        yield Finding(len(mixed), "codes", what, "Convert the values, or split the codes.", report["codes"])
