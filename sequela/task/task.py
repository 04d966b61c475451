"""A task: who is asked, when, about which outcome. Declared in YAML; one function reads real and imagined timelines."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path

import numpy as np
import polars as pl
import yaml

from sequela.errors import InputError, closest
from sequela.record.duration import DAY, parse_duration
from sequela.record.schema import DEATH, FOLLOW_UP_END
from sequela.record.timeline import Timeline

CATALOG = Path(__file__).parent / "catalog"
KINDS = ("binary", "time", "count", "value")
NUMERIC = KINDS[1:]  # the answer is a number, scored by how far off a prediction is
FIELDS = (
    "name", "title", "dataset", "kind", "at", "outcome", "at_least", "above", "below", "ends", "horizon", "exclude",
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """A question about the future, asked once of every patient of a cohort.

    Codes match exactly, or as a prefix where they end with `*`. Times are microseconds.

    Attributes:
        name: a word, also the name of its file.
        title: a line for people.
        dataset: the data it is for.
        kind: "binary" (does the outcome happen?), "time" (days until it happens), "count" (how many outcome events
            happen?) or "value" (the number that the first outcome event with a number carries).
        after: the code that opens the cohort; the prediction time is its first occurrence plus `offset`.
        offset: microseconds, not negative. The history is everything strictly before the prediction time.
        outcome: codes, any of which is the outcome.
        ends: codes after which no outcome counts any more (death, discharge).
        horizon: microseconds, or None: until the outcome or an end; kinds "count" and "value" need one.
        exclude: codes which, anywhere in the history, keep a patient out of the cohort (prevalent disease).
        at_least: kinds "binary" and "time": the outcome has happened when that many outcome events have.
        above, below: an outcome event only counts when its number lies strictly above, strictly below; None: any event
            counts, with a number or without.
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
    at_least: int = 1
    above: float | None = None
    below: float | None = None

    @property
    def numeric(self) -> bool:
        """Whether the answer is a number rather than yes or no."""
        return self.kind in NUMERIC

    @property
    def by_value(self) -> bool:
        """Whether the numbers of events bear on the answer, not only their codes."""
        return self.kind == "value" or self.above is not None or self.below is not None

    @property
    def at_first_code(self) -> bool:
        """Whether the first event with an outcome's code settles the answer, so that a simulation may stop there."""
        return self.kind in ("binary", "time") and self.at_least == 1 and not self.by_value

    @property
    def counted(self) -> str:
        """Which outcome codes tell the answer: the "first" one, "all" of them, or "none" by itself.

        Of "all" and "none" a simulation goes on to an end or the horizon (see `sequela.rollout.request.Request`).
        """
        if self.at_first_code:
            return "first"
        return "all" if self.kind == "count" and not self.by_value else "none"

    @property
    def has_hazard(self) -> bool:
        """Whether the answer is the probability of one event that its code alone makes the outcome.

        Only then do the probabilities of next tokens add up to it; all other answers are read off whole rollouts.
        """
        return self.kind == "binary" and self.at_first_code

    def decided_by(self) -> tuple[str, ...]:
        """The codes (and prefixes) of all events that bear on the answer."""
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

        An outcome event at time t counts when at <= t <= at + horizon, no `ends` event comes strictly before it, and
        its number is `above` and `below` the bounds. Undated events never count. The answer is settled by an `ends`
        event inside the horizon, or by a timeline complete up to the horizon.

        Returns:
            Kind "binary": 1 where `at_least` events count, else 0 where that is settled.
            Kind "time": days until the event that made it `at_least`.
            Kind "count": how many events count, where that is settled.
            Kind "value": the number of the first event that counts and has one.
            None in all other cases.
        """
        limit = math.inf if self.horizon is None else at + self.horizon
        times, codes, numbers = timeline.time.tolist(), timeline.code, timeline.number
        inside = [i for i, time in enumerate(times) if at <= time <= limit]
        ending = next((times[i] for i in inside if matches_code(codes[i], self.ends)), None)
        last = limit if ending is None else ending
        counted = [
            i
            for i in inside
            if times[i] <= last and matches_code(codes[i], self.outcome) and self.admits(numbers[i])
        ]
        settled = ending is not None or (timeline.end is not None and timeline.end >= limit)
        if self.kind == "count":
            return len(counted) if settled else None
        if self.kind == "value":
            return next((float(numbers[i]) for i in counted if not np.isnan(numbers[i])), None)
        if len(counted) >= self.at_least:
            return (times[counted[self.at_least - 1]] - at) / DAY if self.kind == "time" else 1
        return 0 if settled and self.kind == "binary" else None

    def admits(self, number: float) -> bool:
        """Whether an outcome event with this `number` (NaN: none) counts; compared in single precision, as stored."""
        high = self.above is None or np.float32(number) > np.float32(self.above)
        low = self.below is None or np.float32(number) < np.float32(self.below)
        return bool(high and low)

    def admitted(self) -> pl.Expr:
        """Whether the number in the column `numeric_value` lets an event count: `admits` for frames."""
        conditions = [pl.lit(True)]
        number = pl.col("numeric_value").cast(pl.Float32).fill_nan(None)
        if self.above is not None:
            conditions.append(number > pl.lit(self.above, pl.Float32))
        if self.below is not None:
            conditions.append(number < pl.lit(self.below, pl.Float32))
        return pl.all_horizontal(conditions).fill_null(False)


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
        near = closest(text, known, cutoff=0.5)
        guess = f" Did you mean '{near[0]}'?" if near else ""
        raise InputError(
            f"there is no task '{text}':{guess} choose one of {', '.join(known)}, or give the path of a .yaml file."
        )
    return _read(CATALOG / f"{text}.yaml")


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
        at_least=_at_least(raw, path),
        above=_bound(raw, "above", path),
        below=_bound(raw, "below", path),
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


def _at_least(fields: dict, path: Path) -> int:
    value = fields.get("at_least", 1)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{path}: 'at_least' is {value!r}; give a whole number, 1 or more.")
    return value


def _bound(fields: dict, field: str, path: Path) -> float | None:
    value = fields.get(field)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise InputError(f"{path}: '{field}' is {value!r}; give a number, in the unit of the outcome's code.")
    return float(value)


def _check(task: Task, path: Path) -> None:
    if not re.fullmatch(r"\w[\w.-]*", task.name):
        raise InputError(
            f"{path}: the name '{task.name}' must do as a folder's name: letters, digits and _ only."
        )
    if task.kind not in KINDS:
        raise InputError(f"{path}: kind is '{task.kind}'; it is one of {', '.join(KINDS)}.")
    if not task.outcome:
        raise InputError(f"{path}: outcome is empty; name at least one code.")
    if matches_code(FOLLOW_UP_END, task.decided_by()):
        raise InputError(f"{path}: {FOLLOW_UP_END} ends what is known, it is no event; name other codes.")
    both = set(task.outcome) & set(task.ends)
    if both:
        raise InputError(f"{path}: {sorted(both)[0]} is an outcome and an end; keep one of the two.")
    if task.kind in ("count", "value") and task.horizon is None:
        raise InputError(f"{path}: kind {task.kind} needs a horizon; add one, such as 'horizon: 1 year'.")
    if task.kind in ("count", "value") and task.at_least > 1:
        raise InputError(f"{path}: at_least is for the kinds binary and time; leave it out.")
    if task.above is not None and task.below is not None and task.above >= task.below:
        raise InputError(f"{path}: no number is above {task.above} and below {task.below}; mend one of them.")
