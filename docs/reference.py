"""Writes docs/reference/{commands,settings,tasks,formats}.md from the code (`make docs`); a test compares them."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import MISSING
from pathlib import Path
from typing import Any, get_args, get_origin

from sequela.keywords import hints
from sequela.serve.cli import stage_of
from sequela.serve.flags import COMMON
from sequela.serve.stage import Option, Stage
from sequela.serve.stages import STAGES
from sequela.task.catalog import catalog
from sequela.task.cohort import Cohort
from sequela.task.kinds import KINDS
from sequela.task.outcome import OutcomeRule
from sequela.task.task import Task
from sequela.task.task_file import FIELDS

WRITTEN = "<!-- written by `make docs` from the code; change the docstrings there -->\n\n"
FORMATS = {  # the modules that own a folder format, and what each is called
    "Manifest": "serve/folder/manifest.py",
    "MEDS dataset": "record/schema.py",
    "Questions and label files": "record/questions.py",
    "Corpus": "tokens/corpus.py",
    "Vocabulary": "tokens/vocabulary.py",
    "Checkpoint": "model/checkpoint.py",
    "Simulated folder": "rollout/folder.py",
    "Embeddings": "rollout/embeddings/folder.py",
    "Predictions": "task/answers/prediction.py",
}


def pages(root: Path) -> dict[str, str]:
    """The text of each page, by its path below docs/reference."""
    return {
        "commands.md": commands(),
        "settings.md": settings(),
        "tasks.md": tasks(),
        "formats.md": formats(root),
    }


def commands() -> str:
    """Every stage: its help, its signature in Python, and its arguments."""
    parts = [
        "# Commands",
        "Every command is a stage: it reads folders and writes one folder, and is skipped if that folder is up to "
        "date. In Python, `sequela.NAME` takes the same arguments; `--row-tokens` is `row_tokens` there.",
        table(("every command takes", "default", ""), (_row(option) for option in COMMON)),
        "Exit codes: 0 done, 2 something that you can fix (one sentence on stderr says what), 1 a bug in sequela, "
        "130 Ctrl-C, 143 SIGTERM, 129 SIGHUP; a second signal kills at once.",
    ]
    for name in STAGES:
        parts += _command(stage_of(name))
    return _page(parts)


def _command(stage: Stage) -> Iterator[str]:
    needed = (option for option in stage.options.values() if option.positional or option.required)
    usage = " ".join(
        option.name.upper() if option.positional else f"--{option.name} {option.name.upper()}" for option in needed
    )
    text, _, example = stage.help.partition("\n\nExample: ")
    title, *rest = (" ".join(part.split()) for part in text.split("\n\n"))
    yield f"## {stage.name}"
    yield f"**{title}**"
    yield "\n\n".join(rest) if rest else ""
    yield f"```\nsequela {stage.name} {usage}".rstrip() + f"\n\n{' '.join(example.split())}\n```"
    own = [option for option in stage.options.values() if option.settings is None]
    yield table(("argument", "default", ""), (_row(option) for option in own))
    kinds = {option.settings: None for option in stage.options.values() if option.settings}
    links = [_link(stage.parameters[name].annotation) for name in kinds]
    yield f"And every field of {', '.join(links)}." if links else ""


def settings() -> str:
    """Every settings dataclass of a stage, with all fields."""
    known: dict[str, tuple[Any, list[str]]] = {}
    for name in STAGES:
        stage = stage_of(name)
        for parameter in stage.parameters.values():
            if hasattr(parameter.annotation, "__dataclass_fields__"):
                known.setdefault(parameter.annotation.__name__, (parameter.annotation, []))[1].append(name)
    parts = [
        "# Settings",
        "Each field is a flag of the commands that take it and a keyword of the functions of the same name. "
        "A file given with `--config` holds them in a section named after the command, such as `[train]`.",
    ]
    for name, (kind, stages) in sorted(known.items()):
        rows = [_row(Option(key, hint, getattr(kind(), key), home=kind)) for key, hint in hints(kind).items()]
        users = ", ".join(f"[`{stage}`](commands.md#{stage})" for stage in stages)
        parts += [f"## {name}", f"{_sentences(kind)} Taken by {users}.", table(("setting", "default", ""), rows)]
    return _page(parts)


def tasks() -> str:
    """The fields of a task file, the kinds, and the tasks that come with the package."""
    rows = [*attributes(Task), *attributes(Cohort), *attributes(OutcomeRule)]
    nested = ("after", "offset", "occurrence")
    shown = {"codes": "outcome", "asks": "kind", **{name: f"at: {name}" for name in nested}}
    words = {shown.get(name, name): text for name, text in rows if name not in ("cohort", "event")}
    assert {name.partition(":")[0] for name in words} == set(FIELDS), "a field without words"
    parts = [
        "# Tasks",
        "A task is a YAML file ([how to write one](../how-to/question.md)). Durations are written with their unit, "
        "such as `1 day` or `5 years`; in Python they are microseconds.",
        table(("field", ""), ((f"`{name}`", text) for name, text in words.items())),
    ]
    rows = [(f"`{name}`", kind.words.asks, metrics_of(kind)) for name, kind in KINDS.items()]
    parts += ["## Kinds", table(("kind", "asks", "scored by"), rows)]
    known = [(f"`{task.name}`", task.dataset, task.kind, task.title) for task in catalog()]
    parts += ["## Tasks that come with the package", table(("task", "data", "kind", "question"), known)]
    return _page(parts)


def metrics_of(kind: Any) -> str:
    """The titles of a kind's metrics."""
    return ", ".join(metric.title for metric in kind.metrics)


