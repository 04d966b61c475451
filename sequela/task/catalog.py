"""Tasks as data: reads the YAML files of the catalog, and those of users."""

from __future__ import annotations

import math
import re
from pathlib import Path

import yaml

from sequela.errors import InputError, nearest
from sequela.record.duration import parse_duration
from sequela.record.schema import FOLLOW_UP_END
from sequela.record.spelling import matches_code
from sequela.task.cohort import FIRST, OCCURRENCES, Cohort
from sequela.task.kinds import KINDS
from sequela.task.outcome import OutcomeRule
from sequela.task.task import Task

CATALOG = Path(__file__).parent / "catalog"
FIELDS = (
    "name", "title", "dataset", "kind", "at", "outcome", "at_least", "above", "below", "ends", "horizon", "exclude",
)  # fmt: skip


def catalog() -> list[Task]:
    """The tasks that come with the package, by name."""
    return [_read(path) for path in sorted(CATALOG.glob("*.yaml"))]


def load_task(name_or_path: str | Path) -> Task:
    """The task of that name in the catalog, or the one in that YAML file.

    Raises:
        InputError: if there is no such task, or the file is not a task.
    """
    text = str(name_or_path)
    if text.endswith((".yaml", ".yml")):
        path = Path(text)
        if not path.is_file():
            raise InputError(f"{path} is not there: give a task file, or the name of a task.")
        return _read(path)
    known = sorted(path.stem for path in CATALOG.glob("*.yaml"))
    if text not in known:
        raise InputError(
            f"there is no task '{text}'{nearest(text, known)}: choose one of {', '.join(known)}, or give the path of a "
            ".yaml file."
        )
    return _read(CATALOG / f"{text}.yaml")


def _read(path: Path) -> Task:
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not YAML ({' '.join(str(error).split())}): correct it there.") from error
    if not isinstance(fields, dict):
        raise InputError(f"{path} holds no fields: a task has {', '.join(FIELDS)}.")
    for field in fields:
        if field not in FIELDS:
            raise InputError(
                f"{path}: '{field}' is not a field of a task{nearest(str(field), FIELDS)}; the fields are "
                f"{', '.join(FIELDS)}."
            )
    name = _text(fields, "kind", path)
    asks = KINDS.get(name)
    if asks is None:
        raise InputError(f"{path}: kind is '{name}'{nearest(name, KINDS)}; it is one of {', '.join(KINDS)}.")
    task = Task(
        name=_text(fields, "name", path),
        title=_text(fields, "title", path),
        dataset=_text(fields, "dataset", path),
        asks=asks,
        cohort=_cohort(fields, path),
        event=_event(fields, path),
    )
    _check(task, path)
    return task


def _cohort(fields: dict, path: Path) -> Cohort:
    at = fields.get("at")
    if not isinstance(at, dict) or not {"after", "offset"} <= set(at) <= {"after", "offset", "occurrence"}:
        raise InputError(
            f'{path}: write at as {{after: "CODE", offset: 1 day}}, with "occurrence: all" if wanted.'
        )
    occurrence = at.get("occurrence", FIRST)
    if occurrence not in OCCURRENCES:
        raise InputError(f"{path}: occurrence is {occurrence!r}; it is one of {', '.join(OCCURRENCES)}.")
    return Cohort(
        after=_text(at, "after", path),
        offset=parse_duration(at["offset"], f"{path}: offset"),
        exclude=_codes(fields, "exclude", path),
        occurrence=occurrence,
    )


def _event(fields: dict, path: Path) -> OutcomeRule:
    horizon = fields.get("horizon")
    return OutcomeRule(
        codes=_codes(fields, "outcome", path),
        ends=_codes(fields, "ends", path),
        horizon=None if horizon is None else parse_duration(horizon, f"{path}: horizon"),
        at_least=_at_least(fields, path),
        above=_bound(fields, "above", path),
        below=_bound(fields, "below", path),
    )


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
    kind, event = task.asks, task.event
    if not re.fullmatch(r"\w[\w.-]*", task.name):
        raise InputError(
            f"{path}: the name '{task.name}' must be usable as a folder name: a letter, digit or _, then also . and -."
        )
    if not event.codes:
        raise InputError(f"{path}: outcome is empty; name at least one code.")
    if matches_code(FOLLOW_UP_END, task.decided_by()):
        raise InputError(f"{path}: {FOLLOW_UP_END} ends what is known, it is not an event; name other codes.")
    both = set(event.codes) & set(event.ends)
    if both:
        raise InputError(f"{path}: {min(both)} is an outcome and an end; keep one of the two.")
    if kind.needs_horizon and event.horizon is None:
        raise InputError(f"{path}: kind {kind.name} needs a horizon; add one, such as 'horizon: 1 year'.")
    if kind.labels.counted != "first" and event.at_least > 1:
        allowed = " and ".join(name for name, other in KINDS.items() if other.labels.counted == "first")
        raise InputError(f"{path}: at_least is for the kinds {allowed}; leave it out.")
    if event.above is not None and event.below is not None and event.above >= event.below:
        raise InputError(
            f"{path}: no number is above {event.above} and below {event.below}; correct one of them."
        )
