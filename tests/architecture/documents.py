"""What the documents promise, as functions that name each offence: links, Python, commands and their flags."""

from __future__ import annotations

import ast
import io
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import cache
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
FILE = re.compile(r"(?<![\w/.-])((?:sequela|tests|bench|scripts|docs)/[\w./-]*\w)")
RECORDS = "records"  # what was measured and with which command, as it was at the time


def documents(root: Path) -> list[Path]:
    """Every page that people read, in order."""
    return sorted([*root.glob("*.md"), *(root / "docs").rglob("*.md")])


def broken_links(root: Path) -> list[str]:
    """Links to a file, folder or heading that does not exist."""
    result = []
    for path in documents(root):
        for target in LINK.findall(_without_code(path.read_text())):
            if "://" in target or target.startswith("mailto:"):
                continue
            name, _, heading = target.partition("#")
            page = (path.parent / name).resolve() if name else path
            if not page.exists() or (heading and heading not in headings(page)):
                result.append(f"{path.relative_to(root)}: {target}")
    return result


def missing_files(root: Path) -> list[str]:
    """Files and modules of the repository that a page names, but that are not there."""
    result = []
    for path in documents(root):
        names = sorted(set(FILE.findall(path.read_text())))
        gone = [name for name in names if not (root / name).exists() and not (root / f"{name}.py").exists()]
        result += [f"{path.relative_to(root)}: {name}" for name in gone]
    return result


def headings(page: Path) -> list[str]:
    """The anchors that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", _without_code(page.read_text()), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles]


def broken_python(root: Path) -> list[str]:
    """Python blocks that do not parse, or that name something of the package which is not there."""
    result = []
    for path in documents(root):
        for language, block in FENCE.findall(path.read_text()):
            if language != "python":
                continue
            try:
                tree = ast.parse(block)
            except SyntaxError as error:
                result.append(f"{path.relative_to(root)}: {error}")
                continue
            result += [
                f"{path.relative_to(root)}: {name}" for name in sorted(set(_names(tree))) if not _exists(name)
            ]
    return result


def unknown_commands(root: Path) -> list[str]:
    """Lines that call a command or a flag which sequela does not have; in the records only the lines of blocks."""
    result = []
    for path in documents(root):
        text = path.read_text()
        lines = [line for language, block in FENCE.findall(text) if not language for line in _lines(block)]
        spans = [] if RECORDS in path.parts else CODE.findall(_without_code(text, spans=False))
        lines += [span for span in spans if span.startswith("sequela ")]
        wrong = [word for line in lines for word in _unknown(line)]
        wrong += [span for span in spans if FLAG.match(span) and not _known_flag(span)]
        result += [f"{path.relative_to(root)}: {word}" for word in wrong]
    return result


@cache
def help_of(command: str) -> str:
    """What `sequela COMMAND --help` prints, in one wide column."""
    from sequela.serve.cli import run

    with patch.dict(os.environ, {"COLUMNS": "400"}), redirect_stdout(io.StringIO()) as printed:
        run([command, "--help"] if command else ["--help"])
    return printed.getvalue()


def commands() -> set[str]:
    """The commands that `sequela --help` lists."""
    return {name for name in _listed("") if not name.startswith("-")}


def flags(command: str) -> set[str]:
    """The flags of a command, in all their spellings."""
    return {word for cell in _listed(command) for word in FLAG.findall(cell)} | {"--help"}


def _listed(command: str) -> list[str]:
    """The first column of the tables of a help page."""
    return [
        line.strip("│ *").split("  ")[0] for line in help_of(command).splitlines() if line.startswith("│")
    ]


def _unknown(line: str) -> Iterator[str]:
    """The command, or the flags, of a line that do not exist."""
    if line.startswith(" "):  # what a command prints
        return
    words = shlex.split(line, comments=True)
    called = [k for k, word in enumerate(words) if word == "sequela" and (k == 0 or _leads(words[k - 1]))]
    if not called:
        return
    words = words[called[0] + 1 :]
    command = next((word for word in words if not word.startswith("-")), "")
    if command and not command.isupper() and command not in commands():
        yield f"sequela {command}"
    elif not command.isupper():
        given = FLAG.findall(" ".join(words))
        yield from (f"sequela {command} {flag}" for flag in given if flag not in flags(command))


def _leads(word: str) -> bool:
    """Whether `sequela` after this word is a call: `python -m sequela`, `NAME=VALUE sequela`."""
    return word == "-m" or "=" in word


def _known_flag(span: str) -> bool:
    return set(FLAG.findall(span)) <= set().union({"--version"}, *map(flags, commands()))


def _lines(block: str) -> list[str]:
    return block.replace("\\\n", " ").splitlines()


def _without_code(text: str, *, spans: bool = True) -> str:
    text = FENCE.sub("", text)
    return CODE.sub("", text) if spans else text


def _names(tree: ast.AST) -> Iterator[str]:
    """Dotted names of the package: `sequela.train`, and what `from sequela.x import y` imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sequela":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "sequela"
        ):
            yield f"sequela.{node.attr}"


def _exists(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    module, _, attribute = name.rpartition(".")
    try:
        return hasattr(import_module(module), attribute) or bool(import_module(name))
    except ModuleNotFoundError:
        return False