def formats(root: Path) -> str:
    """The folder formats, in the words of the modules that own them."""
    parts = ["# Folder formats", "Each format is written and read by one module; this is what it says of it."]
    for title, path in FORMATS.items():
        text = ast.get_docstring(ast.parse((root / "sequela" / path).read_text())) or ""
        parts += [f"## {title}", f"`sequela/{path}`", textwrap.dedent(text)]
    return _page(parts)


def attributes(kind: type) -> list[tuple[str, str]]:
    """The section Attributes of a class docstring: names and words."""
    _, _, section = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")
    rows = [entry.strip().partition(": ") for entry in re.split(r"\n(?=    \w)", section.rstrip())]
    return [(name, " ".join(words.split())) for names, _, words in rows for name in names.split(", ")]


def table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _page(parts: Iterable[str]) -> str:
    return WRITTEN + "\n\n".join(filter(None, parts)) + "\n"


def redraw(root: Path) -> None:
    """Write the pages."""
    for name, text in pages(root).items():
        (root / "docs" / "reference" / name).write_text(text)


def _row(option: Option) -> tuple[str, str, str]:
    name = option.name.upper() if option.positional else f"--{option.name.replace('_', '-')}"
    kind = _kind(option.hint)
    head = f"`{name}`" if option.positional or kind == "bool" else f"`{name}` {kind}"
    return head, _default(option), option.words


def _default(option: Option) -> str:
    if option.default is MISSING:
        return "required"
    if option.default in (None, ()) or option.default == "":
        return ""
    if isinstance(option.default, bool):
        return "on" if option.default else "off"
    if isinstance(option.default, tuple):
        return f"`{' '.join(map(str, option.default))}`"
    return f"`{option.default}`"


def _kind(hint: Any) -> str:
    arguments = [kind for kind in get_args(hint) if kind not in (type(None), Ellipsis)]
    if get_origin(hint) is tuple:
        return f"{arguments[0].__name__} ..."
    return arguments[0].__name__.lower() if arguments else hint.__name__.lower()


def _sentences(kind: type) -> str:
    return " ".join(inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0].split())


def _link(kind: type) -> str:
    return f"[`{kind.__name__}`](settings.md#{kind.__name__.lower()})"


if __name__ == "__main__":
    redraw(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
