"""Example patients: what was observed and what was simulated, as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from sequela.record.dataset import read_events
from sequela.record.duration import DAY, UNITS, whole_years
from sequela.record.schema import BIRTH, DEATH, FOLLOW_UP_END, means
from sequela.record.spelling import FEMALE, MALE, is_sex, matches_code, meaning, spelled
from sequela.record.validate import read_parquet
from sequela.rollout.folder import SimulatedFolder
from sequela.serve.pages.chart import COLORS, EventMark, TimelineRow, timelines
from sequela.task.answers.prediction import SIMULATION
from sequela.task.task import Task
from sequela.tokens.maps.recode import recoded_events

PATIENTS = 4
SHOWN_ROLLOUTS = 6
YEAR = UNITS["year"]
PAST = 0.6  # of the axis that lies before the prediction time, as a share of what lies after it
MEASURED = "measurement or visit"
OTHER = "other diagnosis"


@dataclass(frozen=True)
class Example:
    """One patient: words and a picture (SVG)."""

    words: str
    picture: str


@dataclass(frozen=True)
class _Drawing:
    """What all pictures share: the task, group of mark by code, color by group, and the unit of the axis."""

    task: Task
    groups: dict[str, str]
    colors: dict[str, str]
    unit: str
    length: float  # of the unit, microseconds


def examples(
    simulated: Path, meds: Path, predictions: Path, tasks: Sequence[Task]
) -> tuple[list[Example], dict[str, str]]:
    """Patients from low to high risk of the first task about a risk, and the colors of the groups of marks.

    The median patient of each quarter of the risks, among those whose answer is known; nobody picked them. Empty if all
    futures avoid an outcome, since those are not what the model expects.
    """
    folder = SimulatedFolder(simulated)
    if not folder.has_events:
        return [], {}
    task = next((task for task in tasks if not task.asks.numeric), tasks[0])
    chosen = _choose(task, predictions)
    patients = [row["subject_id"] for row in chosen]
    real = recoded_events(read_events(meds, patients=patients), folder.maps())
    futures = folder.events(where=pl.col("subject_id").is_in(patients))
    rollouts = folder.rollouts().filter(pl.col("subject_id").is_in(patients), pl.col("avoids").is_null())
    groups = _groups(tasks, pl.concat([real["code"], futures["code"]]).unique().to_list())
    colors = dict(zip(_ordered(groups), ("var(--ink)", *COLORS), strict=False))
    colors |= {MEASURED: "#b8bcc2", OTHER: "#8a6d3b"}
    years = task.horizon is not None and task.horizon >= YEAR
    drawing = _Drawing(task, groups, colors, "years" if years else "days", YEAR if years else DAY)
    result = [_example(drawing, row, real, futures, rollouts) for row in chosen]
    shown = set(groups.values())
    return result, {name: color for name, color in colors.items() if name in shown}


def _choose(task: Task, predictions: Path) -> list[dict]:
    """Rows of our predictions: the median of each quarter by rank, of those whose answer is known."""
    scored = read_parquet(predictions / task.name / f"{SIMULATION}.parquet")
    known = scored.drop_nulls([_score(task), _truth(task)]).sort(_score(task), "subject_id")
    if known.is_empty():
        return []
    return [known.row(int(len(known) * (part + 0.5) / PATIENTS), named=True) for part in range(PATIENTS)]


def _score(task: Task) -> str:
    return "predicted_float_value" if task.asks.numeric else "predicted_boolean_probability"


def _truth(task: Task) -> str:
    return "float_value" if task.asks.numeric else "boolean_value"


def _example(
    drawing: _Drawing, row: dict, real: pl.DataFrame, futures: pl.DataFrame, rollouts: pl.DataFrame
) -> Example:
    """The patient of one row of the predictions."""
    at, length = row["prediction_time"], drawing.length
    patient = pl.col("subject_id") == row["subject_id"]
    mine = patient & (pl.col("prediction_time") == at)
    shown = rollouts.filter(mine & (pl.col("reason") != "limit")).sort("rollout").head(SHOWN_ROLLOUTS)
    events, futures = _at(real.filter(patient), at, length), _at(futures.filter(mine), at, length)
    ends = [(end - at).total_seconds() * 1e6 / length for end in shown["end"]]
    stop = _stop(drawing, events, ends)
    start = _start(drawing, events, stop)
    rows = [_row("observed", events, drawing.groups, start, _observed_end(events), observed=True)]
    for rollout, end in zip(shown["rollout"], ends, strict=True):
        future = futures.filter(pl.col("rollout") == rollout)
        rows.append(_row(f"simulated {rollout + 1}", future, drawing.groups, 0.0, end))
    horizon = None if drawing.task.horizon is None else drawing.task.horizon / length
    axis = f"{drawing.unit} from the prediction time; left of 0 is what the model was shown"
    picture = timelines(rows, drawing.colors, start, stop, axis, horizon)
    return Example(_words(drawing, row, events), picture)


def _groups(tasks: Sequence[Task], codes: Sequence[str]) -> dict[str, str]:
    """Code -> group of mark: death, each outcome by its name, other diagnoses, everything else."""
    decisive = tuple(code for task in tasks for code in task.decided_by())
    groups = {}
    for code in codes:
        if means(code, DEATH):
            groups[code] = "death"
        elif matches_code(code, decisive):
            groups[code] = plain(code)
        elif code.startswith("DIAGNOSIS//") or code.startswith("ICD"):
            groups[code] = OTHER
        elif not (means(code, BIRTH) or means(code, FOLLOW_UP_END) or is_sex(code)):
            groups[code] = MEASURED
    return groups


def _ordered(groups: dict[str, str]) -> list[str]:
    named = sorted(set(groups.values()) - {MEASURED, OTHER, "death"})
    return ["death", *named]


def plain(code: str) -> str:
    """A code in words.

    >>> plain("DIAGNOSIS//HEART_FAILURE"), plain("HOSPITAL_DISCHARGE")
    ('heart failure', 'hospital discharge')
    """
    return code.split("//", 1)[-1].replace("//", " ").replace("_", " ").lower()


def _at(events: pl.DataFrame, at: object, length: float) -> pl.DataFrame:
    """With `at`: the distance from the prediction time, in units of `length` microseconds."""
    return events.with_columns(at=(pl.col("time") - pl.lit(at)).dt.total_microseconds() / length)


def _stop(drawing: _Drawing, events: pl.DataFrame, ends: Sequence[float]) -> float:
    """The right end of the axis: a little after the horizon, or where the longest future shown ends."""
    if drawing.task.horizon is not None:
        return 1.1 * drawing.task.horizon / drawing.length
    return 1.1 * max(1.0, *ends, _observed_end(events))


def _start(drawing: _Drawing, events: pl.DataFrame, stop: float) -> float:
    """The left end of the axis: the start of the record, limited so that the future has room."""
    dated = events.filter(pl.col("code").is_in(list(drawing.groups)))["at"].drop_nulls().to_list()
    return -min(PAST * stop, max(0.05 * stop, -1.1 * min(dated, default=0.0)))


def _observed_end(events: pl.DataFrame) -> float:
    stated = events.filter(meaning(FOLLOW_UP_END))["at"].drop_nulls().to_list()
    return max(stated or events["at"].drop_nulls().to_list())


def _row(
    name: str,
    events: pl.DataFrame,
    groups: dict[str, str],
    start: float,
    end: float,
    *,
    observed: bool = False,
) -> TimelineRow:
    dated = events.filter(pl.col("at").is_not_null() & pl.col("code").is_in(list(groups)))
    marks = [
        EventMark(at, groups[code], _mark_words(code, number, at))
        for at, code, number in dated.select("at", "code", "numeric_value").iter_rows()
    ]
    marks.sort(key=lambda mark: mark.group != MEASURED)  # drawn last, on top
    return TimelineRow(name, start, end, marks, observed)


def _mark_words(code: str, number: float | None, at: float) -> str:
    value = f" {number:g}" if number is not None else ""
    return f"{plain(code)}{value} at {at:+.1f}"


def _words(drawing: _Drawing, row: dict, events: pl.DataFrame) -> str:
    """Who this is, what was predicted and what happened."""
    spellings = {spelled(code) for code in events["code"].unique()}
    sex = "Man" if MALE in spellings else "Woman" if FEMALE in spellings else "Patient"
    born = events.filter(meaning(BIRTH))["time"].to_numpy().astype("datetime64[us]").astype(np.int64)
    at = np.full(len(born), np.datetime64(row["prediction_time"], "us").astype(np.int64))
    age = f", {whole_years(born, at)[0]} years" if len(born) else ""
    known = sorted(
        {plain(code) for code in events.filter(pl.col("at") < 0)["code"] if code.startswith("DIAGNOSIS//")}
    )
    history = f"; known: {', '.join(known)}" if known else ""
    return f"{sex}{age}{history}. {drawing.task.title}: {_outcome(drawing.task, row)}."


def _outcome(task: Task, row: dict) -> str:
    return task.asks.words.example(row[_score(task)], row[_truth(task)], row.get("standard_error"))
