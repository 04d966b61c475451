"""The rules of the house as functions: each takes a package folder and returns its offences, a line each.

They read source code only, so that a test can plant an offence in a copy.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

MOST_MODULES, MOST_LINES, MOST_FUNCTION_LINES, MOST_PARAMETERS = 14, 400, 60, 7
# Words of an earlier dialect: each has one meaning that a plainer word tells (docs/ARCHITECTURE.md)
RETIRED = {
    "automaton", "claim", "crew", "dial", "foreign", "gather", "gathered", "imagined", "lane", "lanes", "odd",
    "settle", "spent", "undecided", "unheard", "watching",
}  # fmt: skip
# Names that fit every variable and so name none; fine in a comprehension or a short function
VAGUE = {"one", "own", "found", "said", "told", "some"}
VAGUE_LINES = 10
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
OWNED = {
    "vocabulary.json": "tokens/vocabulary.py",
    "corpus.json": "tokens/corpus.py",
    "train.json": "training/settings.py",
    "rollouts.parquet": "rollout/folder.py",
    "simulate.json": "rollout/folder.py",
    "questions.parquet": "rollout/folder.py",
    "scope//": "rollout/folder.py",
    "reach//": "rollout/folder.py",
    "manifest.json": "serve/folder/manifest.py",
    "ingest.json": "record/ingest/report.py",
    "subject_splits.parquet": "record/schema.py",
}
NO_TEXT = ("os.open", "tarfile.open", "Assignment.open")  # functions `open` of other things than text
OBJECTIVES_UNSEEN = ("training/run.py", "training/loop.py", "training/monitor.py")


def modules(package: Path) -> list[Path]:
    """Every module of the package, in order."""
    return sorted(path for path in package.rglob("*.py") if "__pycache__" not in path.parts)


def folders_too_full(package: Path) -> list[str]:
    """Folders with more than 14 modules."""
    count: dict[Path, int] = defaultdict(int)
    for path in modules(package):
        count[path.parent] += path.stem not in ("__init__", "__main__")
    return [
        f"{folder.relative_to(package.parent)}: {n} modules"
        for folder, n in count.items()
        if n > MOST_MODULES
    ]


def files_too_long(package: Path) -> list[str]:
    """Files of more than 400 lines."""
    lengths = {path: len(path.read_text().splitlines()) for path in modules(package)}
    return [f"{path.relative_to(package)}: {n} lines" for path, n in lengths.items() if n > MOST_LINES]


def functions_too_large(package: Path) -> list[str]:
    """Functions of more than 60 lines without their docstring, or with more than 7 parameters besides self."""
    result = []
    for path, node in functions(package):
        lines = node.end_lineno - node.lineno + 1 - _docstring_lines(node)
        parameters = len(parameters_of(node))
        if lines > MOST_FUNCTION_LINES:
            result.append(f"{path.relative_to(package)}: {node.name} has {lines} lines")
        if parameters > MOST_PARAMETERS:
            result.append(f"{path.relative_to(package)}: {node.name} has {parameters} parameters")
    return result


def functions(package: Path) -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function and method, with its file."""
    for path in modules(package):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, node


def parameters_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """The names of a function's parameters, without self and cls."""
    arguments = node.args
    every = [
        *arguments.posonlyargs,
        *arguments.args,
        *arguments.kwonlyargs,
        arguments.vararg,
        arguments.kwarg,
    ]
    return [argument.arg for argument in every if argument and argument.arg not in ("self", "cls", "ctx")]


def _docstring_lines(node: ast.AST) -> int:
    first = node.body[0]
    is_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return first.end_lineno - first.lineno + 1 if is_text and isinstance(first.value.value, str) else 0


def classes_that_share_a_name(package: Path) -> list[str]:
    """Public classes of the same name in two modules."""
    homes: dict[str, list[str]] = defaultdict(list)
    for path in modules(package):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(str(path.relative_to(package)))
    return [f"{name}: {', '.join(places)}" for name, places in sorted(homes.items()) if len(places) > 1]


def retired_words(package: Path) -> list[str]:
    """Identifiers and module names with a word that was given up."""
    result = []
    for path in modules(package):
        names = {path.stem, *_defined(ast.parse(path.read_text()))}
        for name in sorted(names):
            words = {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}
            if words & RETIRED:
                result.append(f"{path.relative_to(package)}: {name}")
    return result


def vague_names(package: Path) -> list[str]:
    """Parameters, and locals used over more than ten lines, whose name says nothing."""
    result = []
    for path, node in functions(package):
        result += [
            f"{path.relative_to(package)}: {node.name} takes '{name}'"
            for name in parameters_of(node)
            if name in VAGUE
        ]
        spans: dict[str, list[int]] = defaultdict(list)
        inner = {name.id for other in ast.walk(node) for name in _comprehension_targets(other)}
        for other in ast.walk(node):
            if isinstance(other, ast.Name) and other.id in VAGUE and other.id not in inner:
                spans[other.id].append(other.lineno)
        result += [
            f"{path.relative_to(package)}: {node.name} uses '{name}' over {max(lines) - min(lines) + 1} lines"
            for name, lines in spans.items()
            if max(lines) - min(lines) >= VAGUE_LINES
        ]
    return result


def _comprehension_targets(node: ast.AST) -> Iterator[ast.Name]:
    if isinstance(node, ast.comprehension):
        yield from (name for name in ast.walk(node.target) if isinstance(name, ast.Name))


