"""A task: who is asked, when, about which outcome. Declared in YAML; one function reads real and imagined timelines."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path

import polars as pl
import yaml

from sequela.record.codes import DEATH, FOLLOW_UP_END
from sequela.record.errors import InputError
from sequela.record.timeline import Timeline

CATALOG = Path(__file__).parent / "catalog"
SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
UNITS = {  # microseconds; a month and a year are means, so that a horizon is the same length for everyone
    "minute": MINUTE,
    "hour": HOUR,
    "day": DAY,
    "week": 7 * DAY,
    "month": round(365.25 / 12 * DAY),
    "year": round(365.25 * DAY),
}
FIELDS = ("name", "title", "dataset", "kind", "at", "outcome", "ends", "horizon", "exclude")


@dataclass(frozen=True)
class Task:
    """A question about the future, asked once of every patient of a cohort.

    Codes match exactly, or as a prefix where they end with `*`. Times are microseconds.

    Attributes:
        name: a word, also the name of its file.
        title: a line for people.
        dataset: the data it is for.
        kind: "binary" (does the outcome happen?) or "time" (days until it happens).
        after: the code that opens the cohort; the prediction time is its first occurrence plus `offset`.
        offset: microseconds, not negative. The history is everything strictly before the prediction time.
        outcome: codes, any of which is the outcome.
        ends: codes that decide "no" when they come before the outcome (death, discharge).
        horizon: microseconds, or None: until the outcome or an end.
        exclude: codes which, anywhere in the history, keep a patient out of the cohort (prevalent disease).
    """

    name: str
    title: str
    dataset: str
    kind: str
    after: str
    offset: int
    outcome: tuple[str, ...]
    ends: tuple[str, ...] = ()
    horizon: int | None = None
    exclude: tuple[str, ...] = ()

    def decided_by(self) -> tuple[str, ...]:
        """The codes (and prefixes) that settle the answer, so that a simulation may stop there."""
        return self.outcome + self.ends

    def prediction_times(self, events: pl.DataFrame) -> pl.DataFrame:
        """The cohort in sorted MEDS `events`: `subject_id`, `prediction_time`, one row a patient.

        Those who died before the prediction time are no part of it: the dead have no future to ask about. Those whose
        record merely stops early are (their label is undecidable).
        """
        starts = (
            events.filter(matches((self.after,)) & pl.col("time").is_not_null())
            .group_by("subject_id")
            .agg(prediction_time=pl.col("time").min() + pl.duration(microseconds=self.offset))
        )
        barred = (
            events.filter(matches((*self.exclude, DEATH)))
            .join(starts, on="subject_id")
            .filter(pl.col("time").is_null() | (pl.col("time") < pl.col("prediction_time")))
        )
        cohort = starts.join(barred, on="subject_id", how="anti").sort("subject_id")
        return cohort.with_columns(pl.col("prediction_time").cast(pl.Datetime("us")))

    def label(self, timeline: Timeline, at: int) -> float | None:
        """The answer that `timeline`, real or imagined, gives to the question asked at `at` (microseconds).

        The outcome at time t counts when at <= t <= at + horizon and no `ends` event comes strictly before it: 1. Else
        an `ends` event inside the horizon decides 0. Else a timeline complete up to the horizon decides 0. Else the
        answer is not known.

        Returns:
            1 or 0; for kind "time" the days until the outcome; None where the timeline does not tell.
        """
        limit = None if self.horizon is None else at + self.horizon
        outcome = ending = None
        for time, code in zip(timeline.time.tolist(), timeline.code, strict=True):
            if time < at or (limit is not None and time > limit):
                continue
            if outcome is None and matches_code(code, self.outcome):
                outcome = time
            if ending is None and matches_code(code, self.ends):
                ending = time
        if outcome is not None and (ending is None or outcome <= ending):
            return (outcome - at) / DAY if self.kind == "time" else 1
        if ending is not None:
            return 0
        complete = limit is not None and timeline.end is not None and timeline.end >= limit
        return 0 if complete else None


def matches_code(code: str, patterns: tuple[str, ...]) -> bool:
    """Whether one `code` is among `patterns`."""
    return any(code.startswith(p[:-1]) if p.endswith("*") else code == p for p in patterns)


def matches(patterns: tuple[str, ...]) -> pl.Expr:
    """Whether the column `code` is among `patterns`: `matches_code` for frames."""
    code = pl.col("code")
    exact = [p for p in patterns if not p.endswith("*")]
    return reduce(or_, (code.str.starts_with(p[:-1]) for p in patterns if p.endswith("*")), code.is_in(exact))


def catalog() -> list[Task]:
    """The tasks that come with the package, by name."""
    return [_read(path) for path in sorted(CATALOG.glob("*.yaml"))]


def load_task(name_or_path: str | Path) -> Task:
    """The task of that name in the catalog, or the one in that YAML file.

    Raises:
        InputError: where there is no such task, or the file is not a task.
    """
    text = str(name_or_path)
    if text.endswith((".yaml", ".yml")):
        path = Path(text)
        if not path.is_file():
            raise InputError(f"{path} is not there: give a task file, or the name of a task.")
        return _read(path)
    known = sorted(path.stem for path in CATALOG.glob("*.yaml"))
    if text not in known:
        near = difflib.get_close_matches(text, known, n=1, cutoff=0.5)
        guess = f" Did you mean '{near[0]}'?" if near else ""
        raise InputError(
            f"there is no task '{text}':{guess} choose one of {', '.join(known)}, or give the path of a .yaml file."
        )
    return _read(CATALOG / f"{text}.yaml")


def parse_duration(text: object, where: str) -> int:
    """Microseconds of a duration such as "5 years" or "1 minute"; a year has 365.25 days.

    >>> parse_duration("2 days", "here") == 2 * DAY
    True

    Raises:
        InputError: naming `where`, for anything else.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) +([a-z]+?)s?", str(text).strip())
    if found is None or found[2] not in UNITS:
        raise InputError(
            f"{where} is '{text}': write a number and a unit ({', '.join(UNITS)}), such as '5 years'."
        )
    return round(float(found[1]) * UNITS[found[2]])


