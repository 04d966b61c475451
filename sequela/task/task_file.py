"""Task files: YAML to a task, or one sentence that names the line.

YAML takes `NO` for false, `012` for ten, `2020-01-01` for a date and `12:30` for 750. A code is a text whatever it
looks like, so the fields are read as they are written, from YAML's nodes, not from the values that it makes of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import yaml

from sequela.errors import InputError, nearest
from sequela.files import system_error
from sequela.record.duration import parse_duration
from sequela.record.schema import FOLLOW_UP_END
from sequela.record.spelling import matches_code
from sequela.task.cohort import FIRST, OCCURRENCES, Cohort
from sequela.task.kinds import KINDS
from sequela.task.outcome import OutcomeRule
from sequela.task.task import Task

FIELDS = (
    "name", "title", "dataset", "kind", "at", "outcome", "at_least", "above", "below", "ends", "horizon", "exclude",
)  # fmt: skip
WHEN = ("after", "offset", "occurrence")
WHEN_WORDS = 'write at as {after: "CODE", offset: 1 day}, with "occurrence: all" if wanted'
TAG = "tag:yaml.org,2002:"
WORDS = frozenset(TAG + name for name in ("str", "bool", "int", "float", "timestamp", "value"))
LONGEST_NAME = 100  # letters: it is the name of a folder
MOST_EVENTS = 1_000_000
GREATEST = float(np.finfo(np.float32).max)


def read_task(path: Path) -> Task:
    """The task in a YAML file.

    Raises:
        InputError: if the file cannot be read, or is not a task.
    """
    return _Fields.read(path).task()


class _Fields:
    """The fields of a task file, by name, as YAML's nodes."""

    def __init__(self, path: Path, nodes: Mapping[str, yaml.Node]) -> None:
        self.path = path
        self.nodes = nodes

    @staticmethod
    def read(path: Path) -> _Fields:
        """The top level of a file, every key known and there once."""
        root = _root(path)
        if not isinstance(root, yaml.MappingNode):
            what = "a list or a text" if root is not None else "no fields"
            raise InputError(f"{path} holds {what}: a task has fields, {', '.join(FIELDS)}.")
        return _Fields(path, _keys(root, path, FIELDS, "a task", f"the fields are {', '.join(FIELDS)}"))

    def task(self) -> Task:
        name = self.text("kind")
        asks = KINDS.get(name)
        if asks is None:
            raise InputError(
                f"{self.path}: kind is '{name}'{nearest(name, KINDS)}; it is one of {', '.join(KINDS)}."
            )
        task = Task(
            name=self.text("name"),
            title=self.text("title"),
            dataset=self.text("dataset"),
            asks=asks,
            cohort=self._cohort(),
            event=self._event(),
        )
        _check(task, self.path)
        return task

    def _cohort(self) -> Cohort:
        at = self.nodes.get("at")
        if not isinstance(at, yaml.MappingNode):
            raise InputError(f"{self.path}: {WHEN_WORDS}.")
        when = _Fields(self.path, _keys(at, self.path, WHEN, "at", WHEN_WORDS))
        if not {"after", "offset"} <= set(when.nodes):
            raise InputError(f"{self.path}: {WHEN_WORDS}.")
        occurrence = when.text("occurrence") if "occurrence" in when.nodes else FIRST
        if occurrence not in OCCURRENCES:
            raise InputError(
                f"{self.path}: occurrence is '{occurrence}'; it is one of {', '.join(OCCURRENCES)}."
            )
        return Cohort(
            after=when.text("after"),
            offset=parse_duration(when.text("offset"), f"{self.path}: offset"),
            exclude=self.codes("exclude"),
            occurrence=occurrence,
        )

    def _event(self) -> OutcomeRule:
        horizon = None if self._null("horizon") else self.text("horizon")
        length = None if horizon is None else parse_duration(horizon, f"{self.path}: horizon")
        if length == 0:
            raise InputError(
                f"{self.path}: horizon is '{horizon}': give a time above 0, or leave it out for none."
            )
        return OutcomeRule(
            codes=self.codes("outcome"),
            ends=self.codes("ends"),
            horizon=length,
            at_least=self._at_least(),
            above=self._bound("above"),
            below=self._bound("below"),
        )

    def _null(self, field: str) -> bool:
        """Whether a field is left out, or null."""
        node = self.nodes.get(field)
        return node is None or node.tag == f"{TAG}null"

    def text(self, field: str) -> str:
        """A field that must hold a text."""
        node = self.nodes.get(field)
        value = None if node is None else _written(node)
        if value is None or not value.strip():
            raise InputError(f"{self.path}: '{field}' is {_shown(node)}; give a text.")
        return value

    def codes(self, field: str) -> tuple[str, ...]:
        """A list of codes, each as it is written."""
        node = self.nodes.get(field)
        if node is None:
            return ()
        codes = [_written(one) for one in node.value] if isinstance(node, yaml.SequenceNode) else [None]
        if not all(code is not None and code.strip("* ") for code in codes):
            raise InputError(
                f"{self.path}{_line(node)}: '{field}' is {_shown(node)}; give a list of codes, such as [MEDS_DEATH]."
            )
        return tuple(codes)

    def _at_least(self) -> int:
        node = self.nodes.get("at_least")
        if node is None:
            return 1
        value = _written(node) or ""
        if node.tag != f"{TAG}int" or not re.fullmatch("[1-9][0-9]{0,6}", value) or int(value) > MOST_EVENTS:
            raise InputError(
                f"{self.path}: 'at_least' is {_shown(node)}; give a whole number, 1 or more, up to {MOST_EVENTS:,}."
            )
        return int(value)

    def _bound(self, field: str) -> float | None:
        if self._null(field):
            return None
        value = _number(self.nodes[field])
        if value is None or not abs(value) <= GREATEST:
            raise InputError(
                f"{self.path}: '{field}' is {_shown(self.nodes[field])}; give a number, in the unit of the outcome's "
                "code."
            )
        return value