def _defined(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def names_of_files_elsewhere(package: Path) -> list[str]:
    """Texts that spell a file name or a column prefix outside the module that owns it."""
    result = []
    for path in modules(package):
        own = str(path.relative_to(package))
        for text, line in _texts(path, docstrings=False):
            result += [
                f"{own}:{line}: {name!r} belongs to {owner}"
                for name, owner in OWNED.items()
                if owner != own
                and (text == name or text.endswith(f"/{name}") or (name.endswith("//") and name in text))
            ]
    return result


def flags_below_serve(package: Path) -> list[str]:
    """Texts that spell a flag of the command line on a floor that does not know there is one."""
    result = []
    for path in modules(package):
        own = path.relative_to(package)
        if own.parts[0] in ("serve", "__main__.py"):
            continue
        for text, line in _texts(path, docstrings=True):
            result += [f"{own}:{line}: {flag}" for flag in FLAG.findall(text)]
    return result


def _texts(path: Path, *, docstrings: bool) -> Iterator[tuple[str, int]]:
    tree = ast.parse(path.read_text())
    described = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and (docstrings or id(node) not in described):
            yield node.value, node.lineno


def kinds_asked_for(package: Path) -> list[str]:
    """Comparisons with the kind of a task outside `task/kinds.py`, and objectives asked for by name."""
    result = []
    for path in modules(package):
        own = str(path.relative_to(package))
        upstairs = own.partition("/")[0] in ("task", "rollout", "serve") and own != "task/kinds.py"
        for node in ast.walk(ast.parse(path.read_text())):
            if upstairs and isinstance(node, ast.Compare) and _compares(node, "kind"):
                result.append(f"{own}:{node.lineno}: {ast.unparse(node)}")
            if isinstance(node, ast.If | ast.IfExp) and any(_asks(part) for part in ast.walk(node.test)):
                result.append(f"{own}:{node.lineno}: if {ast.unparse(node.test)}")
    return result


def _compares(node: ast.Compare, name: str) -> bool:
    """Whether something called `name` is compared by its value (`is` asks for something else)."""
    by_value = all(isinstance(operator, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for operator in node.ops)
    return by_value and any(_last_name(side) == name for side in (node.left, *node.comparators))


def _asks(node: ast.AST) -> bool:
    """Whether part of a condition depends on which objective there is."""
    if isinstance(node, ast.Compare):
        return _compares(node, "objective")
    return (
        isinstance(node, ast.Call)
        and _last_name(node.func) == "isinstance"
        and _last_name(node.args[0]) == "objective"
    )


def _last_name(node: ast.AST) -> str | None:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None


def objectives_named(package: Path) -> list[str]:
    """Objectives, or what only one of them knows, named where every objective is trained."""
    names = [
        path.stem
        for path in (package / "training" / "objectives").glob("[!_]*.py")
        if path.stem != "objective"
    ]
    words = {*names, *("".join(part.title() for part in name.split("_")) for name in names)}
    result = []
    for own in OBJECTIVES_UNSEEN:
        for node in ast.walk(ast.parse((package / own).read_text())):
            parts = set()
            if isinstance(node, ast.ImportFrom):
                parts = {*(node.module or "").split("."), *(alias.name for alias in node.names)}
            elif isinstance(node, ast.Name | ast.Attribute):
                parts = {_last_name(node)}
            result += [f"{own}:{node.lineno}: {word}" for word in sorted(parts & words)]
    return result


ROW = re.compile(r"^\|\s*\d+\s*\|([^|]*)\|", re.MULTILINE)


def journey_of(document: str) -> list[str]:
    """The modules that the journey table names, in order, such as "record/ingest/extract"."""
    return [name for row in ROW.findall(document) for name in re.findall(r"`([a-z_/]+)`", row)]


def journey_astray(package: Path, document: str) -> list[str]:
    """Modules of the journey that do not exist, or that no other module of the package imports."""
    imported = set()
    for path in modules(package):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                imported |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                imported.add(node.value)  # names that are loaded lazily
    result = []
    for name in journey_of(document):
        dotted = f"{package.name}.{name.replace('/', '.')}"
        if not (package / f"{name}.py").exists():
            result.append(f"{name}: there is no such module")
        elif dotted not in imported:
            result.append(f"{name}: nothing imports it")
    return result or ([] if journey_of(document) else ["there is no journey"])


def text_without_encoding(package: Path) -> list[str]:
    """Text that is read or written in the encoding of whatever locale the user has."""
    result = []
    for path in modules(package):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or any(word.arg == "encoding" for word in node.keywords):
                continue
            name = _last_name(node.func)
            modes = [word.value for word in node.keywords if word.arg == "mode"] + node.args
            strings = [mode.value for mode in modes if isinstance(mode, ast.Constant)]
            binary = any("b" in str(mode) for mode in strings)
            opened = name == "open" and not binary and ast.unparse(node.func) not in NO_TEXT
            if name in ("read_text", "write_text") or opened:
                result.append(f"{path.relative_to(package)}: line {node.lineno} names no encoding")
    return result


def cycles(package: Path) -> list[str]:
    """Circles of imports between modules, lazy ones too; imports for types alone do not count."""
    names = {path: _dotted(path, package) for path in modules(package)}
    known = set(names.values())
    arrows: dict[str, set[str]] = {}
    for path, name in names.items():
        tree = ast.parse(path.read_text())
        typing = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and _last_name(node.test) == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        arrows[name] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and id(node) not in typing:
                for target in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                    if target in known and target != name:
                        arrows[name].add(target)
    return [" -> ".join(circle) for circle in _circles(arrows)]


def _dotted(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """One circle for each strongly connected group of more than one module."""
    done: set[str] = set()
    result: list[list[str]] = []

    def walk(name: str, path: list[str]) -> None:
        if name in path:
            result.append([*path[path.index(name) :], name])
            return
        if name in done:
            return
        for target in sorted(arrows.get(name, ())):
            walk(target, [*path, name])
        done.add(name)

    for name in sorted(arrows):
        walk(name, [])
    return result
