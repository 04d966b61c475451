"""Every public name is documented and typed."""

import ast
import inspect
from dataclasses import fields, is_dataclass
from itertools import pairwise
from pathlib import Path

import pytest

import sequela

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "sequela").rglob("*.py"))


def incomplete(source: str) -> list[str]:
    """What a module's public functions, classes and methods lack: a docstring, or the type of an argument or result."""
    tree = ast.parse(source)
    found = [] if ast.get_docstring(tree) else ["module: no docstring"]
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            found += [] if ast.get_docstring(node) else [f"{node.name}: no docstring"]
            for member in node.body:
                if isinstance(member, ast.FunctionDef) and not member.name.startswith("_"):
                    found += _lacks(member, f"{node.name}.{member.name}")
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            found += _lacks(node, node.name)
    return found


def _lacks(function: ast.FunctionDef, name: str) -> list[str]:
    known = function.args
    arguments = [*known.posonlyargs, *known.args, *known.kwonlyargs, known.vararg, known.kwarg]
    untyped = [
        one.arg for one in arguments if one and one.annotation is None and one.arg not in ("self", "cls")
    ]
    found = [f"{name}: no type for {argument}" for argument in untyped]
    found += [] if function.returns is not None else [f"{name}: no type for the result"]
    described_by_its_class = function.name == "forward"
    return found + (
        [] if ast.get_docstring(function) or described_by_its_class else [f"{name}: no docstring"]
    )


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_is_documented_and_typed(path: Path) -> None:
    assert incomplete(path.read_text()) == []


def test_what_is_missing_is_seen() -> None:
    source = (
        "def f(a, *, b: int):\n    return a\n\nclass A:\n    def g(self) -> None:\n        pass\n\n"
        "def _private(x): ...\n"
    )
    assert incomplete(source) == [
        "module: no docstring",
        "f: no type for a",
        "f: no type for the result",
        "f: no docstring",
        "A: no docstring",
        "A.g: no docstring",
    ]


def undescribed(settings: type) -> list[str]:
    """Fields of a settings dataclass without a line of their own, which would have no `--help`."""
    body = ast.parse(inspect.getsource(settings)).body[0].body
    described = {
        node.target.id
        for node, after in pairwise(body)
        if isinstance(node, ast.AnnAssign)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
    }
    return [one.name for one in fields(settings) if one.name not in described]


@pytest.mark.parametrize("name", sequela.__all__)
def test_exported_name(name: str) -> None:
    value = getattr(sequela, name)
    assert callable(value)
    assert inspect.getdoc(value)
    if is_dataclass(value):
        assert undescribed(value) == []


def test_a_field_without_words_is_seen() -> None:
    from sequela.serve.presets import Preset

    assert "title" in undescribed(Preset)


def test_stages_that_share_a_name_with_a_floor_can_be_called() -> None:
    import sequela.task.catalog

    assert [task.name for task in sequela.tasks()] == [task.name for task in sequela.task.catalog.catalog()]
    with pytest.raises(sequela.InputError, match="nowhere does not exist"):
        sequela.train("nowhere", "model")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'tokenise'"):
        sequela.tokenise  # noqa: B018
    assert set(sequela.__all__) <= set(dir(sequela))