def _root(path: Path) -> yaml.Node | None:
    """What the file holds; None if it is empty."""
    try:
        text = path.read_text(encoding="utf-8")
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as error:
        raise system_error(error, path) or InputError(f"{path} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not YAML in UTF-8 ({error}): save it in UTF-8.") from error
    except RecursionError as error:
        raise InputError(f"{path} is not YAML of a task: its brackets are nested too deep.") from error
    except yaml.composer.ComposerError as error:
        if "single document" in str(error):
            raise InputError(
                f"{path} holds several documents (a line '---'): keep one task a file."
            ) from error
        raise _no_yaml(path, error) from error
    except yaml.YAMLError as error:
        raise _no_yaml(path, error) from error


def _no_yaml(path: Path, error: yaml.YAMLError) -> InputError:
    hint = "indent with spaces, not with tabs" if "'\\t'" in str(error) else "correct it there"
    return InputError(f"{path} is not YAML ({' '.join(str(error).split())}): {hint}.")


def _keys(
    node: yaml.MappingNode, path: Path, known: tuple[str, ...], of: str, advice: str
) -> dict[str, yaml.Node]:
    """The values of a mapping by key; an unknown key, or one that stands there twice, is refused with its line."""
    nodes: dict[str, yaml.Node] = {}
    lines: dict[str, int] = {}
    for key, value in node.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else "[...]"
        if name not in known:
            raise InputError(
                f"{path}{_line(key)}: '{name}' is not a field of {of}{nearest(name, known)}; {advice}."
            )
        if name in nodes:
            raise InputError(
                f"{path}{_line(key)}: '{name}' stands in line {lines[name]} already, and YAML would keep one of the "
                "two: remove the other."
            )
        nodes[name], lines[name] = value, key.start_mark.line + 1
    return nodes


def _line(node: yaml.Node) -> str:
    return f", line {node.start_mark.line + 1}"


def _written(node: yaml.Node) -> str | None:
    """The text of a plain value as it is written; None for anything else."""
    return node.value if isinstance(node, yaml.ScalarNode) and node.tag in WORDS else None


def _shown(node: yaml.Node | None) -> str:
    """A value for a message."""
    if node is None:
        return "not there"
    if isinstance(node, yaml.SequenceNode):
        return f"[{', '.join(_shown(one) if one is not node else '...' for one in node.value)}]"
    if isinstance(node, yaml.MappingNode):
        return "{...}"
    if node.tag == f"{TAG}null":
        return "empty (null)"
    return node.value if node.style is None and node.tag != f"{TAG}str" else f"'{node.value}'"


def _number(node: yaml.Node) -> float | None:
    """A number in plain decimal notation; None for anything else."""
    text = node.value if isinstance(node, yaml.ScalarNode) and node.style is None else ""
    return float(text) if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text, re.ASCII) else None


def _check(task: Task, path: Path) -> None:
    kind, event = task.asks, task.event
    if not re.fullmatch(r"\w[\w.-]*", task.name) or len(task.name) > LONGEST_NAME:
        raise InputError(
            f"{path}: the name '{task.name[:LONGEST_NAME]}' must be usable as a folder name: a letter, digit or _, "
            f"then also . and -, {LONGEST_NAME} in all at most."
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
    if (
        event.above is not None
        and event.below is not None
        and np.float32(event.above) >= np.float32(event.below)
    ):
        raise InputError(
            f"{path}: no number is above {event.above} and below {event.below}; correct one of them."
        )