def _read(path: Path) -> Task:
    try:
        raw = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not YAML ({' '.join(str(error).split())}): mend it there.") from error
    if not isinstance(raw, dict):
        raise InputError(f"{path} holds no fields: a task has {', '.join(FIELDS)}.")
    for field in raw:
        if field not in FIELDS:
            raise InputError(f"{path}: '{field}' is no field of a task; those are {', '.join(FIELDS)}.")
    at = raw.get("at")
    if not isinstance(at, dict) or set(at) != {"after", "offset"}:
        raise InputError(f'{path}: write at as {{after: "CODE", offset: 1 day}}.')
    horizon = raw.get("horizon")
    task = Task(
        name=_text(raw, "name", path),
        title=_text(raw, "title", path),
        dataset=_text(raw, "dataset", path),
        kind=_text(raw, "kind", path),
        after=_text(at, "after", path),
        offset=parse_duration(at["offset"], f"{path}: offset"),
        outcome=_codes(raw, "outcome", path),
        ends=_codes(raw, "ends", path),
        horizon=None if horizon is None else parse_duration(horizon, f"{path}: horizon"),
        exclude=_codes(raw, "exclude", path),
    )
    _check(task, path)
    return task


def _text(fields: dict, field: str, path: Path) -> str:
    value = fields.get(field)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{path}: '{field}' is {value!r}; give a text.")
    return value


def _codes(fields: dict, field: str, path: Path) -> tuple[str, ...]:
    value = fields.get(field, [])
    if not isinstance(value, list) or not all(isinstance(code, str) and code.strip("*") for code in value):
        raise InputError(f"{path}: '{field}' is {value!r}; give a list of codes, such as [MEDS_DEATH].")
    return tuple(value)


def _check(task: Task, path: Path) -> None:
    if not re.fullmatch(r"\w[\w.-]*", task.name):
        raise InputError(
            f"{path}: the name '{task.name}' must do as a folder's name: letters, digits and _ only."
        )
    if task.kind not in ("binary", "time"):
        raise InputError(f"{path}: kind is '{task.kind}'; it is binary or time.")
    if not task.outcome:
        raise InputError(f"{path}: outcome is empty; name at least one code.")
    if matches_code(FOLLOW_UP_END, task.decided_by()):
        raise InputError(f"{path}: {FOLLOW_UP_END} ends what is known, it is no event; name other codes.")
    both = set(task.outcome) & set(task.ends)
    if both:
        raise InputError(f"{path}: {sorted(both)[0]} is an outcome and an end; keep one of the two.")
    if task.kind == "time" and (task.ends or task.horizon is not None):
        raise InputError(
            f"{path}: a task of kind time has no ends and no horizon; put every end into outcome."
        )
