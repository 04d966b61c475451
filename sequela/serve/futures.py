"""A handful of patients with what was observed and what was imagined, as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from sequela.record.codes import BIRTH, DEATH, FOLLOW_UP_END, SEX_PREFIX
from sequela.record.store import read_events
from sequela.serve.chart import COLOURS, Lane, Mark, lanes
from sequela.tasks.task import DAY, Task, matches_code

PATIENTS = 4
SHOWN_ROLLOUTS = 6
YEAR = 365.25 * DAY
PAST = 0.6  # of the axis that lies before the prediction time, as a share of what lies after it
MEASURED = "measurement or visit"
OTHER = "other diagnosis"


@dataclass(frozen=True)
class Example:
    """One patient: words and a picture (SVG)."""

    words: str
    picture: str


def examples(
    simulated: Path, meds: Path, predictions: Path, tasks: Sequence[Task]
) -> tuple[list[Example], dict[str, str]]:
    """Patients from low to high risk of the first binary task, and the colours of the kinds of marks.

    Of the patients whose answer is known, the middle one of each quarter of the risks; nobody chose them.
    """
    task = next((one for one in tasks if one.kind == "binary"), tasks[0])
    scored = pl.read_parquet(predictions / task.name / "sequela.parquet")
    score = "predicted_boolean_probability" if task.kind == "binary" else "predicted_float_value"
    truth = "boolean_value" if task.kind == "binary" else "float_value"
    ranked = scored.drop_nulls([score, truth]).sort(score, "subject_id")
    if ranked.is_empty():
        return [], {}
    chosen = [ranked.row(int(len(ranked) * (part + 0.5) / PATIENTS), named=True) for part in range(PATIENTS)]
    patients = [row["subject_id"] for row in chosen]
    real = read_events(meds).filter(pl.col("subject_id").is_in(patients))
    imagined = _read_imagined(simulated, patients)
    rollouts = pl.read_parquet(simulated / "rollouts.parquet").filter(pl.col("subject_id").is_in(patients))
    kinds = _kinds(
        tasks, pl.concat([real.select("code"), imagined.select("code")])["code"].unique().to_list()
    )
    colours = dict(zip(_ordered(kinds), ("var(--ink)", *COLOURS), strict=False))
    colours |= {MEASURED: "#b8bcc2", OTHER: "#8a6d3b"}
    unit, length = ("years", YEAR) if (task.horizon or 0) >= YEAR else ("days", DAY)
    result = []
    for row in chosen:
        at = row["prediction_time"]
        own = pl.col("subject_id") == row["subject_id"]
        mine = (pl.col("prediction_time") == at) & own
        ends = rollouts.filter(mine & (pl.col("reason") != "limit")).sort("rollout").head(SHOWN_ROLLOUTS)
        events = _at(real.filter(own), at, length)
        after = _at(imagined.filter(mine & pl.col("rollout").is_in(ends["rollout"].to_list())), at, length)
        stop = _stop(task, events, ends, at, length)
        rows = [_lane("observed", events, kinds, -PAST * stop, _observed_end(events), observed=True)]
        for rollout, end in ends.select("rollout", "end").iter_rows():
            until = (end - at).total_seconds() * 1e6 / length
            rows.append(
                _lane(
                    f"imagined {rollout + 1}", after.filter(pl.col("rollout") == rollout), kinds, 0.0, until
                )
            )
        horizon = None if task.horizon is None else task.horizon / length
        axis = f"{unit} from the moment of prediction; left of 0 is what the model was shown"
        picture = lanes(rows, colours, -PAST * stop, stop, axis, horizon)
        result.append(Example(_words(task, row, score, events, unit, length), picture))
    shown = {kind: colours[kind] for kind in colours if kind in set(kinds.values())}
    return result, shown


def _read_imagined(simulated: Path, patients: Sequence[int]) -> pl.DataFrame:
    files = sorted((simulated / "data").rglob("*.parquet"))
    return pl.concat(
        [pl.scan_parquet(file).filter(pl.col("subject_id").is_in(patients)).collect() for file in files]
    )


def _kinds(tasks: Sequence[Task], codes: Sequence[str]) -> dict[str, str]:
    """Code -> kind of mark: death, each outcome by its name, other diagnoses, everything else."""
    decisive = tuple(code for task in tasks for code in task.decided_by())
    kinds = {}
    for code in codes:
        if code == DEATH:
            kinds[code] = "death"
        elif matches_code(code, decisive):
            kinds[code] = plain(code)
        elif code.startswith("DIAGNOSIS//") or code.startswith("ICD"):
            kinds[code] = OTHER
        elif code not in (BIRTH, FOLLOW_UP_END) and not code.startswith(SEX_PREFIX):
            kinds[code] = MEASURED
    return kinds


def _ordered(kinds: dict[str, str]) -> list[str]:
    named = sorted(set(kinds.values()) - {MEASURED, OTHER, "death"})
    return ["death", *named]


def plain(code: str) -> str:
    """A code in words.

    >>> plain("DIAGNOSIS//HEART_FAILURE"), plain("HOSPITAL_DISCHARGE")
    ('heart failure', 'hospital discharge')
    """
    return code.split("//", 1)[-1].replace("//", " ").replace("_", " ").lower()


def _at(events: pl.DataFrame, at: object, length: float) -> pl.DataFrame:
    """With `at`: how far from the prediction time, in units of `length` microseconds."""
    return events.with_columns(at=(pl.col("time") - pl.lit(at)).dt.total_microseconds() / length)


def _stop(task: Task, events: pl.DataFrame, ends: pl.DataFrame, at: object, length: float) -> float:
    """The right end of the axis: a little after the horizon, or where the longest future shown ends."""
    if task.horizon is not None:
        return 1.1 * task.horizon / length
    longest = max((end - at).total_seconds() * 1e6 / length for end in ends["end"]) if len(ends) else 1.0
    return 1.1 * max(1.0, longest, _observed_end(events))


def _observed_end(events: pl.DataFrame) -> float:
    stated = events.filter(pl.col("code") == FOLLOW_UP_END)["at"].drop_nulls().to_list()
    return max(stated or events["at"].drop_nulls().to_list())


def _lane(
    name: str,
    events: pl.DataFrame,
    kinds: dict[str, str],
    start: float,
    end: float,
    *,
    observed: bool = False,
) -> Lane:
    dated = events.filter(pl.col("at").is_not_null() & pl.col("code").is_in(list(kinds)))
    marks = [
        Mark(at, kinds[code], _mark_words(code, number, at))
        for at, code, number in dated.select("at", "code", "numeric_value").iter_rows()
    ]
    marks.sort(key=lambda mark: mark.kind != MEASURED)  # what matters is drawn last, on top
    return Lane(name, start, end, marks, observed)


def _mark_words(code: str, number: float | None, at: float) -> str:
    value = f" {number:g}" if number is not None else ""
    return f"{plain(code)}{value} at {at:+.1f}"


def _words(task: Task, row: dict, score: str, events: pl.DataFrame, unit: str, length: float) -> str:
    """Who this is, what was predicted and what happened."""
    sex = {"M": "Man", "F": "Woman"}.get(_first(events, SEX_PREFIX).removeprefix(SEX_PREFIX), "Patient")
    born = events.filter(pl.col("code") == BIRTH)["at"]
    age = f", {-born[0] * length / YEAR:.0f} years" if len(born) else ""
    known = sorted({plain(c) for c in events.filter(pl.col("at") < 0)["code"] if c.startswith("DIAGNOSIS//")})
    history = f"; known: {', '.join(known)}" if known else ""
    if task.kind == "binary":
        error = row.get("standard_error")
        risk = f"{100 * row[score]:.1f} %" + (
            f" (± {196 * error:.1f} from simulating)" if error is not None else ""
        )
        truth = {True: "it happened", False: "it did not happen", None: "not known, the record ends before"}
        outcome = f"risk {risk}; {truth[row['boolean_value']]}"
    else:
        actual = row.get("float_value")
        outcome = f"{row[score]:.1f} days predicted" + (
            f", {actual:.1f} observed" if actual is not None else ""
        )
    return f"{sex}{age}{history}. {task.title}: {outcome}."


def _first(events: pl.DataFrame, prefix: str) -> str:
    found = events.filter(pl.col("code").str.starts_with(prefix))["code"]
    return found[0] if len(found) else ""
